"""Leases on a pool: waiting in order, ending at once where waiting is useless, and results that the user keeps."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import random
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_wsl_gpu.arrays import ArrayRef
from sklearn_wsl_gpu.errors import DeadlineExceeded, PoolError, PoolTooSmall, StaleReference
from sklearn_wsl_gpu.pool import Geometry, Lease, Pool, placing
from sklearn_wsl_gpu.pool.layout import PAGE, SPAN_HEADER_BYTES, WORKER, pack_span_header
from sklearn_wsl_gpu.pool.memory import RESERVE_CHUNK_BYTES
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.waiting import AGEING, Caller

SLOT = 16 * PAGE
#: Slots of the pool below.
INPUTS, OUTPUTS, SCRATCH = 2, 4, 2
LARGEST = (INPUTS + SCRATCH) * SLOT


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(Geometry(SLOT, INPUTS, OUTPUTS, SCRATCH))
    yield made
    made.close()


def _now() -> float:
    """Return a deadline that has passed: what is not free at once is not waited for."""
    return time.monotonic()


def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        threading.Event().wait(0.001)


def _waiting(pool: Pool) -> int:
    return len(pool._queue)


def _reply(pool: Pool, lease: Lease, values: Array) -> ArrayRef:
    """Write a reply as a worker would."""
    refs, nbytes = placing.plan([values])
    placing.write(pool.segment.map, lease.ref.start, refs, [values])
    header = pack_span_header(pool.segment.epoch, lease.ref.generation, nbytes - SPAN_HEADER_BYTES, WORKER)
    pool.segment.map[lease.ref.start : lease.ref.start + SPAN_HEADER_BYTES] = header
    return refs[0]


def _keep(pool: Pool, values: Array, spare: int = 0) -> Array | None:
    """Return a view of a result that the pool keeps, or None if it has no room to spare."""
    nbytes = placing.plan([values])[1]
    lease = pool.lease_output(nbytes + spare, _now())
    ref = _reply(pool, lease, values)
    window = pool.window(lease)
    if not pool.keep(lease, window, nbytes):
        lease.release()
        return None
    return placing.view(window.data, 0, ref)


def test_a_request_is_read_where_its_lease_says_and_a_reply_only_from_its_own_lease(pool: Pool) -> None:
    sent = np.arange(12.0).reshape(3, 4)
    refs, nbytes = placing.plan([sent])
    lease = pool.lease_input(nbytes)
    pool.put(lease, refs, [sent])

    np.testing.assert_array_equal(placing.view(pool.segment.map, lease.ref.start, refs[0]), sent)
    with pytest.raises(StaleReference):
        pool.check_reply(lease)  # what the client wrote is no reply
    _reply(pool, lease, sent)
    assert pool.check_reply(lease) == nbytes - SPAN_HEADER_BYTES
    lease.release()
    again = pool.lease_input(nbytes)
    assert again.ref.start == lease.ref.start
    with pytest.raises(StaleReference):
        pool.check_reply(again)  # an older reply in a span that is used again
    again.release()


def test_generations_are_never_given_twice(pool: Pool) -> None:
    seen = []
    for _ in range(50):
        lease = pool.lease_input(1)
        seen.append(lease.ref.generation)
        lease.release()

    assert len(set(seen)) == 50
    assert pool.used_bytes == 0


def test_releasing_twice_does_not_free_the_span_of_the_next_one(pool: Pool) -> None:
    first = pool.lease_input(PAGE)
    first.release()
    second = pool.lease_input(PAGE)
    assert second.ref.start == first.ref.start

    first.release()
    first.release_later()

    assert pool.used_bytes == PAGE
    second.release()


@pytest.mark.parametrize("method", ["lease_input", "lease_output"])
def test_what_can_never_fit_fails_at_once_and_names_the_settings(pool: Pool, method: str) -> None:
    everything = pool.lease_input(LARGEST)

    with pytest.raises(PoolTooSmall) as caught:
        getattr(pool, method)(LARGEST + 1)

    for setting in ("slots=", "slot_bytes=", "pool_limit=", "SKLEARN_WSL_GPU_SLOTS", "SKLEARN_WSL_GPU_SLOT_BYTES"):
        assert setting in str(caught.value)
    assert pool.try_lease_output(LARGEST + 1) is None
    everything.release()


def test_waiting_ends_with_the_deadline_and_leaves_nobody_in_the_queue(pool: Pool) -> None:
    everything = pool.lease_input(LARGEST)

    with pytest.raises(DeadlineExceeded, match="timeout"):
        pool.lease_input(1, time.monotonic() + 0.01)

    assert _waiting(pool) == 0
    everything.release()
    pool.lease_input(LARGEST, _now()).release()


def test_callers_are_served_in_order_of_arrival_even_if_a_later_one_would_fit(pool: Pool) -> None:
    small, rest = pool.lease_input(PAGE), pool.lease_input(LARGEST - PAGE)
    served: list[str] = []

    def call(name: str, nbytes: int) -> None:
        lease = pool.lease_input(nbytes)
        served.append(name)
        lease.release()

    threads = []
    for count, (name, nbytes) in enumerate([("large", LARGEST), ("small", PAGE), ("last", LARGEST)], 1):
        threads.append(threading.Thread(target=call, args=(name, nbytes)))
        threads[-1].start()
        _until(lambda count=count: _waiting(pool) == count)  # type: ignore[misc]
    small.release()  # room for the second, who has to wait for the first
    assert pool.try_lease_output(PAGE) is None, "nobody overtakes those who wait"
    assert served == []
    rest.release()
    for thread in threads:
        thread.join()

    assert served == ["large", "small", "last"]
    assert pool.used_bytes == 0


def test_who_gives_up_waiting_does_not_hold_up_those_behind(pool: Pool) -> None:
    held = pool.lease_input(LARGEST - PAGE)
    outcome: list[str] = []
    given_up = threading.Event()

    def impatient() -> None:
        try:
            pool.lease_input(LARGEST, time.monotonic() + 0.2)
        except DeadlineExceeded:
            given_up.set()

    def patient() -> None:
        lease = pool.lease_input(PAGE)
        outcome.append("served" if given_up.is_set() else "overtook")
        lease.release()

    threads = [threading.Thread(target=impatient)]
    threads[0].start()
    _until(lambda: _waiting(pool) == 1 or given_up.is_set())
    threads.append(threading.Thread(target=patient))
    threads[1].start()
    for thread in threads:
        thread.join()

    assert outcome == ["served"]
    held.release()


def test_closing_wakes_those_who_wait_and_refuses_new_leases(pool: Pool) -> None:
    held = pool.lease_input(LARGEST)
    caught: list[BaseException] = []

    def call() -> None:
        try:
            pool.lease_input(1)
        except PoolError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    _until(lambda: _waiting(pool) == 1)
    pool.close()
    thread.join()

    assert len(caught) == 1
    assert "closed" in str(caught[0])
    with pytest.raises(PoolError):
        pool.lease_input(1)
    assert pool.try_lease_output(1) is None
    held.release()


def test_leases_of_many_threads_never_share_a_byte(pool: Pool) -> None:
    torn: list[int] = []

    def call(seed: int) -> None:
        chosen = random.Random(seed)
        for number in range(150):
            lease = chosen.choice([pool.lease_input, pool.lease_output])(chosen.randrange(1, SLOT))
            window = pool.window(lease)
            window[:] = mark = (seed * 151 + number) % 251
            if not (window == mark).all():
                torn.append(seed)
            del window
            chosen.choice([lease.release, lease.release_later])()

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert torn == []
    assert pool.used_bytes == 0


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
    kept = _keep(pool, values)
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
    kept = _keep(pool, np.arange(64.0), spare=SLOT)

    assert kept is not None
    assert pool.used_bytes == pool.view_bytes == PAGE
    del kept


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, SLOT // 4), min_size=1, max_size=40))
def test_kept_results_never_starve_a_pool(lengths: list[int]) -> None:
    with contextlib.closing(Pool(Geometry(SLOT, INPUTS, OUTPUTS, SCRATCH))) as pool:
        kept = [view for view in (_keep(pool, np.ones(length)) for length in lengths) if view is not None]

        assert pool.view_bytes <= OUTPUTS * SLOT
        for method in (pool.lease_input, pool.lease_output):
            largest = method(LARGEST, _now())
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
    assert _keep(pool, np.ones(8)) is None
    assert pool.used_bytes == OUTPUTS * SLOT

    del window
    gc.collect()
    kept = _keep(pool, np.ones(8))
    assert kept is not None
    del kept


def test_a_result_that_overflowed_into_scratch_is_not_kept_there(pool: Pool) -> None:
    outputs = pool.lease_output(OUTPUTS * SLOT)

    assert _keep(pool, np.ones(8)) is None

    outputs.release()
    assert pool.used_bytes == 0


def test_a_finalizer_that_runs_while_its_own_thread_holds_the_pool_does_not_deadlock(pool: Pool) -> None:
    lease = pool.lease_input(PAGE)

    with pool._changed:
        lease.release_later()

    assert pool.used_bytes == 0
    assert pool.try_lease_output(LARGEST) is not None


def test_a_finalizer_wakes_those_who_wait(pool: Pool) -> None:
    kept = _keep(pool, np.ones(8))
    assert kept is not None
    held = [pool.lease_output(PAGE) for _ in range((OUTPUTS + SCRATCH + INPUTS) * SLOT // PAGE - 1)]
    thread = threading.Thread(target=lambda: pool.lease_output(PAGE).release())
    thread.start()
    _until(lambda: _waiting(pool) == 1)

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

    lease = growing.lease_input(9 * SLOT, _now())
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
    _until(lambda: _waiting(growing) == 1)

    _grow(growing, SLOT)
    thread.join()

    everything.release()


def test_who_would_have_to_wait_for_the_user_to_let_go_of_results_is_told_so(growing: Pool) -> None:
    _grow(growing, 9 * SLOT)
    lease = growing.lease_input(9 * SLOT, _now())
    window = growing.window(lease)
    assert growing.keep(lease, window, SLOT)
    growing.lease_input(8 * SLOT, _now()).release()

    for method in (growing.lease_input, growing.lease_output):
        with pytest.raises(PoolTooSmall, match="kept"):
            method(9 * SLOT, time.monotonic() + 2)
    del window, lease
    gc.collect()
    growing.lease_input(9 * SLOT, _now()).release()


def test_who_waits_for_what_a_call_holds_beside_kept_results_is_served(growing: Pool) -> None:
    _grow(growing, 9 * SLOT)
    first, held = growing.lease_input(7 * SLOT, _now()), growing.lease_input(2 * SLOT, _now())
    window = growing.window(first)
    assert growing.keep(first, window, SLOT)
    held_too = growing.lease_input(5 * SLOT, _now())
    thread = threading.Thread(target=lambda: growing.lease_input(8 * SLOT).release())
    thread.start()
    _until(lambda: _waiting(growing) == 1)

    held.release()
    held_too.release()
    thread.join()


def test_a_segment_that_somebody_waits_for_is_not_dropped(growing: Pool) -> None:
    _grow(growing, 9 * SLOT)
    lease = growing.lease_input(9 * SLOT, _now())
    thread = threading.Thread(target=lambda: growing.lease_input(9 * SLOT).release())
    thread.start()
    _until(lambda: _waiting(growing) == 1)

    with growing._changed:
        lease.release_later()
    assert growing.drop_idle() == {}
    thread.join()

    (segment,) = growing.drop_idle().values()
    segment.close()


def test_only_a_segment_in_which_nothing_is_leased_is_dropped(growing: Pool) -> None:
    number = _grow(growing, 9 * SLOT)
    lease = growing.lease_input(9 * SLOT, _now())

    assert growing.drop_idle() == {}
    lease.release()
    dropped = growing.drop_idle()
    assert list(dropped) == [number]
    for segment in dropped.values():
        segment.close()
    assert list(growing.segments) == [0], "the first stays"
    with pytest.raises(PoolTooSmall):
        growing.lease_input(9 * SLOT)


@pytest.mark.skipif(not hasattr(mmap, "MADV_REMOVE"), reason="the system does not take single pages back")
def test_what_is_not_leased_goes_back_to_the_system_and_can_be_leased_again() -> None:
    chunk = RESERVE_CHUNK_BYTES
    with contextlib.closing(Pool(Geometry(4 * chunk, 1, 1, 1))) as pool:
        kept, free = pool.lease_input(chunk), pool.lease_input(3 * chunk)
        pool.window(kept)[:] = 1
        pool.window(free)[:] = 1
        used = os.fstat(pool.segment.descriptor).st_blocks
        free.release()

        assert pool.trim(0) >= 2 * chunk
        assert (used - os.fstat(pool.segment.descriptor).st_blocks) * 512 >= 2 * chunk
        assert pool.trim(0) == 0, "it has gone already"
        assert (pool.window(kept) == 1).all()
        again = pool.lease_input(3 * chunk)
        pool.window(again)[:] = 2
        assert (pool.window(kept) == 1).all()
        again.release()
        assert pool.trim(4 * chunk) == 0, "what is to be spared stays"
        kept.release()


def test_while_a_pool_rests_callers_wait_and_then_get_their_room(pool: Pool) -> None:
    held = pool.lease_output(PAGE)
    assert not pool.rest(True), "something is leased"
    held.release()
    assert pool.rest(True)
    assert pool.try_lease_input(PAGE) is None
    assert pool.try_lease_kept(PAGE) is None
    thread = threading.Thread(target=lambda: pool.lease_input(LARGEST).release())
    thread.start()
    _until(lambda: _waiting(pool) == 1)

    pool.rest(False)

    thread.join()
    pool.lease_input(PAGE, _now()).release()


def test_a_more_urgent_caller_is_granted_room_before_those_who_wait_already(pool: Pool) -> None:
    everything = pool.lease_input(LARGEST)
    served: list[str] = []

    def call(name: str, priority: str, nbytes: int) -> None:
        lease = pool.lease_input(nbytes, None, Caller(priority))
        served.append(name)
        lease.release()

    threads = []
    asked = [("low", "low", LARGEST), ("normal", "normal", LARGEST), ("small", "low", PAGE), ("high", "high", LARGEST)]
    for count, (name, priority, nbytes) in enumerate(asked, 1):
        threads.append(threading.Thread(target=call, args=(name, priority, nbytes)))
        threads[-1].start()
        _until(lambda count=count: _waiting(pool) == count)  # type: ignore[misc]
    assert pool.try_lease_output(PAGE, Caller("high")) is None, "nobody passes one as urgent"
    everything.release()
    for thread in threads:
        thread.join()

    assert served == ["high", "normal", "low", "small"]


def test_a_large_low_request_is_granted_room_under_a_stream_of_small_urgent_ones(pool: Pool) -> None:
    held = pool.lease_input(PAGE)
    granted = threading.Event()

    def large() -> None:
        lease = pool.lease_input(LARGEST, None, Caller("low"))
        granted.set()
        lease.release()

    thread = threading.Thread(target=large)
    thread.start()
    _until(lambda: _waiting(pool) == 1)
    urgent = 0
    while (lease := pool.try_lease_input(PAGE, Caller("high"))) is not None:
        urgent += 1
        held.release()  # there is never a moment without one of them
        held = lease
    held.release()
    thread.join()

    assert urgent == 2 * AGEING
    assert granted.is_set()
