"""Where pages should lie on a machine with several nodes: read from made-up machines; the calling thread is real."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_wsl_gpu.pool import numa

CPUS = st.frozensets(st.integers(0, 40))
needs_affinity = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has processors of a thread")


def _machine(root: Path, nodes: Mapping[int, str], gpus: Mapping[str, str] | None = None) -> Path:
    """Make what looks like the root of a machine: list of processors by node, node by address of a GPU."""
    for node, cpus in nodes.items():
        directory = root / f"sys/devices/system/node/node{node}"
        directory.mkdir(parents=True)
        (directory / "cpulist").write_text(f"{cpus}\n")
    for name in ("has_cpu", "online", "possible"):
        (root / "sys/devices/system/node").mkdir(parents=True, exist_ok=True)
        (root / "sys/devices/system/node" / name).write_text("0-1\n")
    for address, node in (gpus or {}).items():
        directory = root / "sys/bus/pci/devices" / address
        directory.mkdir(parents=True)
        (directory / "numa_node").write_text(f"{node}\n")
    return root


def test_each_node_has_its_processors(tmp_path: Path) -> None:
    root = _machine(tmp_path, {0: "0-3,8", 1: "4-7,9-10", 12: "11"})

    assert numa.nodes(root) == {
        0: frozenset({0, 1, 2, 3, 8}),
        1: frozenset({4, 5, 6, 7, 9, 10}),
        12: frozenset({11}),
    }


def test_a_node_without_processors_or_with_nonsense_is_none(tmp_path: Path) -> None:
    root = _machine(tmp_path, {0: "0-3", 1: "", 2: "all", 3: "-5", 4: "3-x"})

    assert numa.nodes(root) == {0: frozenset(range(4))}


def test_a_machine_that_does_not_tell_has_no_nodes(tmp_path: Path) -> None:
    assert numa.nodes(tmp_path) == {}
    assert numa.node_of_gpu("0000:65:00.0", tmp_path) == -1


@pytest.mark.parametrize(
    ("address", "node"),
    [
        ("0000:65:00.0", 1),
        ("00000000:65:00.0", 1),
        ("0000:C1:00.0", 3),
        ("0000:17:00.0", -1),
        ("0000:18:00.0", -1),
        ("0000:99:00.0", -1),
        ("10000:01:00.0", 2),
        ("", -1),
        ("../../../0000:65:00.0", -1),
        ("0000:65:00", -1),
    ],
)
def test_a_gpu_is_on_the_node_that_its_address_on_the_bus_says(tmp_path: Path, address: str, node: int) -> None:
    gpus = {"0000:65:00.0": "1", "0000:c1:00.0": "3", "0000:17:00.0": "-1", "0000:18:00.0": "?", "10000:01:00.0": "2"}

    assert numa.node_of_gpu(address, _machine(tmp_path, {}, gpus)) == node


@pytest.mark.parametrize(
    ("cpus", "node"),
    [({0, 1}, 0), ({5}, 1), ({4, 5, 6, 7}, 1), ({3, 4}, -1), ({0, 1, 2, 3, 4, 5, 6, 7}, -1), (set(), -1), ({99}, -1)],
)
def test_processors_have_a_node_if_all_are_on_it(cpus: set[int], node: int) -> None:
    known = {0: frozenset(range(4)), 1: frozenset(range(4, 8))}

    assert numa.node_of_cpus(cpus, known) == node
    assert numa.node_of_cpus(cpus, {}) == -1


@given(st.integers(-1, 4), st.dictionaries(st.integers(0, 4), CPUS), CPUS)
def test_a_thread_is_only_ever_sent_to_allowed_processors_of_the_node_that_is_meant(
    node: int, known: dict[int, frozenset[int]], allowed: frozenset[int]
) -> None:
    cpus = numa.cpus_for(node, known, allowed)

    if cpus is None:
        assert len(known) < 2 or not known.get(node, frozenset()) & allowed
    else:
        assert cpus
        assert cpus == known[node] & allowed


@needs_affinity
def test_on_a_machine_of_one_node_a_thread_stays_as_it_is(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    cpu = min(before)

    for number, nodes in enumerate([{}, {0: f"{cpu}"}, {0: f"{cpu}", 1: ""}]):
        with numa.near(0, _machine(tmp_path / str(number), nodes)) as cpus:
            assert cpus is None
            assert os.sched_getaffinity(0) == before


@needs_affinity
@pytest.mark.parametrize("node", [-1, 1, 7])
def test_a_node_that_is_unknown_or_not_allowed_changes_nothing(tmp_path: Path, node: int) -> None:
    before = os.sched_getaffinity(0)
    elsewhere = max(before) + 1000

    with numa.near(node, _machine(tmp_path, {0: f"0-{max(before)}", 1: f"{elsewhere}"})) as cpus:
        assert cpus is None
        assert os.sched_getaffinity(0) == before


@needs_affinity
def test_only_the_thread_that_touches_pages_moves_and_it_moves_back_whatever_happens(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    cpu = min(before)
    root = _machine(tmp_path, {0: f"{max(before) + 1}", 1: f"{cpu},{max(before) + 2}"})
    inside, seen = threading.Event(), threading.Event()
    found: list[set[int]] = []

    def touch() -> None:
        with contextlib.suppress(ZeroDivisionError), numa.near(1, root) as cpus:
            assert cpus == {cpu}
            found.append(os.sched_getaffinity(0))
            inside.set()
            assert seen.wait(10)
            _ = 1 / 0
        found.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=touch)
    thread.start()
    assert inside.wait(10)
    here = os.sched_getaffinity(0)
    seen.set()
    thread.join()

    assert here == before
    assert found == [{cpu}, before]


@needs_affinity
def test_a_system_that_refuses_leaves_the_thread_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.sched_getaffinity(0)
    root = _machine(tmp_path, {0: f"{min(before)}", 1: f"{max(before) + 1}"})

    def refuse(process: int, cpus: object) -> None:
        raise OSError("the set of allowed processors has changed")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    with numa.near(0, root) as cpus:
        assert cpus is None


def test_a_system_without_affinity_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)

    assert numa.allowed_cpus() == frozenset()
    with numa.near(0, _machine(tmp_path, {0: "0", 1: "1"})) as cpus:
        assert cpus is None
