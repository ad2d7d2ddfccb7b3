"""A pool that adapts: it grows when data need more, gives back what is not needed, and has pages ready ahead."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import ConfigurationError, DeadlineExceeded, OffloadSession, PoolTooSmall, offload, room, sessions
from sklearn_wsl_gpu.carriers.moving import Moving
from sklearn_wsl_gpu.pool import Geometry, Pool, Segment, memory, numa, prefault
from sklearn_wsl_gpu.pool.thresholds import Thresholds
from sklearn_wsl_gpu.protocol import messages as m
from sklearn_wsl_gpu.session import Session
from tests.integration.tools import until

MIB = 2**20
#: 3.2 MB, in slots of 4 MiB.
LARGE = np.random.default_rng(0).normal(size=(50_000, 8))
SMALL_POOL: dict[str, Any] = {"slots": (1, 1, 1), "slot_bytes": 4 * MIB, "fallback": "raise"}

pytestmark = pytest.mark.usefixtures("running_worker")


def _expected(X: np.ndarray) -> np.ndarray:
    return StandardScaler().fit(X).transform(X)


def _session(session: OffloadSession) -> Session:
    return sessions.obtain(session.settings)


def _pool(session: OffloadSession) -> Pool:
    return _session(session).pool


def _resident(pool: Pool) -> int:
    return sum(os.fstat(segment.descriptor).st_blocks for segment in pool.segments.values()) * 512


def test_data_that_do_not_fit_the_pool_have_a_segment_added_for_them() -> None:
    X = np.tile(LARGE, (5, 1))
    with offload(**SMALL_POOL) as session:
        result = StandardScaler().fit_transform(X)
        assert len(_pool(session).segments) > 1
        assert session.status()["pool_bytes"] == _pool(session).pool_bytes > 12 * MIB

    np.testing.assert_array_equal(result, _expected(X))


def test_results_that_the_user_keeps_are_views_as_long_as_the_pool_may_grow() -> None:
    expected = _expected(LARGE)
    with offload(**SMALL_POOL) as session:
        kept = [StandardScaler().fit_transform(LARGE) for _ in range(9)]
        assert _pool(session).view_bytes >= 9 * LARGE.nbytes
        for result in kept:
            np.testing.assert_array_equal(result, expected)
        del kept, result
        gc.collect()
        assert session.shrink_pool() > 0
        assert list(_pool(session).segments) == [0]
        np.testing.assert_array_equal(StandardScaler().fit_transform(LARGE), expected)


def test_a_pool_never_grows_beyond_its_limit() -> None:
    X = np.tile(LARGE, (3, 1))
    with offload(**SMALL_POOL, pool_limit=12 * MIB) as session:
        kept = [StandardScaler().fit_transform(LARGE) for _ in range(4)]
        assert list(_pool(session).segments) == [0]
        with pytest.raises(PoolTooSmall, match="pool_limit"):
            StandardScaler().fit(X)
        with pytest.raises(PoolTooSmall, match="pool_limit"):
            session.grow_pool(1)
    del kept


def test_a_pool_is_grown_and_shrunk_by_hand() -> None:
    with offload(**SMALL_POOL) as session:
        assert session.grow_pool(5 * MIB) == 20 * MIB
        assert session.grow_pool(np.int64(1)) == 24 * MIB
        assert session.shrink_pool() >= 12 * MIB
        assert session.status()["pool_bytes"] == 12 * MIB
        for nothing in (0, -5, 1e7, True, float("nan")):
            with pytest.raises(ConfigurationError, match="a number of bytes above zero"):
                session.grow_pool(nothing)  # type: ignore[arg-type]


def test_the_worker_shows_the_slots_of_every_segment() -> None:
    with offload(**SMALL_POOL) as session:
        session.grow_pool(8 * MIB)
        pools: Any = _session(session).status()["pools"]
        assert len(pools[0][5]) == 5


def test_calls_of_many_threads_in_a_pool_that_is_too_small_for_them_are_all_right() -> None:
    expected, wrong = _expected(LARGE), []

    def work() -> None:
        with offload(**SMALL_POOL):
            for _ in range(6):
                if not np.array_equal(StandardScaler().fit_transform(LARGE), expected):
                    wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()

    assert not wrong


def test_an_executor_that_is_started_again_sees_every_segment() -> None:
    with offload(**SMALL_POOL) as session:
        kept = [StandardScaler().fit_transform(LARGE) for _ in range(3)]
        assert len(_pool(session).segments) > 1
        pid = int(str(session.status()["executor_pid"]))
        os.kill(pid, 9)
        until(lambda: session.status()["ready"] and session.status()["executor_pid"] != pid)
        np.testing.assert_array_equal(StandardScaler().fit_transform(LARGE), kept[0])
    del kept


def test_a_pool_that_is_idle_gives_its_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "IDLE_SECONDS", 0.05)
    with offload(**SMALL_POOL) as session:
        results = [StandardScaler().fit_transform(LARGE) for _ in range(4)]
        pool = _pool(session)
        del results
        gc.collect()
        until(lambda: list(pool.segments) == [0] and _resident(pool) < LARGE.nbytes)
        np.testing.assert_array_equal(StandardScaler().fit_transform(LARGE), _expected(LARGE))


def test_pages_are_made_ready_when_a_session_is_opened_and_stay_so() -> None:
    with offload(**SMALL_POOL, prefault=2 * MIB) as session:
        StandardScaler().fit(LARGE[:9])
        held = _session(session)
        assert held.room.ready.wait(20)
        assert _resident(held.pool) >= 4 * MIB
        session.shrink_pool()
        assert _resident(held.pool) >= 4 * MIB


@pytest.mark.usefixtures("own_worker")
def test_a_session_that_is_closed_does_not_wait_for_pages_to_be_ready() -> None:
    with offload(fallback="raise", prefault=2**33) as session:
        StandardScaler().fit(LARGE[:9])
        held = _session(session)
    sessions.shutdown()

    assert held.room.ready.is_set()


def test_closing_a_session_and_growing_wait_for_a_silent_worker_for_a_limited_time_only() -> None:
    deadlines: list[float | None] = []

    def ask(message: m.Message, deadline: float | None, body: bytes = b"") -> m.Message:
        deadlines.append(deadline)
        raise DeadlineExceeded("no answer")

    pool = Pool(Geometry(MIB, 1, 1, 1), limit=9 * MIB)
    asking = room.Room(pool, Moving(pool, ["shared"], ask), b"", ask, MIB)
    assert asking.ready.wait(20)
    assert not asking.grow(MIB)
    asking.close()
    pool.close()

    assert len(deadlines) >= 2
    assert None not in deadlines


def test_a_worker_that_does_not_answer_is_asked_once_to_forget_and_again_the_next_time() -> None:
    asked: list[int] = []
    answers = False

    def ask(message: m.Message, deadline: float | None, body: bytes = b"") -> m.Message:
        if isinstance(message, m.Attach):
            return m.Attached(message.segment, [])
        if isinstance(message, m.Detach):
            asked.append(message.segment)
        if answers:
            return m.Done()
        raise DeadlineExceeded("no answer")

    pool = Pool(Geometry(MIB, 1, 1, 1), limit=9 * MIB)
    moving = Moving(pool, ["shared"], ask)
    moving.is_shared = True
    asking = room.Room(pool, moving, b"", ask, MIB)
    assert asking.ready.wait(20)
    for number in (1, 2, 3):
        pool.admit(number, pool.prepare(MIB)[1])  # type: ignore[index]
    asking.shrink()
    assert len(asked) == 1
    assert pool.pool_bytes == 3 * MIB, "what is here is given back all the same"

    answers = True
    asking.shrink()
    assert sorted(asked[1:]) == [1, 2, 3]
    asking.close()
    pool.close()


def test_what_the_ways_of_an_array_cost_is_measured_when_a_session_is_opened() -> None:
    with offload(fallback="raise") as session:
        StandardScaler().fit(LARGE[:9])
        held = _session(session)
        assert held.room.ready.wait(20)
        assert held.pool.thresholds != Thresholds()


@pytest.mark.parametrize("inline", [0, 2**16])
def test_results_are_the_same_whether_arrays_travel_in_the_message_or_in_slots(inline: int) -> None:
    parts = [LARGE[:40], np.asfortranarray(LARGE[:40]), LARGE[:80:2, ::3], LARGE[:40].astype(np.float32)]
    local = [StandardScaler().fit(X).transform(X) for X in parts]
    with offload(fallback="raise") as session:
        held = _session(session)
        held.room.ready.wait(20)
        held.pool.thresholds = Thresholds(inline=inline)
        granted = held.pool.counters.leases
        for X, expected in zip(parts, local, strict=True):
            scaler = StandardScaler().fit(X)
            for _ in range(3):
                result = scaler.transform(X)
                assert (result.dtype, result.strides) == (expected.dtype, expected.strides)
                np.testing.assert_array_equal(result, expected)
        # Of what size a result will be is only known after the first of its kind.
        assert (held.pool.counters.leases - granted <= 2) == (inline > 0)


def test_what_is_made_ready_at_the_start_is_reserved_a_little_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    reserve = memory.reserve

    def noted(descriptor: int, offset: int, nbytes: int) -> None:
        sizes.append(nbytes)
        reserve(descriptor, offset, nbytes)

    monkeypatch.setattr(memory, "reserve", noted)
    with offload(prefault=8 * memory.RESERVE_CHUNK_BYTES) as session:
        StandardScaler().fit(LARGE)
        assert _session(session).room.ready.wait(60)

    assert len(sizes) >= 16
    assert max(sizes) <= 2 * memory.RESERVE_CHUNK_BYTES


def test_pages_of_inputs_are_made_ready_from_the_node_that_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[tuple[int, int]] = []
    made: list[tuple[int, int]] = []

    @contextlib.contextmanager
    def near(node: int) -> Iterator[None]:
        entered.append((node, threading.get_native_id()))
        yield
        entered.pop()

    def prefaulted(segment: Segment, start: int, nbytes: int, stop: threading.Event) -> bool:
        assert entered[-1][1] == threading.get_native_id()
        made.append((entered[-1][0], start))
        return True

    reads = numa.node_of_cpus(numa.allowed_cpus(), numa.nodes())
    monkeypatch.setattr(numa, "near", near)
    monkeypatch.setattr(prefault, "prefault", prefaulted)
    with offload(**SMALL_POOL, prefault=MIB) as session:
        StandardScaler().fit(LARGE)
        assert _session(session).room.ready.wait(20)
        geometry = _pool(session).geometry

    assert made == [(reads, geometry.input_range[0]), (-1, geometry.output_range[0])]


def test_what_a_call_held_that_was_given_up_is_given_back_with_all_that_is_free() -> None:
    X = np.random.default_rng(0).normal(size=(4000, 20))
    with offload(**SMALL_POOL) as session:
        StandardScaler().fit(X)
        with offload(timeout=0.3), pytest.raises(DeadlineExceeded):
            RandomForestClassifier(100).fit(X, X[:, 0] > X[:, 1])
        assert _pool(session).used_bytes > 0
        until(lambda: not session.status()["running"])
        session.shrink_pool()

        assert _pool(session).used_bytes == 0


def test_a_worker_that_takes_no_more_segments_is_not_asked_at_every_call() -> None:
    asked: list[m.Message] = []
    with offload(**SMALL_POOL) as session:
        StandardScaler().fit(LARGE)
        kept = _session(session).room
        ask = kept._ask

        def refuse(message: m.Message, deadline: float | None = None, body: bytes = b"") -> m.Message:
            if not isinstance(message, m.Attach):
                return ask(message, deadline, body)
            asked.append(message)
            return m.Refused("limit", "There are enough.")

        kept._ask = refuse
        for _ in range(5):
            with pytest.raises(PoolTooSmall):
                StandardScaler().fit(np.tile(LARGE, (5, 1)))
        assert len(asked) == 1
        assert kept._unsure == []


def test_a_deadline_holds_while_another_call_makes_room() -> None:
    with offload(**SMALL_POOL) as session:
        StandardScaler().fit(LARGE)
        with _session(session).room._growing, offload(timeout=0.2), pytest.raises(DeadlineExceeded):
            StandardScaler().fit(np.tile(LARGE, (5, 1)))


def test_a_deadline_holds_while_it_is_asked_what_became_of_an_earlier_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with offload(**SMALL_POOL) as session:
        StandardScaler().fit(LARGE)
        abandoned = _session(session)._abandoned
        until_when: list[float | None] = []
        monkeypatch.setattr(abandoned, "settle", lambda deadline=None: until_when.append(deadline) or True)
        with offload(timeout=5.0):
            StandardScaler().fit(LARGE)

    assert until_when[0] is not None
    assert until_when[0] <= time.monotonic() + 5.0
