"""Ways to a worker are opened side by side: none waits for another, and each failure is a reason."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.carriers import opening, stream
from sklearn_wsl_gpu.carriers.base import CarrierFailed
from sklearn_wsl_gpu.carriers.stream import Route, Stream
from sklearn_wsl_gpu.errors import DeadlineExceeded, ProtocolError
from sklearn_wsl_gpu.pool import Geometry, Segment
from tests.carriers.test_calibration import Remembering


class Opening(Remembering):
    """A carrier that is opened by a function."""

    def __init__(self, name: str, work: Callable[[float, threading.Event], object], seconds: float = 20.0) -> None:
        super().__init__(name)
        self.open_seconds = seconds
        self._work = work
        self.closed = threading.Event()

    def open(self, segment: Segment, deadline: float, enough: threading.Event) -> None:
        self._work(deadline, enough)

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment.create(Geometry(4096, 1, 1, 0))
    yield made
    made.close()


def _fail(*_: object) -> None:
    raise CarrierFailed("Nobody is there.")


def test_those_that_open_are_taken_in_their_order_and_of_the_others_there_is_a_reason(segment: Segment) -> None:
    both = threading.Barrier(2)
    carriers = [
        Opening("one", lambda *_: both.wait(20)), Opening("two", _fail), Opening("three", lambda *_: both.wait(20)),
    ]  # fmt: skip

    opened, refused = opening.open_all(carriers, segment)

    assert opened == [carriers[0], carriers[2]]
    assert refused == {"two": "Nobody is there."}
    assert [carrier.closed.is_set() for carrier in carriers] == [False, True, False]


def test_one_alone_is_opened_in_this_thread(segment: Segment) -> None:
    threads: list[threading.Thread] = []

    opened, refused = opening.open_all([Opening("one", lambda *_: threads.append(threading.current_thread()))], segment)

    assert (len(opened), refused, threads) == (1, {}, [threading.current_thread()])
    assert opening.open_all([Opening("one", _fail)], segment) == ([], {"one": "Nobody is there."})
    assert opening.open_all([], segment) == ([], {})


def test_where_no_thread_can_be_started_they_are_opened_one_after_the_other(
    segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    carriers = [Opening("one", lambda *_: None), Opening("two", _fail), Opening("three", lambda *_: None)]

    assert opening.open_all(carriers, segment) == ([carriers[0], carriers[2]], {"two": "Nobody is there."})


def test_any_error_of_this_package_or_the_system_is_a_reason(segment: Segment) -> None:
    def refuse(*_: object) -> None:
        raise ProtocolError("That makes no sense.")

    def break_(*_: object) -> None:
        raise OSError(5, "Input/output error")

    _, refused = opening.open_all([Opening("one", refuse), Opening("two", break_)], segment)

    assert refused["one"] == "That makes no sense."
    assert "Input/output error" in refused["two"]


def test_one_that_hangs_costs_its_own_time_only_and_is_closed_when_it_comes_back(
    segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_GRACE_SECONDS", 0.0)
    go = threading.Event()
    late, other = Opening("late", lambda *_: go.wait(), 0.05), Opening("other", lambda *_: None)

    opened, refused = opening.open_all([late, other], segment)

    assert opened == [other]
    assert "not open after" in refused["late"]
    go.set()
    assert late.closed.wait(20)


def test_each_knows_its_deadline_and_when_there_is_another_way(segment: Segment) -> None:
    seen: list[float] = []

    def wait(deadline: float, enough: threading.Event) -> None:
        seen.append(deadline - time.monotonic())
        if not enough.wait(15):
            raise CarrierFailed("It was waited for in vain.")
        _fail()

    opened, refused = opening.open_all([Opening("one", wait), Opening("two", lambda *_: None)], segment)

    assert len(opened) == 1
    assert refused == {"one": "Nobody is there."}
    assert 0 < seen[0] <= 20


def test_a_stream_that_a_call_has_no_time_to_open_is_not_given_up_and_one_that_does_not_answer_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "_CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mine = Stream(Route("tcp", "127.0.0.1", silent.getsockname()[1]), 1, bytes(32))
        with pytest.raises(DeadlineExceeded):
            mine.there(1, SpanRef(0, 2**21, 4096, 1), 0, [memoryview(bytes(64))], time.monotonic() + 0.05)
        with pytest.raises(CarrierFailed, match="does not answer"):
            mine.there(1, SpanRef(0, 2**21, 4096, 1), 0, [memoryview(bytes(64))], time.monotonic() + 20.0)
