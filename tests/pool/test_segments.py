"""A pool that grows by segments, and gives them back."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from sklearn_wsl_gpu.errors import PoolTooSmall
from sklearn_wsl_gpu.pool import Geometry, Pool, placing
from tests.pool.pools import INPUTS, LARGEST, OUTPUTS, SCRATCH, SLOT, now, until, waiting


@pytest.fixture
def growing() -> Iterator[Pool]:
    made = Pool(Geometry(SLOT, INPUTS, OUTPUTS, SCRATCH), limit=(INPUTS + OUTPUTS + SCRATCH + 10) * SLOT)
    yield made
    made.close()


def _grow(pool: Pool, nbytes: int) -> int:
    prepared = pool.prepare(nbytes)
    assert prepared is not None
    pool.admit(*prepared)
    return prepared[0]


def test_a_segment_that_is_added_serves_what_did_not_fit_and_may_be_kept(growing: Pool) -> None:
    with pytest.raises(PoolTooSmall, match="pool_limit"):
        growing.lease_input(9 * SLOT)
    number = _grow(growing, 9 * SLOT)

    lease = growing.lease_input(9 * SLOT, now())
    assert lease.ref.segment == number
    refs, _ = placing.plan([np.arange(10.0)])
    growing.put(lease, refs, [np.arange(10.0)])
    np.testing.assert_array_equal(placing.view(growing.segments[number].map, lease.ref.start, refs[0]), np.arange(10.0))
    window = growing.window(lease)
    assert growing.keep(lease, window, 8 * SLOT)
    assert growing.view_bytes == 8 * SLOT
    assert len(growing.slots()) == INPUTS + OUTPUTS + SCRATCH + 9
    del window, lease
    gc.collect()
    assert growing.used_bytes == 0


def test_segments_are_added_up_to_the_limit_and_their_numbers_never_come_again(growing: Pool) -> None:
    assert growing.prepare(11 * SLOT) is None
    first = _grow(growing, 6 * SLOT)
    assert growing.prepare(5 * SLOT) is None
    for segment in growing.drop_idle().values():
        segment.close()
    assert _grow(growing, 10 * SLOT) != first


def test_who_waits_is_served_by_a_segment_that_is_added(growing: Pool) -> None:
    everything = growing.lease_input(LARGEST)
    thread = threading.Thread(target=lambda: growing.lease_input(SLOT).release())
    thread.start()
    until(lambda: waiting(growing) == 1)

    _grow(growing, SLOT)
    thread.join()

    everything.release()


def test_who_would_have_to_wait_for_the_user_to_let_go_of_results_is_told_so(growing: Pool) -> None:
    _grow(growing, 9 * SLOT)
    lease = growing.lease_input(9 * SLOT, now())
    window = growing.window(lease)
    assert growing.keep(lease, window, SLOT)
    growing.lease_input(8 * SLOT, now()).release()

    for method in (growing.lease_input, growing.lease_output):
        with pytest.raises(PoolTooSmall, match="kept"):
            method(9 * SLOT, time.monotonic() + 2)
    del window, lease
    gc.collect()
    growing.lease_input(9 * SLOT, now()).release()


def test_who_waits_for_what_a_call_holds_beside_kept_results_is_served(growing: Pool) -> None:
    _grow(growing, 9 * SLOT)
    first, held = growing.lease_input(7 * SLOT, now()), growing.lease_input(2 * SLOT, now())
    window = growing.window(first)
    assert growing.keep(first, window, SLOT)
    held_too = growing.lease_input(5 * SLOT, now())
    thread = threading.Thread(target=lambda: growing.lease_input(8 * SLOT).release())
    thread.start()
    until(lambda: waiting(growing) == 1)

    held.release()
    held_too.release()
    thread.join()


def test_a_segment_that_somebody_waits_for_is_not_dropped(growing: Pool) -> None:
    _grow(growing, 9 * SLOT)
    lease = growing.lease_input(9 * SLOT, now())
    thread = threading.Thread(target=lambda: growing.lease_input(9 * SLOT).release())
    thread.start()
    until(lambda: waiting(growing) == 1)

    with growing._changed:
        lease.release_later()
    assert growing.drop_idle() == {}
    thread.join()

    (segment,) = growing.drop_idle().values()
    segment.close()


def test_only_a_segment_in_which_nothing_is_leased_is_dropped(growing: Pool) -> None:
    number = _grow(growing, 9 * SLOT)
    lease = growing.lease_input(9 * SLOT, now())

    assert growing.drop_idle() == {}
    lease.release()
    dropped = growing.drop_idle()
    assert list(dropped) == [number]
    for segment in dropped.values():
        segment.close()
    assert list(growing.segments) == [0], "the first stays"
    with pytest.raises(PoolTooSmall):
        growing.lease_input(9 * SLOT)
