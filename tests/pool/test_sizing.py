"""How large a pool is made: never more than asked, never more than half of what is free, and the reason is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_wsl_gpu.errors import ConfigurationError
from sklearn_wsl_gpu.pool.layout import DATA_OFFSET, DEFAULT_SLOT_BYTES, PAGE, Geometry
from sklearn_wsl_gpu.pool.sizing import Bound, choose, limit, ready_bytes

MIB, GIB = 2**20, 2**30
DEFAULT = (4, 4, 8)
BOUNDS = st.builds(Bound, st.text(max_size=9), st.integers(0, 2**45), st.none() | st.integers(0, 2**45))
SLOTS = st.tuples(st.integers(1, 300), st.integers(1, 300), st.integers(0, 300))
SLOT_BYTES = st.integers(1, 2**20).map(lambda pages: pages * PAGE)


@given(st.lists(BOUNDS, max_size=5), SLOTS)
def test_a_size_that_was_not_asked_for_is_at_most_half_of_what_is_free_and_at_most_the_default(
    bounds: list[Bound], slots: tuple[int, int, int]
) -> None:
    try:
        geometry = choose(bounds, slots, None).geometry
    except ConfigurationError:
        assert any(DATA_OFFSET + sum(slots) * PAGE > bound.size for bound in bounds)
        return

    assert (geometry.inputs, geometry.outputs, geometry.scratch) == slots
    assert PAGE <= geometry.slot_bytes <= DEFAULT_SLOT_BYTES
    for bound in bounds:
        free = bound.size if bound.free is None else min(bound.free, bound.size)
        assert geometry.file_bytes <= bound.size
        assert geometry.slot_bytes == PAGE or geometry.file_bytes <= DATA_OFFSET + (free - DATA_OFFSET) / 2
    if not bounds:
        assert geometry.slot_bytes == DEFAULT_SLOT_BYTES


@given(st.lists(BOUNDS, max_size=5), SLOTS, SLOT_BYTES)
def test_a_size_that_was_asked_for_is_taken_or_refused(
    bounds: list[Bound], slots: tuple[int, int, int], slot_bytes: int
) -> None:
    asked = Geometry(slot_bytes, *slots)
    if all(asked.file_bytes <= bound.size for bound in bounds):
        assert choose(bounds, slots, slot_bytes).geometry == asked
    else:
        with pytest.raises(ConfigurationError, match=r"at most [0-9]+ bytes"):
            choose(bounds, slots, slot_bytes)


@given(st.lists(BOUNDS, min_size=1, max_size=4), SLOTS, st.permutations(range(4)), st.integers(0, 2**40))
def test_the_order_of_the_bounds_does_not_matter_and_more_memory_never_makes_a_smaller_pool(
    bounds: list[Bound], slots: tuple[int, int, int], order: list[int], more: int
) -> None:
    roomier = [
        Bound(bound.what, bound.size + more, None if bound.free is None else bound.free + more) for bound in bounds
    ]
    try:
        geometry = choose(bounds, slots, None).geometry
    except ConfigurationError:
        return

    assert choose([bounds[index] for index in order if index < len(bounds)], slots, None).geometry == geometry
    assert choose(roomier, slots, None).geometry.slot_bytes >= geometry.slot_bytes


@pytest.mark.parametrize(
    ("bounds", "slot_bytes", "words"),
    [
        ([Bound("memory", 32 * GIB, 20 * GIB)], 256 * MIB, "16 slots of 256 MiB, the default: no more than half of"),
        (
            [Bound("memory", 32 * GIB, 20 * GIB), Bound("memory of control group /box", 3 * GIB, 2 * GIB)],
            62 * MIB,
            "16 slots of 62 MiB, half of what is free: 2 GiB of memory of control group /box",
        ),
        (
            [Bound("memory", 32 * GIB, 20 * GIB), Bound("the file system of '/dev/shm'", 64 * MIB, 64 * MIB)],
            1984 * 1024,
            "16 slots of 1.938 MiB, half of what is free: 64 MiB of the file system of '/dev/shm'",
        ),
        ([Bound("memory for WSL (its default)", 4 * GIB)], 126 * MIB, "half of what there is: 4 GiB of memory for WSL"),
        ([Bound("memory", 8 * MIB, 100)], PAGE, "16 slots of 4 KiB, the smallest possible: hardly more is free, 100 B"),
        ([], 256 * MIB, "16 slots of 256 MiB, the default: what there is of memory is not known"),
    ],
)
def test_the_choice_says_what_it_was_made_by(bounds: list[Bound], slot_bytes: int, words: str) -> None:
    choice = choose(bounds, DEFAULT, None)

    assert choice.geometry.slot_bytes == slot_bytes
    assert words in choice.why


def test_what_was_asked_and_cannot_be_is_told_with_what_there_is() -> None:
    bounds = [Bound("memory", 32 * GIB, 20 * GIB), Bound("memory of control group /box", GIB, None)]

    assert choose(bounds, (1, 1, 1), 256 * MIB).why == "3 slots of 256 MiB, as asked"
    with pytest.raises(
        ConfigurationError, match=r"3 slots of 536870912 bytes takes 1\.502 GiB, and there are 1 GiB of memory of co"
    ):
        choose(bounds, (1, 1, 1), 512 * MIB)
    with pytest.raises(ConfigurationError, match="at most 1071644672 bytes"):
        choose(bounds, (1, 1, 300_000), None)


@given(st.lists(BOUNDS, max_size=5), SLOT_BYTES)
def test_a_pool_grows_to_half_of_what_there_is_and_little_of_what_is_free_is_made_ready(
    bounds: list[Bound], slot_bytes: int
) -> None:
    ready = ready_bytes(bounds, Geometry(slot_bytes))

    assert limit(bounds) == min((bound.size // 2 for bound in bounds), default=0)
    assert ready % PAGE == 0
    assert ready <= slot_bytes
    assert all(ready * 128 <= bound.room for bound in bounds)
    assert bounds or not ready
