"""The allocator's book-keeping against a simple model: nothing overlaps or is lost, warm spans come first."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sklearn_wsl_gpu.pool.allocator import Allocator
from sklearn_wsl_gpu.pool.layout import PAGE, Geometry, round_up

SLOT = 16 * PAGE
GEOMETRIES = st.builds(
    Geometry, st.just(SLOT), inputs=st.integers(1, 3), outputs=st.integers(1, 3), scratch=st.integers(0, 3)
)
SIZES = st.one_of(st.integers(0, 4 * PAGE), st.integers(0, 9 * SLOT))


class AllocatorMachine(RuleBasedStateMachine):
    """Runs of an allocator, and a dict of the same runs."""

    def __init__(self) -> None:
        super().__init__()
        self.geometry = Geometry(SLOT, 1, 1, 1)
        self.allocator = Allocator(self.geometry)
        self.runs: dict[int, int] = {}

    @initialize(geometry=GEOMETRIES)
    def start(self, geometry: Geometry) -> None:
        self.geometry = geometry
        self.allocator = Allocator(geometry)

    def gaps(self, low: int, high: int) -> list[int]:
        """Return the sizes of what the model thinks is free between two addresses."""
        found, at = [], low
        for start, size in sorted(self.runs.items()):
            if start < high and start + size > low:
                found.append(start - at)
                at = start + size
        return [*found, high - at]

    def note(self, found: tuple[int, int] | None, nbytes: int, ranges: list[tuple[int, int]]) -> None:
        wanted = round_up(max(nbytes, 1), PAGE)
        room = max(max(self.gaps(low, high)) for low, high in ranges)
        assert (found is not None) == (wanted <= room), "a run is found exactly where one fits"
        if found is not None:
            start, size = found
            assert size == wanted
            assert start % PAGE == 0
            assert any(low <= start and start + size <= high for low, high in ranges)
            assert all(start + size <= other or other + length <= start for other, length in self.runs.items())
            self.runs[start] = size

    @rule(nbytes=SIZES)
    def allocate_input(self, nbytes: int) -> None:
        allowed = (self.geometry.input_range[0], self.geometry.output_range[0])
        self.note(self.allocator.allocate_input(nbytes), nbytes, [allowed])

    @rule(nbytes=SIZES)
    def allocate_output(self, nbytes: int) -> None:
        (first, inputs_end), (outputs_begin, end) = self.geometry.input_range, self.geometry.output_range
        self.note(self.allocator.allocate_output(nbytes), nbytes, [(inputs_end, end), (first, outputs_begin)])

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        start = data.draw(st.sampled_from(sorted(self.runs)))
        self.allocator.release(start)
        del self.runs[start]
        with pytest.raises(KeyError):
            self.allocator.release(start)

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), nbytes=SIZES)
    def shrink(self, data: st.DataObject, nbytes: int) -> None:
        start = data.draw(st.sampled_from(sorted(self.runs)))
        left = min(self.runs[start], round_up(max(nbytes, 1), PAGE))
        assert self.allocator.shrink(start, nbytes) == left
        self.runs[start] = left

    @invariant()
    def every_byte_is_either_free_or_used(self) -> None:
        assert self.allocator.used == self.runs
        assert self.allocator.free_bytes == self.geometry.pool_bytes - sum(self.runs.values())

    def teardown(self) -> None:
        for start in self.runs:
            self.allocator.release(start)
        largest = self.geometry.largest_span
        assert self.allocator.fits_ever(largest)
        assert not self.allocator.fits_ever(largest + 1)
        found = self.allocator.allocate_input(largest)
        assert found is not None, "whatever fits in an empty pool is found in an emptied one"
        self.allocator.release(found[0])
        assert self.allocator.allocate_output(largest) is not None


def test_an_allocator_does_what_a_simple_model_does() -> None:
    chosen = settings(deadline=None, max_examples=80, stateful_step_count=40)
    run_state_machine_as_test(AllocatorMachine, settings=chosen)


@settings(deadline=None, max_examples=60)
@given(st.permutations(range(6)), st.integers(1, PAGE * 2))
def test_spans_are_reused_last_in_first_out(order: list[int], nbytes: int) -> None:
    allocator = Allocator(Geometry(SLOT, 1, 1, 0))
    starts = [found[0] for found in (allocator.allocate_input(nbytes) for _ in range(6)) if found]

    for number in order:
        allocator.release(starts[number])

    again = [found[0] for found in (allocator.allocate_input(nbytes) for _ in range(6)) if found]
    assert again == [starts[number] for number in reversed(order)]


def test_a_large_warm_span_is_not_broken_for_a_small_request() -> None:
    allocator = Allocator(Geometry(SLOT * 4, 1, 1, 0))
    small, large = allocator.allocate_input(PAGE), allocator.allocate_input(SLOT)
    assert small is not None
    assert large is not None
    allocator.release(small[0])
    allocator.release(large[0])

    assert allocator.allocate_input(PAGE) == small


def test_small_results_take_pages_not_slots() -> None:
    geometry = Geometry(SLOT, 1, 1, 0)
    allocator = Allocator(geometry)

    found = [allocator.allocate_output(100) for _ in range(SLOT // PAGE)]

    low, high = geometry.output_range
    assert [item[1] for item in found if item] == [PAGE] * (SLOT // PAGE)
    assert all(item is not None and low <= item[0] < high for item in found)


def test_requests_overflow_into_scratch_and_never_into_output_slots() -> None:
    geometry = Geometry(SLOT, 1, 1, 1)
    allocator = Allocator(geometry)

    assert allocator.allocate_input(SLOT) == (geometry.input_range[0], SLOT)
    assert allocator.allocate_input(SLOT) == (geometry.input_range[1], SLOT)
    assert allocator.allocate_input(1) is None
    assert allocator.free_bytes == SLOT


def test_replies_take_output_slots_first_then_scratch_and_input_slots_last() -> None:
    geometry = Geometry(SLOT, 1, 1, 1)
    allocator = Allocator(geometry)

    found = [allocator.allocate_output(SLOT) for _ in range(4)]

    begins = [geometry.output_range[0], geometry.input_range[1], geometry.input_range[0]]
    assert [item and item[0] for item in found] == [*begins, None]


def test_releasing_what_was_never_allocated_is_an_error() -> None:
    allocator = Allocator(Geometry(SLOT, 1, 1, 0))

    with pytest.raises(KeyError):
        allocator.release(Geometry(SLOT, 1, 1, 0).input_range[0])
    with pytest.raises(KeyError):
        allocator.shrink(0, 1)
    assert "0 of" in repr(allocator)
