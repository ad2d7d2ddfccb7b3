"""One client process talking to one worker: drives protocol, carrier and pool for a request at a time."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sklearn_wsl_gpu import launch, lending
from sklearn_wsl_gpu.abandoned import Abandoned
from sklearn_wsl_gpu.arrays import check_array_ref, is_inline
from sklearn_wsl_gpu.carriers import file, file_reply
from sklearn_wsl_gpu.carriers.moving import Moving
from sklearn_wsl_gpu.config import Settings
from sklearn_wsl_gpu.errors import (
    DeadlineExceeded,
    EngineError,
    OffloadError,
    ProtocolError,
    Unsupported,
    WorkerDied,
    WorkerUnavailable,
)
from sklearn_wsl_gpu.gather import Gathered
from sklearn_wsl_gpu.greeting import greet
from sklearn_wsl_gpu.pool import Lease, Pool, entrust, placing
from sklearn_wsl_gpu.protocol import messages as m
from sklearn_wsl_gpu.room import Room
from sklearn_wsl_gpu.sockets import Wire

#: Smallest and largest span that is granted for a reply before its size is known.
_LEAST_GRANT_BYTES = 64 * 1024
_FIRST_GRANT_BYTES = 16 * 1024 * 1024
_MAX_MODELS = 4096

#: What a Failed message means here, by its code; anything else is the engine's failure.
_FAILURES: dict[str, type[OffloadError]] = {
    "executor-died": WorkerDied,
    "unsupported-argument": Unsupported,
    "not-in-table": Unsupported,
    "unsupported-by-engine": Unsupported,
    "array-api-dispatch": Unsupported,
}


class ModelMissing(Exception):
    """The worker does not have the model (any more): its state has to be sent."""


class LoanInTheWay(Exception):
    """The pool has no room as long as a span is held: what lies in it has to be sent again."""


@dataclass(slots=True)
class Reply:
    """A worker's answer: its body, the span that holds its arrays, bytes that came and that went, and what it cost.

    Of a worker that answers with files, `files` are the arrays, and there is no span. For `ways` see `Moving.ways`.
    `has_queued` says that it has waited for others, or a start. The receiver releases or keeps (`Pool.keep`) the lease.
    """

    body: m.ResultBody
    lease: Lease | None
    pool: Pool
    nbytes: int
    sent_bytes: int
    send_seconds: float
    wait_seconds: float
    files: Sequence[Any] = ()
    ways: Sequence[tuple[str, str]] = ()
    has_queued: bool = False


class Session:
    """A connection to a worker with a pool of its own.

    Parameters
    ----------
    where : Address
        Endpoint and keys.
    settings : Settings
        For the pool.

    Attributes
    ----------
    where : Address
    pool : Pool
    moving : Moving
        The ways of its spans to the worker and back.
    room : Room
        Finds room in the pool.
    broken : bool
        Whether it is of no more use.
    silent : bool
        Whether that is because the worker does not answer.
    """

    def __init__(self, where: launch.Address, settings: Settings) -> None:
        self.where = where
        self._numbers = itertools.count(1)
        self._idle: list[Wire] = []
        self._lock = threading.Lock()
        self._sizes: dict[tuple[str, str], float] = {}
        self._models: OrderedDict[tuple[str, bytes], int] = OrderedDict()
        self.broken = False
        self.silent = False
        size = settings.pool_size()
        ways = settings.carriers()
        self.pool = Pool(size.geometry, settings.pool_dir, settings.limit(), size.why, file.NAME in ways)
        self._process = -1
        self.moving = Moving(self.pool, ways, self._ask)
        try:
            self._welcome, self._process, self._files = greet(
                where, self.pool, self.moving, settings.timeout, settings.pool_dir
            )
        except BaseException:
            self._close_wires()
            self.moving.close()
            self.pool.close()
            raise
        self._close_wires()  # those to come know the worker's process
        self._abandoned = Abandoned(self._welcome.session, self._connect)
        self.pool.meanwhile = self._abandoned.wait
        ready_bytes = 0 if where.guest and settings.prefault is None else settings.ready_bytes(self.pool.geometry)
        self.room = Room(self.pool, self.moving, self._welcome.session, self._ask, ready_bytes, self._welcome.node)

    def __repr__(self) -> str:
        return f"<Session with {', '.join(self.engines)} at {self.where.endpoint}, {self.pool!r}>"

    @cached_property
    def engines(self) -> dict[str, frozenset[str]]:
        """The worker's engines by preference, and the names of the estimators that each may take."""
        return {name: frozenset(estimators) for name, estimators in self._welcome.engines}

    def version(self, package: str) -> str:
        """Return the version of a package of somebody else's estimators that the worker has; empty for none."""
        return dict((name, text) for name, text in self._welcome.versions).get(package, "")

    def model(self, engine: str, fingerprint: bytes) -> int:
        """Return the number under which an engine of the worker keeps a model, or 0."""
        with self._lock:
            number = self._models.get((engine, fingerprint), 0)
            if number:
                self._models.move_to_end((engine, fingerprint))
            return number

    def remember_model(self, engine: str, fingerprint: bytes, number: int) -> None:
        """Note that an engine of the worker keeps a model whose state has this fingerprint."""
        with self._lock:
            self._models[engine, fingerprint] = number
            if len(self._models) > _MAX_MODELS:
                self._models.popitem(last=False)

    def forget_model(self, engine: str, fingerprint: bytes) -> None:
        """Note that an engine of the worker does not keep a model any more."""
        with self._lock:
            self._models.pop((engine, fingerprint), None)

    def next_number(self) -> int:
        """Return a number for a request, and for the model that it leaves."""
        return next(self._numbers)

    def request(
        self, number: int, gathered: Gathered, deadline: float | None, show: Callable[[Sequence[Any]], None] | None
    ) -> Reply:
        """Have the worker do one call.

        Parameters
        ----------
        number : int
            From `next_number`.
        gathered : Gathered
            What to send.
        deadline : float or None
            `time.monotonic` value at which to give up.
        show : callable or None
            Called with the events of each `Progress`.

        Raises
        ------
        ModelMissing
            If the call names a model that the worker does not have.
        LoanInTheWay
            If it names arrays of a span that has to be given back first. Nothing was sent.
        OffloadError
            If it cannot be done there. The spans are safe: released, or kept until the worker has confirmed
            that it writes no more.
        """
        self.broken = not self._abandoned.settle(deadline) or self.broken
        begin = time.perf_counter()
        leases: list[Lease] = []
        wire: Wire | None = None
        clean = False
        try:
            inputs = None
            if gathered.refs:
                inputs = self._lease_input(gathered, deadline)
                leases.append(inputs)
            granted = inputs if gathered.overwritten else self._lease_output(gathered, deadline)
            if granted is not None and granted is not inputs:
                leases.append(granted)
            given, room = None if inputs is None else inputs.ref, None if granted is None else granted.ref
            call = m.Call(self._welcome.session, number, given, room, gathered.priority)
            wire = self._take_wire()
            entrust(leases, True)
            sent_bytes = self._send(number, inputs, gathered, deadline)
            sent = time.perf_counter()
            answer, raw, has_queued = self._converse(wire, call, gathered, leases, deadline, show)
            entrust(leases, False)
            clean = True
            body, lease, nbytes, files = self._conclude(answer, raw, leases[-1] if leases else None, deadline)
            seconds = sent - begin, time.perf_counter() - sent
            reply = Reply(body, lease, self.pool, nbytes, sent_bytes, *seconds, files, self.moving.ways, has_queued)
            if reply.lease is not None:
                leases.remove(reply.lease)
            if inputs in leases and lending.wanted() and gathered.lends:
                leases.remove(inputs)
                lending.lend(self, lending.Loan(inputs, gathered.arrays, gathered.refs))
            self._sizes[gathered.kind] = reply.nbytes / max(gathered.seen_bytes, 4096)
            return reply
        except (WorkerUnavailable, ProtocolError):
            self.broken = self.broken or not clean or not self.moving.is_usable
            raise
        except DeadlineExceeded:
            self.silent = wire is not None and wire.is_silent
            self.broken = self.broken or self.silent
            raise
        finally:
            if clean and wire is not None and self.moving.is_settled(number):
                for lease in leases:
                    lease.release()
                self._give_wire(wire)
            else:
                if gathered.loan is not None and wire is not None:
                    lending.surrender()
                    leases.append(gathered.loan.lease)
                self._abandoned.add(number, leases, gathered.lent, wire)

    def _send(self, number: int, inputs: Lease | None, gathered: Gathered, deadline: float | None) -> int:
        sent_bytes = len(gathered.body) + gathered.nbytes
        if inputs is not None:
            self.moving.send(number, inputs, gathered.refs, gathered.arrays, deadline)
        for span, ref in gathered.named:
            sent_bytes += self.moving.lend(number, span, ref.offset, placing.nbytes_of(ref), deadline)
        return sent_bytes

    def _lease_input(self, gathered: Gathered, deadline: float | None) -> Lease:
        caller = gathered.caller
        if gathered.loan is None:
            if gathered.overwritten:
                nbytes = gathered.nbytes + _LEAST_GRANT_BYTES
                return self.room.lease_kept(nbytes, deadline, caller) or self.room.lease_input(nbytes, deadline, caller)
            return self.room.lease_input(gathered.nbytes, deadline, caller)
        found = self.pool.try_lease_input(gathered.nbytes, caller)
        if found is None:
            raise LoanInTheWay
        return found

    def _converse(
        self,
        wire: Wire,
        call: m.Call,
        gathered: Gathered,
        leases: list[Lease],
        deadline: float | None,
        show: Callable[[Sequence[Any]], None] | None,
    ) -> tuple[m.Message, bytes, bool]:
        answer, raw = wire.ask(call, gathered.body, deadline)
        has_queued = False
        while True:
            has_queued = has_queued or (isinstance(answer, m.Running) and answer.phase != "running")
            if isinstance(answer, (m.Running, m.Progress)):
                if isinstance(answer, m.Progress) and show is not None:
                    show(answer.events)
                answer, raw = wire.ask(m.Wait(call.session, call.request), b"", deadline)
            elif isinstance(answer, m.NeedOutput):
                # Nothing is held while waiting for room, so that no two calls can wait for each other.
                while leases:
                    leases.pop().release()
                lending.give_back()
                leases.append(self.room.lease_output(answer.nbytes, deadline, gathered.caller))
                entrust(leases, True)
                answer, raw = wire.ask(m.Grant(call.session, call.request, leases[0].ref), b"", deadline)
            else:
                return answer, raw, has_queued

    def _conclude(
        self, answer: m.Message, raw: bytes, granted: Lease | None, deadline: float | None
    ) -> tuple[m.ResultBody, Lease | None, int, Sequence[Any]]:
        if isinstance(answer, m.NeedModel):
            raise ModelMissing
        if isinstance(answer, m.Failed):
            raise _FAILURES.get(answer.code, EngineError)(answer.words, answer.code)
        if isinstance(answer, m.Refused):
            if answer.code == "unknown-session":
                self.broken = True
            raise ProtocolError(answer.words, answer.code)
        if not isinstance(answer, m.Result):
            raise ProtocolError(f"The worker answered a call with {type(answer).__name__}.")
        if answer.wish:
            self.room.wish(answer.wish)
        body = m.decode_result(raw)
        files = file_reply.arrays_of(body.refs, self._files, self.pool.geometry.largest_span)
        lease, payload = None, sum(array.nbytes for array in files)
        if not files and not all(is_inline(ref) for ref in body.refs):
            if granted is None:
                raise ProtocolError("The worker sent arrays without a span for them.")
            placed = [check_array_ref(ref, granted.size)[0] for ref in body.refs if not is_inline(ref)]
            end = max(ref.offset + placing.nbytes_of(ref) for ref in placed)
            self.moving.receive(answer.request, granted, end, deadline)
            payload = self.pool.check_reply(granted)
            lease = granted
        return body, lease, len(raw) + payload, files

    def _ask(self, message: m.Message, deadline: float | None = None, body: bytes = b"") -> m.Message:
        wire = self._take_wire()
        try:
            answer, _ = wire.ask(message, body, deadline)
        except BaseException:
            wire.close()
            raise
        self._give_wire(wire)
        return answer

    def status(self) -> dict[str, Any]:
        """Return the worker's counters."""
        answer = self._ask(m.Status(self._welcome.session))
        if isinstance(answer, m.Report):
            return dict((name, value) for name, value in answer.counters)
        raise ProtocolError("The worker does not report.")

    def stop_worker(self) -> None:
        """Ask the worker to end, for all its clients; this session is over with it."""
        wire = self._take_wire()
        wire.ask(m.Stop(self._welcome.session))
        wire.close()
        self.broken = True

    def close(self) -> None:
        """End the session; results that were kept stay valid."""
        self.room.close()
        with self._lock:
            wires, self._idle = self._idle, []
            self.broken = True
        with contextlib.suppress(OffloadError):
            if not wires and not self.silent and not launch.has_ended(self.where):
                wires = [self._connect()]
            if wires:
                wires[0].ask(m.Bye(self._welcome.session), b"", time.monotonic() + 0.5)
        for wire in wires:
            wire.close()
        self.moving.close()
        self.pool.close()
        if self._files is not None:
            self._files.close()
        process, self._process = self._process, -1
        if process >= 0:
            os.close(process)

    def _lease_output(self, gathered: Gathered, deadline: float | None) -> Lease | None:
        ratio, nbytes = self._sizes.get(gathered.kind), gathered.seen_bytes
        if gathered.result_bytes:
            guess = gathered.result_bytes + _LEAST_GRANT_BYTES
        elif ratio is not None and ratio * max(nbytes, 4096) <= self.pool.thresholds.inline:
            return None  # it comes in the answer itself
        elif ratio is None:
            guess = min(nbytes, _FIRST_GRANT_BYTES)
        else:
            guess = int(ratio * max(nbytes, 4096) * 1.02) + _LEAST_GRANT_BYTES
        known, caller = gathered.result_bytes or ratio is not None, gathered.caller
        large = known and guess >= self.pool.thresholds.view
        if large and (kept := self.room.lease_kept(guess, deadline, caller)) is not None:
            return kept
        return self.room.try_lease_output(max(guess, _LEAST_GRANT_BYTES), caller)

    def _take_wire(self) -> Wire:
        with self._lock:
            wire = self._idle.pop() if self._idle else None
        return self._connect() if wire is None else wire

    def _close_wires(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _connect(self) -> Wire:
        return Wire(self.where.endpoint, self.where.keys, self._process, greeted=True)

    def _give_wire(self, wire: Wire) -> None:
        with self._lock:
            if not self.broken:
                self._idle.append(wire)
                return
        wire.close()
