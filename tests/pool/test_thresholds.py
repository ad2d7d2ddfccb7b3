"""From which sizes on another way of an array is taken: what was measured decides, within bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sklearn_wsl_gpu.pool.thresholds import (
    MAX_INLINE_BYTES,
    MAX_VIEW_BYTES,
    MIN_VIEW_BYTES,
    Costs,
    Thresholds,
    decide,
    seconds_of,
)

SECONDS = st.floats(0, 1, allow_nan=False)


def test_an_array_travels_in_the_message_as_long_as_that_costs_less_than_a_slot() -> None:
    assert decide(Costs(100e-6, 10e-9, 0, 1)).inline == 10_000
    assert decide(Costs(100e-6, 1e-12, 0, 1)).inline == MAX_INLINE_BYTES
    assert decide(Costs(0, 10e-9, 0, 1)).inline == 0


def test_a_result_is_copied_as_long_as_that_costs_less_than_to_keep_it_where_it_is() -> None:
    assert decide(Costs(0, 1, 30e-6, 0.1e-9)).view == 300_000
    assert decide(Costs(0, 1, 0, 1)).view == MIN_VIEW_BYTES
    assert decide(Costs(0, 1, 1, 1e-12)).view == MAX_VIEW_BYTES


@given(SECONDS, SECONDS, SECONDS, SECONDS)
def test_whatever_was_measured_the_sizes_are_within_bounds(
    slot: float, inline: float, reference: float, copy: float
) -> None:
    found = decide(Costs(slot, inline, reference, copy))

    assert isinstance(found, Thresholds)
    assert 0 <= found.inline <= MAX_INLINE_BYTES
    assert MIN_VIEW_BYTES <= found.view <= MAX_VIEW_BYTES


def test_the_first_run_of_what_is_measured_does_not_count() -> None:
    runs: list[int] = []

    assert seconds_of(lambda: runs.append(1), 3) >= 0
    assert len(runs) == 4
