"""The front's tables: sessions, their requests, and what is kept of each. Book-keeping only."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from dataclasses import astuple, dataclass, field
from itertools import islice
from typing import Any

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.pool import counters, ledger
from sklearn_wsl_gpu.pool.layout import (
    COUNTERS_BYTES,
    COUNTERS_OFFSET,
    LEDGER_BYTES,
    LEDGER_OFFSET,
    PAGE,
    Geometry,
    unpack_note,
)
from sklearn_wsl_gpu.protocol import messages as m
from sklearn_wsl_gpu.protocol import states

#: Ended requests that a session can ask about again, after a lost reply.
_REMEMBERED_REQUESTS = 64
_REMEMBERED_BYTES = 16 * 1024 * 1024
MAX_SESSIONS = 256
#: Segments of one session's pool.
MAX_SEGMENTS = 64
#: Requests of one session that may be under way at once, each of which holds a span of the client's pool; and bytes of
#: the bodies of those that wait.
MAX_QUEUED, MAX_QUEUED_BYTES = 256, 128 * 1024 * 1024
#: Of all sessions together.
MAX_QUEUED_IN_ALL, MAX_QUEUED_BYTES_IN_ALL = 16 * MAX_QUEUED, 8 * MAX_QUEUED_BYTES
#: What one report shows, of all sessions together; so it is made in time, and fits in a message.
MAX_SHOWN_SLOTS, MAX_SHOWN_SEGMENTS = 4096, 256

Envelope = list[bytes]


@dataclass(slots=True, eq=False)
class Job:
    """One request in the worker.

    Attributes
    ----------
    number : int
        The front's number, unique among all sessions.
    envelope : list of bytes or None
        Who waits for an answer; None while nobody does.
    asked_at : float
        When they asked, by `time.monotonic`.
    arrived_at : float
        When it was sent first.
    outcome : tuple or None
        Message and body to answer with, once there is one.
    """

    number: int
    session: Session
    request: int
    body: bytes
    inputs: SpanRef | None
    outputs: SpanRef | None
    envelope: Envelope | None
    asked_at: float
    arrived_at: float
    state: str = states.QUEUED
    #: By which its arrays have come; see `Arrivals`.
    transfer: int = 0
    outcome: tuple[m.Message, bytes] | None = None
    #: Who wants to know that it is cancelled.
    cancellers: list[Envelope] = field(default_factory=list)
    #: Progress that nobody was told of yet.
    events: list[Any] = field(default_factory=list)

    def step(self, event: str) -> None:
        """Go to the state that follows an event."""
        self.state = states.step(self.state, event)

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state == states.ENDED


@dataclass(slots=True, eq=False)
class Session:
    """One client process.

    Attributes
    ----------
    number : int
        Short name towards the executor.
    token : bytes
        Secret name towards the client.
    user : str
        Public key that the client proved to have.
    descriptors : dict of int to int
        Of its pool's segments, by their numbers.
    geometries : dict of int to Geometry
        Of the same segments, as they were when they were accepted.
    process : int
        A pidfd of the client, or -1.
    """

    number: int
    token: bytes
    user: str
    pid: int
    descriptors: dict[int, int]
    geometries: dict[int, Geometry]
    process: int
    last_heard: float
    jobs: dict[int, Job] = field(default_factory=dict)
    calls: int = 0
    #: Those of its segments that are the worker's own memory, which nobody else reserves.
    mirrors: set[int] = field(default_factory=set)
    #: What others want of its pool, until the client is told: see `Resize`.
    wish: int = 0
    #: Requests that have ended, the oldest first, and the bytes of what is kept of each.
    _ended: deque[tuple[int, int]] = field(default_factory=deque)
    _ended_bytes: int = 0

    def remember(self, job: Job) -> None:
        """Add a request."""
        self.jobs[job.request] = job
        if job.ended:
            self.note_end(job)

    def note_end(self, job: Job) -> None:
        """Take note that a request has ended, and forget the oldest such beyond the limits."""
        size = len(job.outcome[1]) if job.outcome else 0
        self._ended.append((job.request, size))
        self._ended_bytes += size
        while len(self._ended) > _REMEMBERED_REQUESTS or self._ended_bytes > _REMEMBERED_BYTES:
            request, size = self._ended.popleft()
            self._ended_bytes -= size
            self.jobs.pop(request, None)

    def describe(self, slots: int, segments: int) -> list[Any]:
        """Return what there is to tell of it and of its pool, whatever the client has written there.

        Parameters
        ----------
        slots, segments : int
            How many are shown at most; the first ones.

        Returns
        -------
        about : list
            Number, process, seconds of silence, number of calls, why the pool is so large, its slots (each as a list of
            the fields of `ledger.Slot`), how many slots are not shown, and its `counters`.
        """
        shown: list[ledger.Slot] = []
        for number, geometry in islice(self.geometries.items(), segments):
            raw = self._read(number, LEDGER_BYTES, LEDGER_OFFSET)
            shown += ledger.slots(raw, geometry, number, slots - len(shown))
        left_out = sum(geometry.slots for geometry in self.geometries.values()) - len(shown)
        silence, note = time.monotonic() - self.last_heard, unpack_note(self._read(0, PAGE, 0))
        counted = counters.read(self._read(0, COUNTERS_BYTES, COUNTERS_OFFSET))
        told = [list(astuple(slot)) for slot in shown]
        return [self.number, self.pid, silence, self.calls, note, told, left_out, counted]

    def _read(self, number: int, nbytes: int, offset: int) -> bytes:
        """Return bytes of a segment: fewer, or none, if its memory is not what it was."""
        with contextlib.suppress(OSError):
            return os.pread(self.descriptors[number], nbytes, offset)
        return b""

    def note_wish(self, nbytes: int) -> None:
        """Note that its pool is to grow by so many bytes more, or to shrink if they are negative."""
        grows = nbytes > 0 and self.wish > 0
        self.wish = min(self.wish + nbytes, 2**62) if grows else nbytes

    def take_wish(self) -> int:
        """Return the wish for its pool that the client was not told of, 0 for none."""
        wish, self.wish = self.wish, 0
        return wish

    def add_segment(self, number: int, descriptor: int, geometry: Geometry, own: bool = False) -> None:
        """Take over the descriptor of another segment of its pool; `own` if it is the worker's own memory."""
        self.descriptors[number] = descriptor
        self.geometries[number] = geometry
        if own:
            self.mirrors.add(number)

    def drop_segment(self, number: int) -> None:
        """Let go of an added segment."""
        descriptor = self.descriptors.pop(number, -1)
        if descriptor >= 0:
            del self.geometries[number]
            self.mirrors.discard(number)
            os.close(descriptor)

    @property
    def pool_bytes(self) -> int:
        """Bytes of its pool, headers included."""
        return sum(geometry.file_bytes for geometry in self.geometries.values())

    def close(self) -> None:
        """Let go of the client's memory and process."""
        for number in list(self.descriptors):
            self.drop_segment(number)
        if self.process >= 0:
            os.close(self.process)


class Sessions:
    """All sessions, by token and by process."""

    def __init__(self) -> None:
        self._by_token: dict[bytes, Session] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._by_token)

    def __iter__(self) -> Any:
        return iter(list(self._by_token.values()))

    def next_number(self) -> int:
        """Return the number of a session to be; never given twice."""
        self._count += 1
        return self._count

    def open(
        self, number: int, user: str, pid: int, descriptor: int, geometry: Geometry, process: int, now: float
    ) -> Session:
        """Add a session under a new token."""
        session = Session(number, os.urandom(16), user, pid, {0: descriptor}, {0: geometry}, process, now)
        self._by_token[session.token] = session
        return session

    def describe(self) -> list[list[Any]]:
        """Return what `Session.describe` does of each; what can be shown is shared out evenly."""
        count = len(self)
        return [session.describe(MAX_SHOWN_SLOTS // count, MAX_SHOWN_SEGMENTS // count) for session in self]

    def find(self, token: bytes, user: str) -> Session | None:
        """Return the session of a token, if it belongs to the client that asks."""
        session = self._by_token.get(token)
        return session if session is not None and session.user == user else None

    def of_process(self, descriptor: int) -> Session | None:
        """Return the session whose client's pidfd this is."""
        return next((session for session in self if session.process == descriptor), None)

    def idlest(self) -> Session:
        """Return the session that was silent longest."""
        return min(self._by_token.values(), key=lambda session: session.last_heard)

    def remove(self, session: Session) -> None:
        """Take a session out of the table and close it."""
        if self._by_token.pop(session.token, None) is not None:
            session.close()
