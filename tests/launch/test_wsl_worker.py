"""A worker that is started through ``wsl.exe``: used, lost, stopped, as on Windows; the ``wsl.exe`` is a fake."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.cluster import KMeans
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import FallbackWarning, WorkerStartError, launch, offload, sessions
from sklearn_wsl_gpu.cli import main
from sklearn_wsl_gpu.launch import commands, starting, wsl
from tests.integration.tools import POINTS, kill, long_fit, run_python, until
from tests.launch.fake_wsl import Machine

pytestmark = pytest.mark.timeout(120)

THREADS = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


@pytest.fixture
def wsl2(machine: Machine) -> Machine:
    """A distribution with a worker in the place where ``setup`` puts it."""
    where = machine.home / wsl.VENV / "bin" / "python"
    where.parent.mkdir(parents=True)
    where.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    where.chmod(0o755)
    machine.environment = THREADS
    machine.save()
    return machine


@pytest.fixture
def two_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client see no processes of the worker, as if it were of another kernel: all it has is silence."""
    monkeypatch.delattr(os, "pidfd_open")


def _front(machine: Machine) -> psutil.Process:
    (process,) = machine.inside()
    return process


def test_a_worker_is_found_started_through_wsl_used_and_stopped(wsl2: Machine) -> None:
    X = np.random.default_rng(0).normal(size=(500, 4))
    with offload(fallback="raise") as session:
        labels = KMeans(3, random_state=0, n_init=1).fit_predict(X)
        StandardScaler().fit(X)
        assert session.status()["pid"] == _front(wsl2).pid
    sessions.shutdown()

    np.testing.assert_array_equal(labels, KMeans(3, random_state=0, n_init=1).fit_predict(X))
    assert session.report().offloaded == 2
    until(lambda: not wsl2.inside())
    started = [run for run in wsl2.asked if "wsl_worker" in run]
    python = f"{wsl2.home}/{wsl.VENV}/bin/python"
    assert started == [["-d", "Ubuntu", "--cd", "~", "--exec", python, "-P", "-m", "wsl_worker", "--embedded"]]


def test_the_distribution_and_the_interpreter_can_be_named(wsl2: Machine) -> None:
    wsl2.distributions = [("docker-desktop", "Running", 2), ("Debian", "Stopped", 2), ("Mein Linux", "Stopped", 2)]
    wsl2.save()

    with offload(fallback="raise", distribution="Mein Linux", interpreter=sys.executable):
        StandardScaler().fit(POINTS)

    assert wsl2.asked[-1][:7] == ["-d", "Mein Linux", "--cd", "~", "--exec", sys.executable, "-P"]


def test_verbose_tells_how_the_start_goes(wsl2: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    with offload(fallback="raise", verbose=1):
        StandardScaler().fit(POINTS)
    sessions.shutdown()

    said = capfd.readouterr().err
    assert f"starting a worker with {wsl2.home}/{wsl.VENV}/bin/python in Ubuntu" in said
    assert "the worker at tcp://127.0.0.1:" in said


@pytest.mark.falls_back
@pytest.mark.parametrize("is_between", [False, True])
def test_a_wsl_that_is_shut_down_in_mid_fit_costs_nothing_but_time(
    is_between: bool, wsl2: Machine, two_kernels: None
) -> None:
    estimator = long_fit()

    with offload() as session:
        StandardScaler().fit(POINTS)
        first = session.status()["pid"]

        def strike() -> None:
            until(lambda: session.status()["running"])
            for executor in _front(wsl2).children():
                executor.suspend()  # or it might be done before the blow falls
            if is_between:  # wsl.exe is ended first, and the worker notices that its input has ended
                for relay in _relays(wsl2):
                    kill(relay.pid)
            else:
                wsl.run(["--shutdown"], 20)

        thread = threading.Thread(target=strike)
        thread.start()
        with pytest.warns(FallbackWarning) as told:
            estimator.fit(POINTS)
        thread.join()
        scaler = StandardScaler().fit(POINTS)
        assert session.status()["pid"] != first

    assert len(told) == 1
    expected = long_fit().fit(POINTS)
    np.testing.assert_array_equal(estimator.cluster_centers_, expected.cluster_centers_)
    np.testing.assert_array_equal(scaler.mean_, StandardScaler().fit(POINTS).mean_)
    assert [(call.where, call.reason and call.reason.code) for call in session.report().calls] == [
        ("worker", None),
        ("local", "worker-died"),
        ("worker", None),
    ]
    assert len(wsl2.inside()) == 1


def _relays(machine: Machine) -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            words = process.cmdline()
            if str(machine.directory) in words and "wsl_worker" in words:
                found.append(process)
    return found


@pytest.mark.falls_back
def test_a_machine_that_slept_is_used_again(wsl2: Machine, two_kernels: None) -> None:
    with offload() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        StandardScaler().fit(POINTS)
        front = _front(wsl2)
        sleeping = [front, *front.children(recursive=True)]
        for process in sleeping:
            process.suspend()
        asleep = StandardScaler().fit(POINTS)
        for process in sleeping:
            process.resume()
        awake = StandardScaler().fit(POINTS)

    np.testing.assert_array_equal(asleep.mean_, awake.mean_)
    assert [call.where for call in session.report().calls] == ["worker", "local", "worker"]


def test_an_idle_wsl_that_has_ended_is_started_again_for_the_next_call(wsl2: Machine) -> None:
    with offload(fallback="raise") as session:
        StandardScaler().fit(POINTS)
        first = _front(wsl2).pid
        wsl2.shut_down()
        until(lambda: launch.has_ended(sessions.live()[0].where))
        StandardScaler().fit(POINTS)
        assert session.status()["pid"] != first
    assert session.report().offloaded == 2


_CLIENT = """
import numpy as np, sys, time
from sklearn.preprocessing import StandardScaler
from sklearn_wsl_gpu import offload
with offload(fallback="raise") as session:
    StandardScaler().fit(np.eye(3))
    print(session.status()["pid"], flush=True)
    time.sleep(60)
"""


def test_nothing_is_left_when_the_client_is_killed(wsl2: Machine) -> None:
    process = subprocess.Popen([sys.executable, "-c", _CLIENT], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert int(process.stdout.readline()) == _front(wsl2).pid

    process.kill()
    process.communicate()

    until(lambda: not wsl2.inside())


@pytest.mark.falls_back
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"distributions": [("docker-desktop", "Running", 2)]}, "part of other programs: docker-desktop"),
        ({"fails": "wsl_worker"}, "ended with exit code 255 before it was ready. Check that this runs: wsl -d"),
        ({"fails": "pwd"}, "The distribution Ubuntu does not start (exit code 255). WSL says: Das Subsystem konnte"),
    ],
)
def test_without_a_worker_calls_are_done_here_with_the_reason(
    change: dict[str, Any], words: str, wsl2: Machine
) -> None:
    for name, value in change.items():
        setattr(wsl2, name, value)
    wsl2.save()

    with offload() as session, pytest.warns(FallbackWarning) as told:
        StandardScaler().fit(POINTS)

    assert words in str(told[0].message)
    assert [call.reason and call.reason.code for call in session.report().calls] == ["worker-start"]
    with offload(fallback="raise"), pytest.raises(WorkerStartError):
        StandardScaler().fit(POINTS)


@pytest.mark.falls_back
def test_a_start_that_takes_too_long_is_given_up(
    wsl2: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "_WSL_SECONDS", 1.0)
    monkeypatch.setattr(starting, "_NEWS_SECONDS", 0.3)
    wsl2.hangs = "wsl_worker"
    wsl2.save()

    with offload(fallback="raise", verbose=1), pytest.raises(WorkerStartError, match="was not ready within 1 s"):
        StandardScaler().fit(POINTS)

    assert "still waiting for the worker" in capfd.readouterr().err


@pytest.mark.falls_back
def test_a_worker_that_windows_cannot_reach_is_an_error_that_says_where_to_look(
    wsl2: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*address: Any) -> Any:
        raise ConnectionRefusedError(10061, "No connection could be made")

    monkeypatch.setattr(starting, "_FORWARD_SECONDS", 0.2)
    monkeypatch.setattr(starting.socket, "create_connection", refuse)

    with offload(fallback="raise"), pytest.raises(WorkerStartError, match=r"does not reach it there .*localhostForw"):
        StandardScaler().fit(POINTS)


def test_ctrl_c_while_it_starts_gives_the_prompt_back_and_leaves_nothing(wsl2: Machine) -> None:
    wsl2.hangs = "wsl_worker"
    wsl2.save()
    code = f"import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n{_CLIENT}"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    until(lambda: wsl2.asked and "wsl_worker" in wsl2.asked[-1])

    process.send_signal(signal.SIGINT)

    _, said = process.communicate(timeout=30)
    assert said.rstrip().endswith("KeyboardInterrupt")


def _worker(capsys: pytest.CaptureFixture[str], *command: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["worker", *command, "--json"])
    printed = capsys.readouterr().out
    return code, json.loads(printed) if printed else {}


def test_a_detached_worker_serves_all_processes_until_it_is_stopped(
    wsl2: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = str(tmp_path / "keys")
    command = [sys.executable, "-m", "sklearn_wsl_gpu.cli", "worker", "start", "--detach", "--keys", keys, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True)
    (started,) = json.loads(done.stdout)["workers"]
    try:
        assert started["pid"] == _front(wsl2).pid
        assert _worker(capsys, "start", "--keys", keys)[1]["workers"][0]["pid"] == started["pid"]
        with offload(endpoint=started["endpoint"], keys=keys, fallback="raise"):
            StandardScaler().fit(POINTS)
        program = f"from sklearn.preprocessing import StandardScaler; from sklearn_wsl_gpu import offload\n{_USE}"
        environment = {"SKLEARN_WSL_GPU_ENDPOINT": started["endpoint"], "SKLEARN_WSL_GPU_KEYS": keys}
        assert run_python(program, **environment).stdout == "1\n"
        assert _worker(capsys, "status", "--keys", keys)[1]["workers"][0]["done"] == 2
    finally:
        sessions.shutdown()
        code, stopped = _worker(capsys, "stop", "--keys", keys)
    assert (code, stopped) == (0, {"stopped": [started["endpoint"]]})
    until(lambda: not wsl2.inside())
    assert _worker(capsys, "status", "--keys", keys)[0] == 1
    assert "--shutdown" not in [word for run in wsl2.asked for word in run]


_USE = """
with offload(fallback="raise") as session:
    StandardScaler().fit([[1.0], [2.0]])
print(session.report().offloaded)
"""


def test_a_detached_worker_that_went_with_its_wsl_counts_as_none(
    wsl2: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = str(tmp_path / "keys")
    first = _worker(capsys, "start", "--keys", keys)[1]["workers"][0]
    wsl.run(["--shutdown"], 20)

    assert _worker(capsys, "status", "--keys", keys) == (1, {"workers": []})
    again = _worker(capsys, "start", "--keys", keys)[1]["workers"][0]

    assert again["pid"] != first["pid"]
    assert _worker(capsys, "stop", "--keys", keys)[0] == 0


def test_a_detached_worker_whose_engine_does_not_start_is_ended_and_says_why(
    wsl2: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["worker", "start", "--keys", str(tmp_path / "keys"), "--engine", "abacus"]) == 2
    assert "The engine abacus does not start: ConfigurationError" in capsys.readouterr().err


def test_inside_wsl_the_worker_is_a_child_of_the_client_as_on_linux(
    wsl2: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(wsl.NAMED)
    monkeypatch.setenv("WSL_DISTRO_NAME", "Ubuntu")

    with offload(fallback="raise") as session:
        StandardScaler().fit(POINTS)
        assert psutil.Process(int(session.status()["pid"])).ppid() == os.getpid()

    assert wsl2.asked == []
