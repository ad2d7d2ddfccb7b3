"""What the front tells of its sessions: nothing that a client does to its memory breaks it, or makes it too long."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sklearn_wsl_gpu.carriers import shared
from sklearn_wsl_gpu.pool import Segment
from sklearn_wsl_gpu.pool.layout import DATA_OFFSET, LEDGER_OFFSET, PAGE, Geometry, pack_superblock
from sklearn_wsl_gpu.protocol import messages as m
from wsl_worker.sessions import MAX_SEGMENTS, MAX_SESSIONS, MAX_SHOWN_SEGMENTS, MAX_SHOWN_SLOTS, Session, Sessions

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a worker runs on Linux")

GEOMETRY = Geometry(PAGE, 1, 2, 1)


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    made = Sessions()
    yield made
    for session in made:
        made.remove(session)


def _open(sessions: Sessions, descriptor: int, geometry: Geometry) -> Session:
    return sessions.open(sessions.next_number(), "user", os.getpid(), descriptor, geometry, -1, 0.0)


def _told(sessions: Sessions) -> list[list[Any]]:
    """Return what a client gets to know, on the way that it takes."""
    answer = m.decode(m.encode(m.Report([["pools", sessions.describe()]])))
    assert isinstance(answer, m.Report)
    json.dumps(answer.counters, allow_nan=False)
    found: list[list[Any]] = answer.counters[0][1]
    return found


def _no_superblock(segment: Segment) -> None:
    segment.map[:DATA_OFFSET] = bytes(DATA_OFFSET)


def _noise(segment: Segment) -> None:
    segment.map[:DATA_OFFSET] = b"\xff" * DATA_OFFSET


def _huge(segment: Segment) -> None:
    block = pack_superblock(1, Geometry(PAGE, 2**32 - 1, 2**32 - 1, 2**32 - 1))
    segment.map[: len(block)] = block


def _cut(nbytes: int) -> Callable[[Segment], None]:
    return lambda segment: os.ftruncate(segment.descriptor, nbytes)


@pytest.mark.parametrize(
    "act",
    [_no_superblock, _noise, _huge, _cut(0), _cut(100), _cut(LEDGER_OFFSET + 100)],
    ids=["no superblock", "noise", "a huge geometry", "nothing", "half a superblock", "half a ledger"],
)
def test_whatever_a_client_does_to_its_memory_its_slots_are_those_that_were_accepted(
    sessions: Sessions, act: Callable[[Segment], None]
) -> None:
    segment = Segment.create(GEOMETRY, tempfile.gettempdir(), "4 slots")
    descriptor, geometry, _ = shared.accept(shared.offer(segment), 2**30)
    session = _open(sessions, descriptor, geometry)
    act(segment)

    about = _told(sessions)[0]

    assert [slot[:3] for slot in about[5]] == [[0, 0, "input"], [0, 1, "scratch"], [0, 2, "output"], [0, 3, "output"]]
    assert {slot[3] for slot in about[5]} == {"free"}
    assert about[6] == 0
    assert session.pool_bytes == GEOMETRY.file_bytes
    segment.close()


def test_memory_that_cannot_be_read_any_more_has_nothing_to_tell(sessions: Sessions) -> None:
    _open(sessions, os.open("/proc/self/mem", os.O_RDONLY), GEOMETRY)  # reading its first page is an OSError

    assert [slot[3] for slot in _told(sessions)[0][5]] == ["free"] * 4


@pytest.mark.parametrize("count", [1, 3, MAX_SESSIONS])
def test_a_report_shows_a_share_of_the_slots_of_each_session_and_says_how_many_are_missing(
    sessions: Sessions, count: int
) -> None:
    large = Geometry(PAGE, 2**20, 1, 0)
    for number in range(count):
        descriptor = os.memfd_create("noise")
        os.pwrite(descriptor, b"\x01" * 2**17, 0)
        _open(sessions, descriptor, large if number % 2 else GEOMETRY).add_segment(7, os.dup(descriptor), large)

    told = _told(sessions)

    share = MAX_SHOWN_SLOTS // count
    for number, about in enumerate(told):
        first = large.slots if number % 2 else GEOMETRY.slots
        shown = min(share, first) if count == MAX_SESSIONS else share
        assert (len(about[5]), about[6]) == (shown, first + large.slots - shown)
    assert sum(len(about[5]) for about in told) <= MAX_SHOWN_SLOTS


def test_only_so_many_segments_are_looked_through_for_a_report(sessions: Sessions) -> None:
    for _ in range(5):
        session = _open(sessions, os.memfd_create("none"), GEOMETRY)
        for number in range(1, MAX_SEGMENTS):
            session.add_segment(number, os.memfd_create("none"), GEOMETRY)

    for about in _told(sessions):
        assert {slot[0] for slot in about[5]} == set(range(MAX_SHOWN_SEGMENTS // 5))
        assert len(about[5]) + about[6] == MAX_SEGMENTS * GEOMETRY.slots


def test_the_slots_of_a_segment_that_is_dropped_are_told_no_more(sessions: Sessions) -> None:
    session = _open(sessions, os.memfd_create("none"), GEOMETRY)
    session.add_segment(1, os.memfd_create("none"), GEOMETRY)
    assert [slot[0] for slot in _told(sessions)[0][5]] == [0] * 4 + [1] * 4

    session.drop_segment(1)

    assert [slot[0] for slot in _told(sessions)[0][5]] == [0] * 4
    assert session.pool_bytes == GEOMETRY.file_bytes
