"""Leases on a pool: waiting in order, and ending at once where waiting is useless."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import threading
import time

import numpy as np
import pytest

from sklearn_wsl_gpu.errors import DeadlineExceeded, PoolError, PoolTooSmall, StaleReference
from sklearn_wsl_gpu.pool import Geometry, Pool, placing
from sklearn_wsl_gpu.pool.layout import PAGE, SPAN_HEADER_BYTES
from sklearn_wsl_gpu.pool.memory import RESERVE_CHUNK_BYTES
from sklearn_wsl_gpu.waiting import AGEING, Caller
from tests.pool.pools import LARGEST, SLOT, now, reply, until, waiting


def test_a_request_is_read_where_its_lease_says_and_a_reply_only_from_its_own_lease(pool: Pool) -> None:
    sent = np.arange(12.0).reshape(3, 4)
    refs, nbytes = placing.plan([sent])
    lease = pool.lease_input(nbytes)
    pool.put(lease, refs, [sent])

    np.testing.assert_array_equal(placing.view(pool.segment.map, lease.ref.start, refs[0]), sent)
    with pytest.raises(StaleReference):
        pool.check_reply(lease)  # what the client wrote is no reply
    reply(pool, lease, sent)
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

    assert waiting(pool) == 0
    everything.release()
    pool.lease_input(LARGEST, now()).release()


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
        until(lambda count=count: waiting(pool) == count)  # type: ignore[misc]
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
    until(lambda: waiting(pool) == 1 or given_up.is_set())
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
    until(lambda: waiting(pool) == 1)
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
    until(lambda: waiting(pool) == 1)

    pool.rest(False)

    thread.join()
    pool.lease_input(PAGE, now()).release()


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
        until(lambda count=count: waiting(pool) == count)  # type: ignore[misc]
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
    until(lambda: waiting(pool) == 1)
    urgent = 0
    while (lease := pool.try_lease_input(PAGE, Caller("high"))) is not None:
        urgent += 1
        held.release()  # there is never a moment without one of them
        held = lease
    held.release()
    thread.join()

    assert urgent == 2 * AGEING
    assert granted.is_set()
