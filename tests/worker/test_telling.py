"""What an executor hears of the segments of sessions: in order, once it listens, and of none that is gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from sklearn_wsl_gpu.pool import Geometry
from wsl_worker import telling
from wsl_worker.sessions import Session, Sessions
from wsl_worker.telling import Telling

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a worker runs on Linux")

GEOMETRY = Geometry(4096, 1, 1, 0)


class _Executor:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[list[Any]] = []

    def send(self, head: list[Any], descriptor: int | None) -> None:
        self.heard.append(head)
        if descriptor is not None:
            os.close(descriptor)

    def take(self) -> list[list[Any]]:
        heard, self.heard = self.heard, []
        return heard


@pytest.fixture
def session() -> Iterator[Session]:
    table = Sessions()
    made = table.open(7, "user", os.getpid(), os.memfd_create("segment"), GEOMETRY, -1, 0.0)
    yield made
    table.remove(made)


def _add(session: Session, number: int) -> None:
    session.add_segment(number, os.memfd_create("segment"), GEOMETRY, False)


def test_it_is_told_in_order_and_once(session: Session) -> None:
    executor = _Executor()
    mine = Telling(executor.send)
    _add(session, 1)
    mine.attach(session, 0)
    mine.attach(session, 1)
    mine.warm(session, 1, 4096, 8192)
    assert executor.take() == []

    mine.tell_all()
    assert executor.take() == [["attach", 7, 0, False], ["attach", 7, 1, False], ["warm", 7, 1, 4096, 8192]]
    mine.tell(session)
    assert executor.take() == []

    mine.drop(session, 1)
    mine.tell_all()
    assert executor.take() == [["drop_segment", 7, 1]]


def test_of_segments_that_come_and_go_meanwhile_it_hears_nothing_and_no_descriptor_is_held(session: Session) -> None:
    executor = _Executor()
    mine = Telling(executor.send)
    mine.attach(session, 0)
    mine.tell_all()
    executor.take()
    before = os.listdir("/proc/self/fd")
    for _ in range(100):
        _add(session, 1)
        mine.attach(session, 1)
        mine.warm(session, 1, 4096, 4096)
        mine.drop(session, 1)
        session.drop_segment(1)

    assert os.listdir("/proc/self/fd") == before
    mine.tell_all()
    assert executor.take() == []


def test_a_segment_whose_number_is_used_again_is_first_dropped(session: Session) -> None:
    executor = _Executor()
    mine = Telling(executor.send)
    mine.attach(session, 0)
    mine.tell_all()
    executor.take()
    for _ in range(3):
        mine.drop(session, 0)
        mine.attach(session, 0)
        mine.warm(session, 0, 4096, 4096)

    mine.tell_all()
    assert executor.take() == [["drop_segment", 7, 0], ["attach", 7, 0, False], ["warm", 7, 0, 4096, 4096]]


def test_a_session_that_is_gone_is_forgotten_by_those_who_have_heard_of_it(session: Session) -> None:
    executor = _Executor()
    mine = Telling(executor.send)
    mine.attach(session, 0)
    mine.forget(session)
    mine.tell_all()
    assert executor.take() == []

    mine.attach(session, 0)
    mine.tell(session)
    mine.forget(session)
    assert executor.take() == [["attach", 7, 0, False], ["detach", 7]]
    mine.attach(session, 0)
    mine.tell(session)
    mine.clear()
    executor.take()
    mine.forget(session)
    assert executor.take() == [], "another executor has never heard of it"


def test_what_a_lack_of_descriptors_keeps_back_is_told_later(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = _Executor()
    mine = Telling(executor.send)
    _add(session, 1)
    mine.attach(session, 0)
    mine.attach(session, 1)

    def refuse(descriptor: int) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(telling.os, "dup", refuse)
        with pytest.raises(OSError, match="Too many"):
            mine.tell(session)
    assert executor.take() == []

    mine.tell(session)
    assert executor.take() == [["attach", 7, 0, False], ["attach", 7, 1, False]]


def test_runs_to_be_made_ready_are_a_favour_and_few(session: Session) -> None:
    executor = _Executor()
    mine = Telling(executor.send)
    for start in range(4096, 4096 * 1000, 4096):
        mine.warm(session, 0, start, 4096)

    mine.tell_all()
    assert len(executor.take()) == 16
