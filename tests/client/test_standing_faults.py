"""A worker that is kept, where files are damaged, missing or not to be written: it can always be ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sklearn_wsl_gpu import standing
from sklearn_wsl_gpu.cli import main
from sklearn_wsl_gpu.launch import kept

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a worker runs on Linux")

START = [sys.executable, "-m", "sklearn_wsl_gpu.cli", "worker", "start", "--keys"]


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "my keys"
    yield where
    main(["worker", "stop", "--keys", str(where)])


def _run(keys: Path, *words: str) -> int:
    return main(["worker", *words, "--keys", str(keys)])


def _refuses(keys: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert _run(keys, *words) == 2
    return capsys.readouterr().err


def _start(keys: Path) -> psutil.Process:
    assert _run(keys, "start") == 0
    noted = kept.read(keys)
    assert noted is not None
    return psutil.Process(noted.pid)


@pytest.mark.parametrize("harm", ["missing", "damaged", "open to others"])
def test_without_keys_of_a_client_none_is_started(
    harm: str, keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _start(keys)
    assert _run(keys, "stop") == 0
    path = keys / "client.json"
    if harm == "missing":
        path.unlink()
    elif harm == "damaged":
        path.write_text("{")
    else:
        path.chmod(0o644)
    started: list[object] = []
    monkeypatch.setattr(standing, "WorkerProcess", started.append)

    words = _refuses(keys, capsys, "start")

    assert started == []
    assert "client.json" in words
    assert harm != "open to others" or f"Run: chmod 600 '{path}'" in words


@pytest.mark.parametrize("command", ["start", "status", "stop"])
def test_a_worker_whose_keys_are_lost_is_told_of_with_how_to_end_it(
    command: str, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = _start(keys)
    try:
        (keys / "client.json").write_text("{")

        assert f"A worker runs (process {process.pid})" in (words := _refuses(keys, capsys, command))
        assert f"To end it: kill {process.pid}" in words
    finally:
        process.terminate()
        psutil.wait_procs([process], 20)
    (keys / "client.json").unlink()
    (keys / "worker.json").unlink()
    assert _run(keys, "start") == 0  # and all is well again


@pytest.mark.parametrize("can_be_asked", [True, False])
def test_a_worker_whose_address_cannot_be_written_is_ended(
    can_be_asked: bool, keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Process(standing.WorkerProcess):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            started.append(self.child)

    def full(*_: object) -> None:
        if not can_be_asked:
            (keys / "client.json").write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(standing, "WorkerProcess", Process)
    monkeypatch.setattr(standing, "_STOP_SECONDS", 10.0 if can_be_asked else 0.1)
    with monkeypatch.context() as patch:
        patch.setattr(kept, "write_new", full)
        words = _refuses(keys, capsys, "start")

    assert f"The worker's address cannot be written to {keys}/running.json: No space left on device." in words
    assert [child.poll() for child in started] == [0 if can_be_asked else -signal.SIGKILL]
    assert not (keys / "running.json").exists()


def test_a_log_that_cannot_be_written_is_told(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (keys / "worker.log").mkdir(parents=True)

    assert "messages cannot be written to" in _refuses(keys, capsys, "start")


@pytest.mark.parametrize("command", ["start", "status", "stop"])
def test_a_file_of_keys_is_not_taken_for_their_directory(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "client.json").write_text("{}")

    assert "is a file. Keys are named by the directory" in _refuses(tmp_path / "client.json", capsys, command)


@pytest.mark.parametrize(
    "note",
    [
        "", "[]", "{", '{"endpoint": ""}', '{"endpoint": null}', '{"endpoint": "tcp://127.0.0.1:1", "pid": 1e999}',
        '{"endpoint": "tcp://127.0.0.1:1", "pid": 100000000000000000000}',
        '{"endpoint": "tcp://127.0.0.1:1", "pid": -1}',
    ],
)  # fmt: skip
def test_a_damaged_note_is_none(note: str, keys: Path) -> None:
    keys.mkdir()
    (keys / "running.json").write_text(note)

    assert _run(keys, "status") == 1
    assert _run(keys, "stop") == 1
    assert kept.read(keys) is None


def test_a_directory_in_the_place_of_the_note_is_told(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (keys / "running.json").mkdir(parents=True)

    for command in ("start", "stop"):
        assert f"{keys}/running.json cannot be read, or not deleted (Is a directory)" in _refuses(keys, capsys, command)
    (keys / "running.json").rmdir()


class TestOfAnotherSystem:
    """Where the worker is in WSL, nothing is known of its process."""

    @pytest.fixture
    def process(self, keys: Path) -> psutil.Process:
        process = _start(keys)
        noted = json.loads((keys / "running.json").read_text())
        (keys / "running.json").write_text(json.dumps({**noted, "pid": 0, "distribution": "My Linux"}))
        return process

    @pytest.mark.parametrize("command", ["start", "status", "stop"])
    def test_one_that_does_not_answer_is_not_forgotten(
        self, command: str, process: psutil.Process, keys: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        process.suspend()
        try:
            words = _refuses(keys, capsys, command)
        finally:
            process.resume()

        assert 'wsl --terminate "My Linux"' in words
        assert f"delete {keys}/running.json" in words
        assert _run(keys, "stop") == 0
        psutil.wait_procs([process], 20)
        assert not process.is_running()

    def test_one_that_was_killed_is_forgotten(self, process: psutil.Process, keys: Path) -> None:
        process.send_signal(signal.SIGKILL)
        psutil.wait_procs([process], 20)

        assert _run(keys, "status") == 1
        assert _run(keys, "stop") == 1
        assert not (keys / "running.json").exists()


def test_who_finds_a_worker_that_starts_waits_until_it_is_ready(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen([*START, str(keys)], stdout=subprocess.PIPE) as first:
        while kept.read(keys) is None:
            assert first.poll() is None
        assert _run(keys, "start", "--json") == 0
        assert json.loads(capsys.readouterr().out)["workers"][0]["ready"]
        first.communicate()


@pytest.mark.falls_back
def test_who_finds_a_worker_whose_engine_does_not_start_says_so(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        sys.executable,
        "-m",
        "sklearn_wsl_gpu.cli",
        "worker",
        "start",
        "--engine",
        "abacus",
        "--keys",
        str(keys),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        while kept.read(keys) is None and first.poll() is None:
            pass
        code = _run(keys, "start")
        first.communicate()

    said = capsys.readouterr()
    # It was told why, or the first was ended before, and then there is one of its own.
    assert (code, "The engine abacus does not start" in said.err) in {(2, True), (0, False)}
    assert "starting" not in said.out
