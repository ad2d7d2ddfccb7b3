"""Where a device is: what CUDA's driver says, and what a client is told."""

from __future__ import annotations

import ctypes
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import offload, sessions
from sklearn_wsl_gpu.pool import numa
from wsl_worker import executor
from wsl_worker.engines import devices


def _driver(addresses: list[str]) -> Any:
    """Return what looks like CUDA's driver on a machine with GPUs at these addresses; handles are not their numbers."""

    def count(into: Any) -> int:
        into._obj.value = len(addresses)
        return 0

    def get(into: Any, number: int) -> int:
        into._obj.value = number + 70
        return 0 if number < len(addresses) else 101

    def address(text: Any, size: int, device: Any) -> int:
        assert size == len(text) >= 13
        text.value = addresses[device.value - 70].encode()
        return 0

    return SimpleNamespace(cuDeviceGetCount=count, cuDeviceGet=get, cuDeviceGetPCIBusId=address)


def test_the_driver_says_where_a_gpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _driver(["0000:17:00.0", "0000:65:00.0"])
    monkeypatch.setattr(devices, "_driver", lambda: made)

    assert devices.count_gpus() == 2
    assert [devices.bus_id(number) for number in range(3)] == ["0000:17:00.0", "0000:65:00.0", ""]


def test_without_a_driver_there_is_no_gpu_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name} is not there")

    monkeypatch.setattr(ctypes, "CDLL", missing)

    assert devices.count_gpus() == 0
    assert devices.bus_id(0) == ""


@pytest.mark.parametrize(
    ("device", "node"), [("cuda:1", 5), ("cuda:0", -1), ("cuda:2", -1), ("cuda", -1), ("cpu", 3), ("auto", 3)]
)
def test_the_node_is_that_of_the_gpu_or_of_all_processors(
    monkeypatch: pytest.MonkeyPatch, device: str, node: int
) -> None:
    addresses = {1: "0000:65:00.0"}
    monkeypatch.setattr(executor, "bus_id", lambda number: addresses.get(number, ""))
    monkeypatch.setattr(numa, "node_of_gpu", lambda address: {"0000:65:00.0": 5}.get(address, -1))
    monkeypatch.setattr(numa, "nodes", lambda: {2: frozenset({7}), 3: frozenset({8, 9})})
    monkeypatch.setattr(numa, "allowed_cpus", lambda: frozenset({9}))

    assert executor._node_of(device) == node


@pytest.mark.skipif(not devices.count_gpus(), reason="CUDA shows no GPU here")
def test_a_real_gpu_has_an_address() -> None:
    assert re.fullmatch(r"[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]", devices.bus_id(0))


def test_a_client_is_told_the_node_of_its_workers_processors() -> None:
    with offload(fallback="raise", engine="cpu"):
        StandardScaler().fit(np.eye(3))

    # The worker may run where this process may.
    assert sessions.live()[0]._welcome.node == numa.node_of_cpus(numa.allowed_cpus(), numa.nodes())
