"""What has come for a request is told of as long as it comes in order, and no longer."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.protocol import messages as m
from wsl_worker import arrivals as module
from wsl_worker.arrivals import Arrival, Arrivals
from wsl_worker.link import Link
from wsl_worker.scheduler import Scheduler
from wsl_worker.sessions import Session

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a worker runs on Linux")

SPAN, OTHER = SpanRef(0, 2**21, 2**20, 5), SpanRef(0, 2**22, 2**20, 6)


def _made() -> tuple[Arrivals, list[Arrival]]:
    told: list[Arrival] = []
    return Arrivals(told.append), told


def test_what_comes_piece_by_piece_is_one_transfer() -> None:
    arrivals, told = _made()
    for begin, end in [(64, 100), (100, 300), (300, 301), (0, 64)]:
        arrivals.note(1, SPAN, begin, end)

    assert told == [Arrival(1, SPAN, 100), Arrival(1, SPAN, 300), Arrival(1, SPAN, 301)]
    assert arrivals.take(1, SPAN) == 1
    assert arrivals.take(1, SPAN) == 0, "it is called once"


def test_what_is_sent_anew_is_another_transfer() -> None:
    arrivals, told = _made()
    for begin, end in [(64, 100), (64, 200)]:
        arrivals.note(1, SPAN, begin, end)

    assert told == [Arrival(1, SPAN, 100), Arrival(1, SPAN, 0), Arrival(2, SPAN, 200)]
    assert arrivals.take(1, SPAN) == 2


@pytest.mark.parametrize(("begin", "end"), [(101, 200), (99, 200), (0, 200)])
def test_a_transfer_in_which_something_is_missing_or_comes_twice_comes_to_nothing(begin: int, end: int) -> None:
    arrivals, told = _made()
    arrivals.note(1, SPAN, 64, 100)
    arrivals.note(1, SPAN, begin, end)

    assert told == [Arrival(1, SPAN, 100), Arrival(1, SPAN, 0)]
    assert arrivals.take(1, SPAN) == 0


def test_a_call_gets_the_transfer_of_its_own_span_only() -> None:
    arrivals, _ = _made()
    for request, span in [(1, SPAN), (1, OTHER), (2, SPAN)]:
        arrivals.note(request, span, 64, 100)

    assert arrivals.take(1, OTHER) == 2
    assert arrivals.take(1, SPAN) == 0
    assert arrivals.take(2, OTHER) == 0
    arrivals.note(3, SPAN, 64, 100)
    assert arrivals.take(3, None) == 0


def test_what_a_client_measures_is_not_told_of() -> None:
    arrivals, told = _made()
    arrivals.note(0, SPAN, 64, 100)

    assert not told


def test_what_is_cancelled_comes_to_nothing() -> None:
    arrivals, told = _made()
    arrivals.note(1, SPAN, 64, 100)
    arrivals.note(2, OTHER, 64, 100)
    arrivals.forget(1)

    assert told[2:] == [Arrival(1, SPAN, 0)]
    assert arrivals.take(1, SPAN) == 0
    assert arrivals.take(2, OTHER) == 2


def test_a_client_that_begins_and_begins_costs_no_more_than_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_FOLLOWED", 3)
    arrivals, told = _made()
    for request in range(1, 11):
        arrivals.note(request, SPAN, 64, 100)

    assert len(arrivals._known) == 3
    assert [arrival.transfer for arrival in told if not arrival.nbytes] == list(range(1, 8))


@pytest.fixture
def played() -> Iterator[tuple[Scheduler, Callable[[], list[list[Any]]]]]:
    """Return a scheduler whose executor is played, and what tells what that has heard since it was asked last."""
    ours, theirs = socket.socketpair()
    far = Link(theirs, blocking=False)
    near = Link(ours, blocking=False)
    supervisor: Any = SimpleNamespace(link=near, running=True, starts=1, process=None)
    scheduler = Scheduler(supervisor)
    far.send(["ready", [], [], [], -1, True])
    scheduler.read()

    def heard() -> list[list[Any]]:
        found = []
        while (message := far.receive()) is not None:
            found.append(message[0])
        return found

    yield scheduler, heard
    near.close()
    far.close()


def test_an_executor_is_told_of_what_has_come_while_it_has_nothing_else_to_do(
    played: tuple[Scheduler, Callable[[], list[list[Any]]]],
) -> None:
    scheduler, heard = played
    session = Session(7, b"token", "user", 0, {}, {}, -1, 0.0)
    scheduler.arrived(7, Arrival(1, SPAN, 100))
    assert heard() == [["arrived", 7, 1, list(SPAN), 100]]

    scheduler.call(session, m.Call(b"token", 1, SPAN, None, "normal"), b"", [b""], 1)
    assert heard() == [["job", 7, 1, list(SPAN), None, 1]]
    scheduler.arrived(7, Arrival(2, OTHER, 100))
    assert heard() == [], "who waits for a result does not wait for that"
    scheduler.arrived(7, Arrival(2, OTHER, 0))
    assert heard() == [["arrived", 7, 2, list(OTHER), 0]]


def test_an_executor_without_a_device_is_not_told(
    played: tuple[Scheduler, Callable[[], list[list[Any]]]],
) -> None:
    scheduler, heard = played
    scheduler.follows = False
    scheduler.arrived(7, Arrival(1, SPAN, 100))

    assert heard() == []
