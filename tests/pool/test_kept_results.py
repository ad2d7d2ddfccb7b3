"""Results that the user keeps: they hold their spans, and never starve the pool."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_wsl_gpu.errors import PoolError
from sklearn_wsl_gpu.pool import Geometry, Pool, placing
from sklearn_wsl_gpu.pool.layout import PAGE
from sklearn_wsl_gpu.pool.placing import Array
from tests.pool.pools import INPUTS, LARGEST, OUTPUTS, SCRATCH, SLOT, keep, now, until, waiting

VIEWS: dict[str, Callable[[Array], Array]] = {
    "itself": lambda array: array,
    "slice": lambda array: array[2:, ::3],
    "element": lambda array: array[1, 1:2],
    "reshape": lambda array: array.reshape(-1)[5:],
    "transpose": lambda array: array.T[1:],
    "dtype": lambda array: array.view(np.uint8)[3],
    "memoryview": lambda array: np.asarray(array.data[1:]),
    "broadcast": lambda array: np.broadcast_to(array, (2, *array.shape))[1, 0],
}


@pytest.mark.parametrize("derive", VIEWS.values(), ids=list(VIEWS))
def test_a_kept_result_holds_its_span_until_the_last_view_of_it_is_gone(
    pool: Pool, derive: Callable[[Array], Array]
) -> None:
    values = np.arange(64.0).reshape(8, 8)
    kept = keep(pool, values)
    assert kept is not None
    last = derive(kept)
    expected = derive(values).copy()
    del kept
    gc.collect()
    assert pool.used_bytes == pool.view_bytes == PAGE

    np.testing.assert_array_equal(last, expected)

    del last
    gc.collect()
    assert pool.used_bytes == pool.view_bytes == 0


def test_a_kept_result_gives_back_at_once_what_it_does_not_need(pool: Pool) -> None:
    kept = keep(pool, np.arange(64.0), spare=SLOT)

    assert kept is not None
    assert pool.used_bytes == pool.view_bytes == PAGE
    del kept


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, SLOT // 4), min_size=1, max_size=40))
def test_kept_results_never_starve_a_pool(lengths: list[int]) -> None:
    with contextlib.closing(Pool(Geometry(SLOT, INPUTS, OUTPUTS, SCRATCH))) as pool:
        kept = [view for view in (keep(pool, np.ones(length)) for length in lengths) if view is not None]

        assert pool.view_bytes <= OUTPUTS * SLOT
        for method in (pool.lease_input, pool.lease_output):
            largest = method(LARGEST, now())
            pool.window(largest)[:] = 0
            largest.release()
        assert all((view == 1).all() for view in kept), "what is kept is not overwritten"
        kept.clear()
        gc.collect()
        assert pool.used_bytes == 0


def test_a_pool_whose_output_slots_are_all_kept_asks_for_a_copy(pool: Pool) -> None:
    lease = pool.lease_output(OUTPUTS * SLOT)
    window = pool.window(lease)
    assert pool.keep(lease, window, OUTPUTS * SLOT)
    assert pool.view_bytes == OUTPUTS * SLOT

    assert pool.try_lease_kept(1) is None
    assert keep(pool, np.ones(8)) is None
    assert pool.used_bytes == OUTPUTS * SLOT

    del window
    gc.collect()
    kept = keep(pool, np.ones(8))
    assert kept is not None
    del kept


def test_a_result_that_overflowed_into_scratch_is_not_kept_there(pool: Pool) -> None:
    outputs = pool.lease_output(OUTPUTS * SLOT)

    assert keep(pool, np.ones(8)) is None

    outputs.release()
    assert pool.used_bytes == 0


def test_a_finalizer_that_runs_while_its_own_thread_holds_the_pool_does_not_deadlock(pool: Pool) -> None:
    lease = pool.lease_input(PAGE)

    with pool._changed:
        lease.release_later()

    assert pool.used_bytes == 0
    assert pool.try_lease_output(LARGEST) is not None


def test_a_finalizer_wakes_those_who_wait(pool: Pool) -> None:
    kept = keep(pool, np.ones(8))
    assert kept is not None
    held = [pool.lease_output(PAGE) for _ in range((OUTPUTS + SCRATCH + INPUTS) * SLOT // PAGE - 1)]
    thread = threading.Thread(target=lambda: pool.lease_output(PAGE).release())
    thread.start()
    until(lambda: waiting(pool) == 1)

    del kept
    gc.collect()
    thread.join()

    for lease in held:
        lease.release()
    assert pool.used_bytes == 0


def test_a_lease_that_is_lost_gives_its_span_back(pool: Pool) -> None:
    lease = pool.lease_input(PAGE)
    assert pool.used_bytes == PAGE

    del lease
    gc.collect()

    assert pool.used_bytes == 0


def test_a_closed_pool_is_an_error_and_not_a_crash(pool: Pool) -> None:
    lease = pool.lease_output(PAGE)
    pool.close()

    for use in (lambda: pool.put(lease, [], []), lambda: pool.check_reply(lease), lambda: pool.window(lease)):
        with pytest.raises(PoolError, match="closed"):
            use()


def test_a_pool_that_is_closed_while_a_request_is_copied_is_an_error_and_not_a_crash(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = pool.lease_input(PAGE)
    refs, _ = placing.plan([np.arange(10.0)])

    def copy(target: Array, source: Array) -> None:
        pool.close()
        assert not pool.segment.map.closed
        np.copyto(target, source)

    monkeypatch.setattr(pool.copier, "copy", copy)
    with pytest.raises(PoolError, match="closed"):
        pool.put(lease, refs, [np.arange(10.0)])


def test_a_pool_that_is_closed_while_a_span_is_reserved_is_an_error_of_the_pool(pool: Pool) -> None:
    pool.segment.close()

    with pytest.raises(PoolError, match="closed"):
        pool.lease_input(PAGE)
