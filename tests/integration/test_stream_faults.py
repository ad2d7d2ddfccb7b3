"""A stream whose other end stops, dies or is interrupted in the middle costs a call, and never a wrong number."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.preprocessing import StandardScaler

import sklearn_wsl_gpu
from sklearn_wsl_gpu import offload, sessions
from sklearn_wsl_gpu.carriers import sockets
from sklearn_wsl_gpu.errors import PoolSpaceError
from sklearn_wsl_gpu.keys import create_keys, read_worker_keys
from sklearn_wsl_gpu.pool import memory
from tests.integration.tools import standalone_worker, until
from wsl_worker import doors
from wsl_worker.bulk import Bulk
from wsl_worker.fleet import Fleet
from wsl_worker.front import Front
from wsl_worker.scheduler import Scheduler
from wsl_worker.supervisor import Supervisor

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="a worker runs on Linux"),
    pytest.mark.timeout(180),
]
LARGE = np.random.default_rng(0).normal(size=(60_000, 10))
SCALED = StandardScaler().fit_transform(LARGE)


def _in_the_middle(monkeypatch: pytest.MonkeyPatch, way: str, act: Callable[[], None]) -> list[bool]:
    """Do something when half of the next large array is on its way; return whether that has happened."""
    happened: list[bool] = []
    real = getattr(sockets, way)

    def halved(end: socket.socket, data: Any, *limits: Any) -> None:
        if len(data) < 2**20 or happened:
            real(end, data, *limits)
            return
        half = len(data) // 2
        real(end, data[:half], *limits)
        happened.append(True)
        act()
        real(end, data[half:], *limits)

    monkeypatch.setattr(sockets, way, halved)
    return happened


WAYS = pytest.mark.parametrize("way", ["send", "receive_into"], ids=["there", "back"])


@WAYS
def test_ctrl_c_in_the_middle_of_a_transfer_leaves_the_next_calls_right(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    # So small that the next call gets the very same span.
    settings: dict[str, Any] = {"slot_bytes": 2**23, "slots": (1, 1, 0), "pool_limit": 2**24}
    other = LARGE[::-1].copy()
    expected = StandardScaler().fit_transform(other)
    with offload(carrier="stream", fallback="raise", engine="cpu", **settings) as session:
        StandardScaler().fit(LARGE)
        estimator = StandardScaler()
        with monkeypatch.context() as patch:
            happened = _in_the_middle(patch, way, interrupt)
            with pytest.raises(KeyboardInterrupt):
                estimator.fit_transform(LARGE)
        assert happened
        assert not hasattr(estimator, "mean_")
        for _ in range(3):
            np.testing.assert_array_equal(StandardScaler().fit_transform(other), expected)
        gc.collect()
        assert session.status()["pool_used_bytes"] == 0
    assert session.report().offloaded == 4


@pytest.mark.falls_back
@pytest.mark.filterwarnings("ignore::sklearn_wsl_gpu.FallbackWarning")
@WAYS
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_worker_that_is_lost_in_the_middle_of_a_transfer_costs_one_call(
    way: str, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = np.tile(LARGE, (10, 1))
    expected = StandardScaler().fit_transform(X)
    with offload(carrier="stream", engine="cpu") as session:
        StandardScaler().fit(LARGE)
        victim = int(str(session.status()["pid"]))
        with monkeypatch.context() as patch:
            # As for a worker on another kernel, whose process nobody here can see.
            patch.setattr("sklearn_wsl_gpu.sockets._STOPPED_SECONDS", 1.8)
            happened = _in_the_middle(patch, way, lambda: os.kill(victim, how))
            # There are arrays both ways, and larger than all buffers between the two.
            np.testing.assert_array_equal(StandardScaler().fit_transform(X), expected)
        assert happened
        np.testing.assert_array_equal(StandardScaler().fit_transform(LARGE), SCALED)
        assert int(str(session.status()["pid"])) != victim
    calls = session.report().calls
    assert {call.reason.code for call in calls if call.reason is not None} == {"worker-died"}
    assert calls[-1].where == "worker"
    until(lambda: not psutil.pid_exists(victim))


@pytest.mark.falls_back
@pytest.mark.filterwarnings("ignore::sklearn_wsl_gpu.FallbackWarning")
@WAYS
def test_an_executor_that_dies_in_the_middle_of_a_transfer_costs_at_most_one_call(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with offload(carrier="stream", engine="cpu") as session:
        StandardScaler().fit(LARGE)
        victim = int(str(session.status()["executor_pid"]))
        with monkeypatch.context() as patch:
            happened = _in_the_middle(patch, way, lambda: os.kill(victim, signal.SIGKILL))
            np.testing.assert_array_equal(StandardScaler().fit_transform(LARGE), SCALED)
        assert happened
        until(lambda: session.status()["executor_pid"] not in (victim, None))
        np.testing.assert_array_equal(StandardScaler().fit_transform(LARGE), SCALED)
    assert session.report().calls[-1].where == "worker"


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    """Run a worker's front in a thread of this process, with keys in `tmp_path`."""
    create_keys(tmp_path)
    fleet = Fleet(lambda device: Scheduler(Supervisor("cpu", device, 2**20)), ["cpu"])
    front = Front("tcp://127.0.0.1:*", *read_worker_keys(tmp_path), fleet, 2**40, Bulk("127.0.0.1"))
    fleet.start()
    thread = threading.Thread(target=front.serve)
    thread.start()
    yield front
    sessions.shutdown()
    front.stop()
    thread.join()
    front.close()


@pytest.mark.falls_back
def test_memory_that_the_worker_does_not_have_is_told_and_the_session_goes_on(
    front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = memory.reserve, []

    def reserve(descriptor: int, offset: int, nbytes: int) -> None:
        if threading.current_thread().name == "wsl_worker bulk" and not refused:
            refused.append(nbytes)
            raise PoolSpaceError("The memory is full.")
        real(descriptor, offset, nbytes)

    with offload(carrier="stream", fallback="quiet", endpoint=front.endpoint, keys=str(tmp_path)) as session:
        StandardScaler().fit(LARGE[:5000])
        monkeypatch.setattr(memory, "reserve", reserve)
        for _ in range(2):
            np.testing.assert_array_equal(StandardScaler().fit_transform(LARGE), SCALED)
        assert len(front._sessions) == 1
    calls = session.report().calls
    assert [call.where for call in calls] == ["worker", "local", "worker"]
    assert calls[1].reason is not None
    assert calls[1].reason.words == "The memory is full."


def test_a_session_that_ends_leaves_nothing_at_the_worker(tmp_path: Path) -> None:
    keys = tmp_path / "keys"

    def held() -> tuple[int, int]:
        memory = [name for name in _targets(process.pid) if "memfd:sklearn_wsl_gpu" in name]
        connections = [one for one in psutil.Process(process.pid).net_connections("tcp") if one.status != "LISTEN"]
        return len(memory), len(connections)

    with standalone_worker(keys, "--engine", "cpu") as (endpoint, process):
        for _ in range(2):
            with offload(carrier="stream", fallback="raise", endpoint=endpoint, keys=str(keys)):
                StandardScaler().fit_transform(LARGE)
                assert min(held()) > 0
            sklearn_wsl_gpu.shutdown()
            until(lambda: held() == (0, 0))
        threads = psutil.Process(process.pid).num_threads()
        with offload(carrier="stream", fallback="raise", endpoint=endpoint, keys=str(keys)):
            StandardScaler().fit_transform(LARGE)
        sklearn_wsl_gpu.shutdown()
        until(lambda: psutil.Process(process.pid).num_threads() <= threads)


def _targets(pid: int) -> list[str]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except OSError:
            continue
    return found


_KILLED = """
import os, signal, sys
import numpy as np
from sklearn.preprocessing import StandardScaler
import sklearn_wsl_gpu
with sklearn_wsl_gpu.offload(carrier="stream", fallback="raise", endpoint=sys.argv[1], keys=sys.argv[2]):
    StandardScaler().fit_transform(np.eye(500))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_client_on_another_kernel_that_is_killed_leaves_nothing_for_long(
    front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "_DESERTED_SECONDS", 1.0)
    monkeypatch.setattr(doors, "_DESERTED_FILES_SECONDS", 1.0)
    monkeypatch.setattr(front, "_watchable", lambda hello: -1)
    opened, real = [], front._sessions.open
    monkeypatch.setattr(front._sessions, "open", lambda *about: opened.append(1) or real(*about))

    client = subprocess.run([sys.executable, "-c", _KILLED, front.endpoint, str(tmp_path)], check=False)

    assert client.returncode == -signal.SIGKILL
    assert opened == [1]
    until(lambda: len(front._sessions) == 0)
    until(lambda: not [name for name in _targets(os.getpid()) if "memfd:sklearn_wsl_gpu" in name])
