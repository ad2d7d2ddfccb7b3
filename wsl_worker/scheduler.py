"""What becomes of each request: the queue, the executor's turn, cancelling, and the death of the executor."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from sklearn_wsl_gpu.errors import ProtocolError
from sklearn_wsl_gpu.protocol import messages as m
from sklearn_wsl_gpu.protocol import states
from sklearn_wsl_gpu.waiting import Queue, Waits
from wsl_worker.arrivals import Arrival
from wsl_worker.link import LinkClosed
from wsl_worker.sessions import (
    MAX_QUEUED,
    MAX_QUEUED_BYTES,
    MAX_QUEUED_BYTES_IN_ALL,
    MAX_QUEUED_IN_ALL,
    Envelope,
    Job,
    Session,
)
from wsl_worker.supervisor import Supervisor
from wsl_worker.telling import Telling

#: An executor that does not hear an interrupt within this time is replaced.
_INTERRUPT_SECONDS = 1.0
#: How long the executor is kept free for a result that waits for room, before the next job starts.
_HOLD_SECONDS = 1.0
#: So many executors in a row that die while they start are no accident.
_FAILED_STARTS = 3
#: After an executor that could not start none is started for so long, and longer from time to time.
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 10.0, 300.0
#: A client that does not ask is not kept up to date for ever.
_MAX_EVENTS = 10_000

Answer = Callable[[Envelope | None, m.Message, bytes], None]


class Scheduler:
    """Requests of all sessions, one running at a time, by priority and in order of arrival (see `Queue`).

    Parameters
    ----------
    supervisor : Supervisor
        The way to the executor.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.answer: Answer = lambda envelope, message, body: None
        self.ready = False
        self.broken = ""
        #: Name and estimators of each engine, by preference.
        self.engines: list[list[Any]] = []
        self.packages: list[list[str]] = []
        #: Other devices of this machine that its engines could compute on.
        self.others: list[str] = []
        #: NUMA node of what its engines compute on, or -1.
        self.node = -1
        #: Whether they copy arrays to it before the call that these belong to.
        self.follows = False
        self._numbers = itertools.count(1)
        self._queue: Queue[Job] = Queue()
        self._waits = Waits()
        self._jobs: dict[int, Job] = {}
        self._running: Job | None = None
        self._held_until = 0.0
        self._kill_at: float | None = None
        self._sessions: dict[int, Session] = {}
        self._telling = Telling(lambda head, descriptor: self._send(head, descriptor=descriptor))
        self._done = 0
        self._failed_starts = 0
        self._start_at, self._pause = 0.0, _PAUSE_SECONDS

    def attach(self, session: Session) -> None:
        """Let the executor map a session's pool."""
        self._sessions[session.number] = session
        if self.ready:
            for number in session.descriptors:
                self._telling.attach(session, number)
            self._tell_if_idle()

    def attach_segment(self, session: Session, number: int) -> None:
        """Let the executor map a segment of a session's pool."""
        if self.ready:
            self._telling.attach(session, number)
            self._tell_if_idle()

    def drop_segment(self, session: Session, number: int) -> None:
        """Let the executor forget a segment."""
        if self.ready:
            self._telling.drop(session, number)
            self._tell_if_idle()

    def warm(self, session: Session, number: int, start: int, nbytes: int) -> None:
        """Let the executor make a run of a segment ready."""
        if self.ready:
            self._telling.warm(session, number, start, nbytes)
            self._tell_if_idle()

    def _tell_if_idle(self) -> None:
        if self._running is None:
            with contextlib.suppress(OSError):  # there are too many descriptors: it is tried again
                self._telling.tell_all()

    def detach(self, session: Session) -> None:
        """Forget a session: its queued requests, its models, and its running job if there is one."""
        self._sessions.pop(session.number, None)
        for job in [job for job in self._queue if job.session is session]:
            self._queue.leave(job)
        for job in [job for job in self._jobs.values() if job.session is session]:
            job.envelope = None
            if job is self._running:
                self._interrupt()
            else:
                del self._jobs[job.number]
        self._telling.forget(session)

    def arrived(self, session: int, arrival: Arrival) -> None:
        """Let the executor copy to its device what has come of a session's arrays, if it has nothing else to do."""
        is_idle = self._running is None and self._queue.first is None
        if self.ready and self.follows and (is_idle or not arrival.nbytes):
            self._send(["arrived", session, arrival.transfer, list(arrival.span), arrival.nbytes])

    def call(self, session: Session, call: m.Call, body: bytes, envelope: Envelope, transfer: int = 0) -> None:
        """Queue a request; one that is known already only gets a new asker."""
        if call.request in session.jobs:
            self.wait(session, m.Wait(call.session, call.request), envelope)
            return
        if not self._has_place(session, len(body)):
            self.answer(envelope, m.Failed(call.request, "queue-full", "The worker's queue is full; try again."), b"")
            return
        now = time.monotonic()
        job = Job(next(self._numbers), session, call.request, body, call.inputs, call.outputs, envelope, now, now)
        job.transfer = transfer
        session.remember(job)
        session.calls += 1
        self._jobs[job.number] = job
        self._queue.add(job, call.priority)
        self._start_next()

    def _has_place(self, session: Session, nbytes: int) -> bool:
        """Tell whether a request with a body of so many bytes may wait here, beside those that have not ended."""
        own = [job for job in self._jobs.values() if job.session is session]
        return (
            len(self._jobs) < MAX_QUEUED_IN_ALL
            and len(own) < MAX_QUEUED
            and sum(len(job.body) for job in own) + nbytes <= MAX_QUEUED_BYTES
            and sum(len(job.body) for job in self._jobs.values()) + nbytes <= MAX_QUEUED_BYTES_IN_ALL
        )

    def wait(self, session: Session, wait: m.Wait, envelope: Envelope) -> None:
        """Answer about a request, now or when it ends."""
        job = session.jobs.get(wait.request)
        if job is None:
            words = "The worker does not know this request any more."
            self.answer(envelope, m.Failed(wait.request, "unknown-request", words), b"")
        elif job.events:
            self.answer(envelope, m.Progress(job.request, job.events), b"")
            job.events = []
        elif job.outcome is not None:
            self.answer(envelope, *job.outcome)
        else:
            job.envelope, job.asked_at = envelope, time.monotonic()

    def grant(self, session: Session, grant: m.Grant, envelope: Envelope) -> None:
        """Pass on where a result may be written."""
        job = session.jobs.get(grant.request)
        if job is None or job.state != states.WAITING_FOR_OUTPUT:
            self.wait(session, m.Wait(grant.session, grant.request), envelope)
            return
        job.step("grant")
        job.outcome, job.envelope, job.asked_at = None, envelope, time.monotonic()
        self._held_until = 0.0
        self._send(["deliver", job.number, list(grant.outputs)])

    def cancel(self, session: Session, cancel: m.Cancel, envelope: Envelope) -> None:
        """Stop a request; answer once it is sure that nothing is written to its spans any more."""
        job = session.jobs.get(cancel.request)
        if job is None:
            # The call itself may still be on its way, by another connection: it must not run then.
            job = Job(0, session, cancel.request, b"", None, None, None, 0.0, 0.0, states.ENDED)
            job.outcome = (m.Failed(cancel.request, "cancelled", "The call was cancelled."), b"")
            session.remember(job)
        if job.state == states.RUNNING:
            job.cancellers.append(envelope)
            if job is self._running:
                self._interrupt()
            return
        if not job.ended:
            if job in self._queue:
                self._queue.leave(job)
            if job.state == states.WAITING_FOR_OUTPUT:
                self._held_until = 0.0
                self._send(["drop", job.number])
            self._end(job, m.Failed(job.request, "cancelled", "The call was cancelled."))
        self.answer(envelope, m.Cancelled(cancel.request), b"")

    def read(self) -> bool:
        """Take in what the executor has said; False if it is gone."""
        link = self.supervisor.link
        if link is None:
            return True
        try:
            # First what it has said: of one that has ended, writing tells nothing else.
            while (message := link.receive()) is not None:
                self._heard(*message[:2])
            link.flush()
        except LinkClosed:
            return False
        return True

    def executor_died(self) -> None:
        """Fail what it was busy with, and start another."""
        if not self.supervisor.running:
            return
        was_ready, how = self.ready, self.supervisor.bury()
        self.ready, self._kill_at, self._held_until = False, None, 0.0
        self._running = None
        self._telling.clear()
        for job in list(self._jobs.values()):
            if job.state in (states.RUNNING, states.WAITING_FOR_OUTPUT):
                code = "cancelled" if job.cancellers else "executor-died"
                self._end(job, m.Failed(job.request, code, f"The worker's executor {how} during this call."))
        self._failed_starts = 0 if was_ready else self._failed_starts + 1
        if self._failed_starts >= _FAILED_STARTS and not self.broken:
            self._break(f"its process {how} while it started, {self._failed_starts} times in a row.")
        self.start()

    def start(self) -> None:
        """Start an executor if one may be started now."""
        now = time.monotonic()
        if self.supervisor.running or now < self._start_at or not self.supervisor.may_start(now):
            return
        self.broken = ""  # what was in the way may be gone
        try:
            self.supervisor.start()
        except OSError as error:  # there are too many descriptors or processes for the moment
            self._break(f"it cannot be started: {error}.")

    def _break(self, words: str) -> None:
        """Start none for some time, longer from time to time, and say why meanwhile."""
        self.broken = words
        self._start_at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    def stop(self) -> None:
        """End the executor."""
        self.supervisor.stop()

    def tick(self, now: float) -> None:
        """Do what is due by the clock."""
        self.start()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self.supervisor.kill()
        if not self.supervisor.running:
            for job in list(self._queue):
                self._queue.leave(job)
                why = self.broken or "it died too often in a row."
                words = f"The worker's executor is not started for the moment: {why}"
                self._end(job, m.Failed(job.request, "executor-died", words))
        self._start_next()

    def impatient(self, before: float) -> Iterator[Job]:
        """Yield the requests whose askers have waited since before a time."""
        for job in list(self._jobs.values()):
            if job.envelope is not None and job.asked_at < before:
                yield job

    def counters(self) -> list[list[Any]]:
        """Return what there is to tell, as pairs of name and value."""
        return [
            ["queued", len(self._queue)],
            ["queued_by_priority", self._queue.by_priority()],
            ["queue_waits", self._waits.as_list()],
            ["running", int(self._running is not None)],
            ["done", self._done],
            ["executor_starts", self.supervisor.starts],
            ["executor_pid", self.supervisor.process.pid if self.supervisor.process else None],
            ["ready", self.ready],
        ]

    def _heard(self, head: list[Any], body: bytes) -> None:
        kind, *fields = head
        if kind == "ready":
            self.engines, self.packages, self.others, self.node, self.follows = fields
            self.ready, self._failed_starts, self._pause = True, 0, _PAUSE_SECONDS
            for session in list(self._sessions.values()):
                self.attach(session)
            self._start_next()
            return
        if kind == "broken":
            self._break(str(fields[0]))
            return
        job = self._jobs.get(fields[0])
        if kind == "progress":
            self._progressed(job, fields[1])
            return
        self._ended(kind, fields, body, job)

    def _ended(self, kind: str, fields: list[Any], body: bytes, job: Job | None) -> None:
        if job is self._running:
            self._running = None
            self._kill_at = None
        if job is None:
            self._start_next()
            return
        if kind == "need_output":
            if job.cancellers or job.session.number not in self._sessions:
                self._send(["drop", job.number])
                self._end(job, m.Failed(job.request, "cancelled", "The call was cancelled."))
            else:
                self._held_until = time.monotonic() + _HOLD_SECONDS
                job.step("need_output")
                self._reply(job, m.NeedOutput(job.request, fields[1]))
        elif kind == "result":
            self._done += 1
            self._end(job, m.Result(job.request, job.session.take_wish()), body)
        elif kind == "need_model":
            self._end(job, m.NeedModel(job.request))
        elif kind == "failed":
            self._end(job, m.Failed(job.request, fields[1], fields[2]))
        else:
            raise ProtocolError(f"The executor said {kind!r}.")
        self._start_next()
        self._tell_if_idle()

    def _progressed(self, job: Job | None, event: list[Any]) -> None:
        if job is None or len(job.events) >= _MAX_EVENTS:
            return
        job.events.append(event)
        if job.envelope is not None:
            self.answer(job.envelope, m.Progress(job.request, job.events), b"")
            job.events, job.envelope = [], None

    def _reply(self, job: Job, message: m.Message, body: bytes = b"") -> None:
        job.outcome = (message, body)
        self.answer(job.envelope, message, body)
        job.envelope = None

    def _end(self, job: Job, message: m.Message, body: bytes = b"") -> None:
        job.step("end")
        job.body = b""
        self._jobs.pop(job.number, None)
        self._reply(job, message, body)
        job.session.note_end(job)
        for envelope in job.cancellers:
            self.answer(envelope, m.Cancelled(job.request), b"")
        job.cancellers.clear()

    def _start_next(self) -> None:
        now, job = time.monotonic(), self._queue.first
        if self._running is not None or not self.ready or job is None or now < self._held_until:
            return
        self._queue.serve(job)
        self._waits.add(now - job.arrived_at)
        job.step("start")
        self._running = job
        try:
            self._telling.tell(job.session)
        except OSError as error:
            words = f"The worker's executor cannot have this session's pool: {error.strerror}."
            self._running = None  # the next one's turn comes with the clock
            self._end(job, m.Failed(job.request, "engine-error", words))
            return
        spans = [None if span is None else list(span) for span in (job.inputs, job.outputs)]
        body, job.body = job.body, b""
        self._send(["job", job.session.number, job.number, *spans, job.transfer], body)

    def _interrupt(self) -> None:
        if self._kill_at is None:
            self._kill_at = time.monotonic() + _INTERRUPT_SECONDS
            self.supervisor.interrupt()

    def _send(self, head: list[Any], body: bytes = b"", descriptor: int | None = None) -> None:
        link = self.supervisor.link
        if link is None:
            if descriptor is not None:
                os.close(descriptor)
            return
        with contextlib.suppress(LinkClosed):  # its death is noticed by the front's poll
            link.send(head, body, descriptor)
