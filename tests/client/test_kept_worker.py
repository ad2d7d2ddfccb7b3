"""A worker that ``sklearn-wsl-gpu worker start`` keeps is the one that a plain ``offload()`` uses, if it can."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import config, greeting, launch, sessions, standing
from sklearn_wsl_gpu.context import offload
from sklearn_wsl_gpu.launch import kept
from tests.integration.tools import has_ended, until

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a worker runs on Linux")

X = np.arange(12.0).reshape(4, 3)


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    where = tmp_path / "keys"
    monkeypatch.setenv("SKLEARN_WSL_GPU_KEYS", str(where))
    yield where
    sessions.shutdown()
    standing.stop(None if not where.exists() else str(where), None)


@pytest.fixture
def worker(keys: Path) -> dict[str, Any]:
    return standing.start(str(keys), "cpu", "auto", "tcp://127.0.0.1:*")[0]


def _clients(keys: Path) -> list[int]:
    found = standing.status(str(keys), None)
    return [] if found is None else [session["pid"] for session in found["sessions"]]


def _fit(**settings: Any) -> str:
    """Fit under settings; return where the worker listens that has done it."""
    with offload(**settings, fallback="raise") as session:
        StandardScaler().fit(X)
        assert session.report().offloaded == 1
    [used] = [item.where.endpoint for item in sessions.live() if not item.broken]
    return used


def test_a_plain_offload_uses_the_worker_that_is_kept_and_starts_none(keys: Path, worker: dict[str, Any]) -> None:
    with offload() as session:
        StandardScaler().fit(X)
        assert worker["endpoint"] in repr(session)

    assert _clients(keys) == [os.getpid()]
    assert not launch._workers.local


@pytest.mark.parametrize(
    ("settings", "suits"),
    [
        ({}, True), ({"engine": "cpu"}, True), ({"device": "cuda:1"}, True), ({"distribution": "Ubuntu"}, True),
        ({"engine": "cpu", "device": "auto", "slots": (1, 1, 1), "slot_bytes": 2**20}, True),
        ({"engine": "array_api"}, False), ({"device": "cpu"}, False), ({"model_bytes": 2**20}, False),
        ({"distribution": "Debian"}, False), ({"interpreter": "/usr/bin/python3"}, False),
    ],
)  # fmt: skip
def test_it_is_used_if_it_is_what_the_settings_ask_for(settings: dict[str, Any], suits: bool, tmp_path: Path) -> None:
    noted = kept.Kept("tcp://127.0.0.1:5", 7, "cpu", "cuda:1", "Ubuntu", None)
    kept.write(tmp_path, noted)

    assert kept.find(config.resolve({**settings, "keys": tmp_path})) == (noted if suits else None)


def test_one_that_was_killed_is_passed_over(worker: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    process = psutil.Process(worker["pid"])
    process.kill()
    process.wait(10)

    assert _fit(verbose=1) != worker["endpoint"]
    assert f"{worker['endpoint']}, which is kept for all processes, is of no use: Nothing" in capfd.readouterr().err


def test_one_that_was_killed_is_passed_over_by_a_process_that_was_told_of_it(worker: dict[str, Any]) -> None:
    settings = config.resolve({})
    launch.inherit(launch.worker_key(settings), launch.address(settings))
    process = psutil.Process(worker["pid"])
    process.kill()
    process.wait(10)

    assert _fit() != worker["endpoint"]


def test_processes_of_this_one_are_not_told_of_one_that_was_killed(worker: dict[str, Any]) -> None:
    process = psutil.Process(worker["pid"])
    process.kill()
    process.wait(10)

    where = sessions.worker_address(config.resolve({}))

    assert where is not None
    assert where.endpoint != worker["endpoint"]


def test_one_that_hangs_is_passed_over(worker: dict[str, Any]) -> None:
    os.kill(worker["pid"], signal.SIGSTOP)
    try:
        assert _fit() != worker["endpoint"]
    finally:
        os.kill(worker["pid"], signal.SIGCONT)


def test_one_of_another_version_is_passed_over(
    worker: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    real, asked = greeting.version, []

    def first_another(name: str) -> str:
        asked.append(name)
        return "0.1" if asked == ["scikit-learn"] else real(name)

    monkeypatch.setattr(greeting, "version", first_another)

    assert _fit(verbose=1) != worker["endpoint"]
    assert "is of no use: The worker has scikit-learn" in capfd.readouterr().err


def test_keys_that_others_can_read_are_not_used(keys: Path, worker: dict[str, Any]) -> None:
    (keys / "client.json").chmod(0o644)
    try:
        assert _fit() != worker["endpoint"]
    finally:
        (keys / "client.json").chmod(0o600)


@pytest.mark.falls_back
def test_when_it_dies_between_two_calls_the_next_but_one_has_a_worker_of_this_process(worker: dict[str, Any]) -> None:
    with offload(fallback="quiet") as session:
        StandardScaler().fit(X)
        process = psutil.Process(worker["pid"])
        process.kill()
        process.wait(10)
        StandardScaler().fit(X)
        StandardScaler().fit(X)

        assert session.report().calls[-1].where == "worker"
    assert launch._workers.local


def test_a_worker_that_this_process_has_already_is_not_left_for_it(keys: Path) -> None:
    before = _fit()
    started = standing.start(str(keys), "cpu", "auto", "tcp://127.0.0.1:*")[0]
    with offload(slots=(1, 1, 1), slot_bytes=2**20, fallback="raise"):
        StandardScaler().fit(X)

    assert {item.where.endpoint for item in sessions.live()} == {before}
    assert before != started["endpoint"]


_PROGRAM = """
import os

import joblib
from sklearn.linear_model import Ridge
from sklearn.multioutput import MultiOutputRegressor

from sklearn_wsl_gpu import launch, sessions

if __name__ == "__main__":
    data = [[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]]
    with joblib.parallel_config(backend="loky"):
        MultiOutputRegressor(Ridge(), n_jobs=2).fit(data, data)
    Ridge().fit(data, data)
    print(os.getpid(), [session.where.endpoint for session in sessions.live()], list(launch._workers.local), flush=True)
    input()
"""


def test_a_program_and_its_processes_use_it_where_the_environment_enables_that(
    keys: Path, worker: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(_PROGRAM)
    environment = {**os.environ, "SKLEARN_WSL_GPU": "1", "SKLEARN_WSL_GPU_FALLBACK": "raise"}
    with subprocess.Popen(
        [sys.executable, tmp_path / "program.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
        text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        said = process.stdout.readline()
        clients = _clients(keys)
        process.communicate("\n")

    assert said == f"{process.pid} ['{worker['endpoint']}'] []\n"
    assert process.pid in clients
    assert len(set(clients)) >= 2


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"pid": 4}', '{"endpoint": 5}', '{"endpoint": "tcp://x"}'])
def test_a_note_that_cannot_be_understood_is_none(text: str, tmp_path: Path) -> None:
    kept.path_in(tmp_path).write_text(text)

    assert kept.read(tmp_path) is None


def test_a_note_of_an_earlier_version_is_understood(tmp_path: Path) -> None:
    kept.path_in(tmp_path).write_text(json.dumps({"endpoint": "tcp://127.0.0.1:5", "pid": 7}))

    assert kept.read(tmp_path) == kept.Kept("tcp://127.0.0.1:5", 7, "auto", "auto", None, None)


def test_stopping_it_from_a_session_stops_it_for_all(worker: dict[str, Any]) -> None:
    with offload() as session:
        StandardScaler().fit(X)
        session.stop_worker()

    assert until(lambda: has_ended(worker["pid"]))
