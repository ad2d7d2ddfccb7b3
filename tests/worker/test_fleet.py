"""A worker with several devices has an executor for each, and spreads its sessions over them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import offload
from tests.integration.tools import kill, standalone_worker, until
from tests.parity.cases import X
from wsl_worker.fleet import Fleet


class _Scheduler:
    """One without a process."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.started = self.ready = False
        self.broken = ""
        self.others: list[str] = []
        self.sessions: list[int] = []

    def start(self) -> None:
        self.started = True

    def attach(self, session: Any) -> None:
        self.sessions.append(session.number)

    def detach(self, session: Any) -> None:
        self.sessions.remove(session.number)


def _fleet(*devices: str) -> tuple[Fleet, list[_Scheduler]]:
    made: list[_Scheduler] = []

    def make(device: str) -> Any:
        made.append(_Scheduler(device))
        return made[-1]

    fleet = Fleet(make, devices)
    fleet.start()
    return fleet, made


def _come(fleet: Fleet, number: int) -> Any:
    scheduler: Any = fleet.place()
    fleet.attach(SimpleNamespace(number=number), scheduler)  # type: ignore[arg-type]
    return scheduler


def test_sessions_go_to_the_device_with_the_fewest_and_its_executor_is_started_with_the_first() -> None:
    fleet, made = _fleet("cuda:0", "cuda:1", "cuda:2")
    assert [one.started for one in made] == [True, False, False]

    assert [_come(fleet, number).device for number in range(5)] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]
    fleet.detach(SimpleNamespace(number=2))  # type: ignore[arg-type]

    assert _come(fleet, 6).device == "cuda:2"
    assert [one.started for one in made] == [True] * 3


def test_with_auto_the_first_executor_says_which_others_there_are() -> None:
    fleet, made = _fleet("auto")
    first: Any = fleet.place()
    first.ready, first.others = True, ["cuda:1"]

    assert [_come(fleet, number).device for number in range(3)] == ["auto", "cuda:1", "auto"]
    assert [one.device for one in made] == ["auto", "cuda:1"]


def test_a_device_that_does_not_work_is_left_out() -> None:
    fleet, made = _fleet("cuda:0", "cuda:1")
    made[1].broken = "no memory"

    assert {_come(fleet, number).device for number in range(3)} == {"cuda:0"}
    made[0].broken = "none either"
    assert fleet.place().broken == "none either"


_CLIENT = """
import sys, numpy as np, sklearn_wsl_gpu
from sklearn.cluster import KMeans
X = np.random.default_rng(0).normal(size=(20_000, 10))
with sklearn_wsl_gpu.offload(fallback="quiet") as session:
    KMeans(2, random_state=0, n_init=1).fit(X[:100])
    print("ready", flush=True)
    sys.stdin.readline()
    KMeans(30, n_init=3, max_iter=200, tol=0.0, random_state=0).fit(X)
print([call.where for call in session.report().calls])
"""


def test_sessions_on_two_devices_compute_at_the_same_time_and_die_alone(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    with standalone_worker(keys, "--device", "cpu,cpu") as (endpoint, _):
        environment = {**os.environ, "SKLEARN_WSL_GPU_ENDPOINT": endpoint, "SKLEARN_WSL_GPU_KEYS": str(keys)}
        clients = [
            subprocess.Popen(
                [sys.executable, "-c", _CLIENT],
                env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for _ in range(2)
        ]  # fmt: skip
        for client in clients:
            assert client.stdout is not None
            assert client.stdout.readline() == "ready\n"
        with offload(endpoint=endpoint, keys=keys, fallback="raise") as session:
            for client in clients:
                assert client.stdin is not None
                client.stdin.write("\n")
                client.stdin.flush()
            until(lambda: session.status()["running"] == 2)
            executors: Any = session.status()["executors"]
            kill(executors[0][1])
            outputs = sorted(client.communicate(timeout=100)[0].strip() for client in clients)
            again: Any = until(lambda: session.status()["ready"] and session.status()["executors"])

    assert [row[0] for row in executors] == ["cpu", "cpu"]
    assert executors[0][1] != executors[1][1]
    assert sum(row[5] for row in executors) == 3
    assert outputs == ["['worker', 'local']", "['worker', 'worker']"]
    assert again[1][1] == executors[1][1], "the other executor is the same as before"
    assert not psutil.pid_exists(executors[0][1])


def test_a_device_that_is_not_there_does_not_stop_the_others(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    with standalone_worker(keys, "--device", "cpu,cuda:7", "--engine", "cpu") as (endpoint, _):
        for slots in ("1,1,1", "1,1,2", "1,1,3"):  # sessions of their own
            with offload(endpoint=endpoint, keys=keys, fallback="raise", slots=slots) as session:
                StandardScaler().fit(X)
            assert session.report().offloaded == 1
