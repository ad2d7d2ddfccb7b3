"""What the worker has already of arrays in the pool is not sent again, and what it has otherwise always is."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.carriers import unchanged
from sklearn_wsl_gpu.carriers.unchanged import Extent, Unchanged, digest

REF = SpanRef(0, 2**21, 2**16, 7)
WHOLE = Extent(REF, 64, 1064)
#: Looking takes microseconds, so that with this sending takes long.
LONG = 1e3


def _send(known: Unchanged, data: bytearray, extent: Extent = WHOLE, seconds: float | None = LONG) -> bool:
    """Send an extent if need be; tell whether it was sent."""
    payload = memoryview(data)[extent.begin : extent.end]
    sending = known.begin(extent, payload)
    if sending is not None:
        known.end(sending, payload, seconds)
    return sending is not None


def test_from_the_third_time_on_an_array_is_sent_only_if_it_has_changed() -> None:
    known, data = Unchanged(), bytearray(2048)

    assert [_send(known, data) for _ in range(4)] == [True, True, False, False]
    data[500] = 1
    assert [_send(known, data) for _ in range(2)] == [True, False]
    data[500] = 0  # as it was before
    assert _send(known, data)


def test_what_lies_beside_it_may_change() -> None:
    known, data = Unchanged(), bytearray(2048)
    for _ in range(2):
        _send(known, data)
    data[63] = data[1064] = 1

    assert not _send(known, data)


def test_another_array_in_the_same_place_is_sent() -> None:
    known, data = Unchanged(), bytearray(2048)
    for _ in range(2):
        _send(known, data)

    assert _send(known, data, WHOLE._replace(ref=REF._replace(generation=8)))


def test_a_part_of_it_that_was_sent_leaves_nothing_known_of_the_whole() -> None:
    known, data = Unchanged(), bytearray(2048)
    for _ in range(2):
        _send(known, data)
    data[100] = 1
    _send(known, data, WHOLE._replace(begin=90, end=200))
    data[100] = 0  # here it is again what it was, there it is not

    assert _send(known, data)


def test_what_did_not_arrive_as_a_whole_is_sent_again() -> None:
    known, data = Unchanged(), bytearray(2048)
    for _ in range(2):
        _send(known, data)
    data[100] = 1
    _send(known, data, seconds=None)
    data[100] = 0

    assert _send(known, data)


def test_what_changes_while_it_is_sent_is_sent_again() -> None:
    known, data = Unchanged(), bytearray(2048)
    _send(known, data)
    payload = memoryview(data)[WHOLE.begin : WHOLE.end]
    sending = known.begin(WHOLE, payload)
    assert sending is not None
    data[100] = 1
    known.end(sending, payload, LONG)
    data[100] = 0

    assert _send(known, data)


def test_of_two_who_send_it_at_the_same_time_nobody_knows_what_arrived_last() -> None:
    known, data = Unchanged(), bytearray(2048)
    _send(known, data)
    payload = memoryview(data)[WHOLE.begin : WHOLE.end]
    one, other = known.begin(WHOLE, payload), known.begin(WHOLE, payload)
    assert one is not None
    assert other is not None
    known.end(other, payload, LONG)
    known.end(one, payload, LONG)

    assert _send(known, data)


def test_what_another_begins_to_send_while_it_is_looked_at_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    known, data = Unchanged(), bytearray(2048)
    for _ in range(2):
        _send(known, data)

    def look(payload: memoryview) -> bytes:
        monkeypatch.undo()
        data[100] = 1
        assert known.begin(WHOLE._replace(begin=100, end=101), memoryview(data)[100:101]) is not None
        data[100] = 0
        return digest(payload)

    monkeypatch.setattr(unchanged, "digest", look)
    assert _send(known, data)


def test_where_to_look_takes_as_long_as_to_send_it_is_sent_and_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    known, data = Unchanged(), bytearray(2048)
    assert [_send(known, data, seconds=0.0) for _ in range(3)] == [True, True, True]

    monkeypatch.setattr(unchanged, "digest", lambda payload: pytest.fail("it was looked at"))
    assert [_send(known, data) for _ in range(3)] == [True, True, True]


def test_many_arrays_are_forgotten_again() -> None:
    known, data = Unchanged(), bytearray(2048)
    for generation in range(2000):
        _send(known, data, WHOLE._replace(ref=REF._replace(generation=generation, start=2**21 * generation)))

    assert len(known._sent) < 1000


@pytest.mark.parametrize("nbytes", [0, 1, 2**20, 9 * 2**20 + 1])
def test_a_digest_tells_any_byte(nbytes: int) -> None:
    data = np.zeros(nbytes, np.uint8)
    before = digest(data.data)
    assert digest(data.copy().data) == before
    for number in {0, nbytes // 2, nbytes - 1} if nbytes else ():
        data[number] = 1
        assert digest(data.data) != before
        data[number] = 0


def test_a_digest_needs_no_thread_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    data = memoryview(bytes(9 * 2**20))
    expected = digest(data)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert digest(data) == expected


@given(
    st.lists(
        st.tuples(
            st.integers(0, 12), st.integers(1, 12), st.booleans(), st.integers(0, 15), st.integers(0, 2)
        ),
        max_size=40,
    )
)  # fmt: skip
def test_the_worker_always_has_what_is_here(steps: list[tuple[int, int, bool, int, int]]) -> None:
    known, here, there = Unchanged(), bytearray(16), bytearray(16)
    for begin, length, arrives, place, value in steps:
        here[place] = value
        extent = Extent(REF, begin, min(begin + length, 16))
        payload = memoryview(here)[extent.begin : extent.end]
        sending = known.begin(extent, payload)
        if sending is None:
            assert there[extent.begin : extent.end] == payload
            continue
        half = extent.end if arrives else (extent.begin + extent.end) // 2
        there[extent.begin : half] = here[extent.begin : half]
        known.end(sending, payload, LONG if arrives else None)
