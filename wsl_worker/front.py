"""The front: sockets, sessions and queue. It always answers; it imports neither scikit-learn nor CUDA.

Everything happens in one thread around one poll. What is decided about requests is in `Scheduler`; this file
only moves bytes and descriptors.
"""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import zmq
from zmq.auth.thread import ThreadAuthenticator

from sklearn_wsl_gpu.carriers import shared
from sklearn_wsl_gpu.errors import OffloadError, ProtocolError, WorkerUnavailable
from sklearn_wsl_gpu.protocol import messages as m
from sklearn_wsl_gpu.protocol.codec import MAX_HEAD_BYTES, MAX_MESSAGE_BYTES
from sklearn_wsl_gpu.protocol.version import PROTOCOL, agree
from wsl_worker.bulk import Bulk
from wsl_worker.doors import Doors
from wsl_worker.fleet import Fleet
from wsl_worker.listening import AllowList
from wsl_worker.scheduler import Scheduler
from wsl_worker.sessions import MAX_SEGMENTS, MAX_SESSIONS, Envelope, Session, Sessions

ZAP_DOMAIN = b"sklearn_wsl_gpu"
#: Somebody who waits longer than this is told that the request still runs.
_PATIENCE_SECONDS = 0.4
_TICK_MS = 100
#: As plain numbers: flags of an enumeration take longer to add than a frame to send.
_LAST, _NOT_LAST = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
_READABLE, _WRITABLE = int(zmq.POLLIN), int(zmq.POLLOUT)


def versions() -> dict[str, str]:
    """Return the versions that must fit on both sides; reads metadata only, imports nothing."""
    found = {}
    for name, package in (("scikit-learn", "scikit-learn"), ("sklearn_wsl_gpu", "sklearn-wsl-gpu")):
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            found[name] = ""
    return found


class Front:
    """Serves clients until it is told to stop.

    Parameters
    ----------
    listen : str
        Endpoint to bind, such as ``"tcp://127.0.0.1:*"``.
    secret : str
        CURVE secret key of the worker, in Z85.
    clients : list of str
        CURVE public keys of the clients that may connect, in Z85.
    fleet : Fleet
        Decides about requests.
    pool_bytes : int
        Largest pool that a client may bring, in bytes.
    bulk : Bulk
        Serves the streams.
    """

    def __init__(self, listen: str, secret: str, clients: list[str], fleet: Fleet, pool_bytes: int, bulk: Bulk) -> None:
        self._fleet = fleet
        self._starts: dict[Scheduler, int] = {}
        self._pool_bytes = pool_bytes
        self._bulk = bulk
        self._doors = Doors(self._bulk)
        self._sessions = Sessions()
        self._versions = versions()
        self._boot = shared.boot_id()
        self._doors.arrived = fleet.arrived
        self._watched: dict[int, Callable[[], None]] = {}
        #: What else than to be read the executors' links are watched for.
        self._writing: dict[int, bool] = {}
        self._greetings: list[tuple[Envelope, str, m.Hello, float]] = []
        self._stopping = False
        self._context = zmq.Context()
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        # The domain by name: pyzmq's "*" is no wildcard for a socket that has a domain.
        self._authenticator.configure_curve_callback(ZAP_DOMAIN.decode(), AllowList(clients))
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.curve_server = True
        self._socket.curve_secretkey = secret.encode("ascii")
        self._socket.zap_domain = ZAP_DOMAIN
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self._socket.sndhwm = self._socket.rcvhwm = 8  # messages of a client, which asks one thing at a time
        self._socket.setsockopt(zmq.HANDSHAKE_IVL, 2000)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 1000)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3000)
        self._socket.setsockopt(zmq.IPV6, "[" in listen)
        self._socket.bind(listen)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, _READABLE)
        self.watch(self._doors.background.descriptor, self._doors.background.collect)

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return bytes(self._socket.getsockopt(zmq.LAST_ENDPOINT)).decode("ascii").rstrip("\0")

    def watch(self, descriptor: int, when_readable: Callable[[], None]) -> None:
        """Call a function whenever a descriptor becomes readable (or, for a process, when it has ended)."""
        self._watched[descriptor] = when_readable
        self._poller.register(descriptor, _READABLE)

    def unwatch(self, descriptor: int) -> None:
        """Stop watching a descriptor."""
        if self._watched.pop(descriptor, None) is not None:
            self._poller.unregister(descriptor)
            self._writing.pop(descriptor, None)

    def stop(self) -> None:
        """Make `serve` return."""
        self._stopping = True

    def serve(self) -> None:
        """Answer until `stop` is called."""
        due = 0.0
        while not self._stopping:
            for scheduler in self._fleet:
                scheduler.answer = self._answer
                self._follow_executor(scheduler)
            for item, _ in self._poller.poll(_TICK_MS):
                if item is self._socket:
                    self._receive()
                elif item in self._watched:
                    _survived(self._watched[item])
            now = time.monotonic()
            if now >= due or self._greetings:
                due = now + _TICK_MS / 1000
                _survived(lambda: self._tick(now))  # noqa: B023

    def _tick(self, now: float) -> None:
        for scheduler in self._fleet:
            scheduler.tick(now)
            self._appease(scheduler, now)
        self._greet_again(now)
        self._doors.background.tick(now)
        self._end_deserted(now)

    def _appease(self, scheduler: Scheduler, now: float) -> None:
        for job in scheduler.impatient(now - _PATIENCE_SECONDS):
            phase = "running" if job.state == "RUNNING" else "queued" if scheduler.ready else "starting"
            self._answer(job.envelope, m.Running(job.request, phase), b"")
            job.envelope = None

    def close(self) -> None:
        """End the executors, close the sessions and the sockets."""
        self._fleet.stop()
        # What was said last, such as a farewell, may still leave.
        self._socket.close(linger=200)
        for session in self._sessions:
            self._sessions.remove(session)
        self._bulk.close()
        self._doors.background.close()
        self._authenticator.stop()
        self._context.destroy(linger=0)

    def _follow_executor(self, scheduler: Scheduler) -> None:
        # Counted by starts: a new executor's descriptors may have the numbers of the old one's.
        supervisor = scheduler.supervisor
        link = supervisor.link
        if link is not None:
            number = link.fileno()
            if supervisor.starts != self._starts.get(scheduler, 0):
                self.watch(supervisor.pidfd, lambda: self._executor_died(scheduler, number))
                self.watch(number, lambda: self._executor_speaks(scheduler, number))
            if number in self._watched and link.wants_to_write != self._writing.get(number, False):
                self._writing[number] = link.wants_to_write
                self._poller.register(number, _READABLE | (_WRITABLE if link.wants_to_write else 0))
        self._starts[scheduler] = supervisor.starts

    def _executor_speaks(self, scheduler: Scheduler, number: int) -> None:
        if not scheduler.read():
            # It is dead when its process is, which the other descriptor tells: nobody waits for that here.
            self.unwatch(number)
            scheduler.supervisor.finish()

    def _executor_died(self, scheduler: Scheduler, number: int) -> None:
        # What it said before it died still counts.
        scheduler.read()
        self.unwatch(number)
        self.unwatch(scheduler.supervisor.pidfd)
        scheduler.executor_died()

    def _receive(self) -> None:
        # One message: whether there is another the next poll tells, and cheaper than the socket itself.
        frames = [self._socket.recv(zmq.NOBLOCK, copy=False)]
        while frames[-1].more:
            frames.append(self._socket.recv(zmq.NOBLOCK, copy=False))
        raw = [frame.bytes for frame in frames]
        if b"" not in raw[1:]:
            return
        cut = raw.index(b"", 1) + 1
        envelope, payload = raw[:cut], raw[cut:]
        self._guarded(envelope, lambda: self._read(envelope, str(frames[0].get("User-Id")), payload))

    def _read(self, envelope: Envelope, user: str, payload: list[bytes]) -> None:
        if len(payload) not in (1, 2):
            raise ProtocolError("A message has one or two frames.")
        self._handle(envelope, user, m.decode(payload[0], MAX_HEAD_BYTES), payload[1] if len(payload) == 2 else b"")

    def _handle(self, envelope: Envelope, user: str, message: m.Message, body: bytes) -> None:
        if isinstance(message, m.Hello):
            self._greet(envelope, user, message)
            return
        session = self._sessions.find(getattr(message, "session", b""), user)
        if session is not None:
            session.last_heard = time.monotonic()
        answer = self._look_on(message)
        if answer is not None:
            self._answer(envelope, answer, b"")
            return
        if session is None:
            raise ProtocolError("The worker has no such session.", "unknown-session")
        if isinstance(message, m.Call):
            self._call(session, message, body, envelope)
        elif isinstance(message, m.Wait):
            self._fleet.of(session).wait(session, message, envelope)
        elif isinstance(message, m.Grant):
            self._fleet.of(session).grant(session, message, envelope)
        elif isinstance(message, m.Cancel):
            self._cancel(session, message, envelope)
        elif isinstance(message, (m.Fetch, m.Store, m.Probe)):
            self._doors.do(session.number, message, lambda answer: self._answer(envelope, answer, b""))
        elif isinstance(message, (m.Attach, m.Detach, m.Warm)):
            self._answer(envelope, self._change_pool(session, message), b"")
        elif isinstance(message, m.Bye):
            self._end_session(session)
            self._answer(envelope, m.Farewell(), b"")
        else:
            raise ProtocolError(f"A client does not send {type(message).__name__}.")

    def _look_on(self, message: m.Message) -> m.Message | None:
        """Return the answer to what is also asked by who has no session; None if it is something else."""
        if isinstance(message, m.Status):
            return m.Report(self._counters())
        if isinstance(message, m.Stop):
            self.stop()
            return m.Farewell()
        if isinstance(message, m.Resize):
            found = [one for one in self._sessions if message.number in (0, one.number)]
            for one in found:
                one.note_wish(message.nbytes)
            return m.Report([["sessions", len(found)]])
        return None

    def _greet(self, envelope: Envelope, user: str, hello: m.Hello) -> None:
        agree(PROTOCOL, self._versions, hello.protocol, dict((name, text) for name, text in hello.versions), "client")
        scheduler = self._fleet.place()
        if not scheduler.ready:
            if scheduler.broken:
                raise OffloadError(f"The worker's engine does not start: {scheduler.broken}", "engine-broken")
            # Until the executor is there, the engine is not known.
            self._greetings.append((envelope, user, hello, time.monotonic()))
            return
        if len(self._sessions) >= MAX_SESSIONS:
            self._end_session(self._sessions.idlest())
        number = self._sessions.next_number()
        accepted = self._doors.accept(number, 0, hello.offer, self._pool_bytes)
        process = self._watchable(hello)
        if process < 0 and not accepted.own:
            os.close(accepted.descriptor)
            raise WorkerUnavailable("The worker cannot tell when this process ends.", "no-carrier")
        session = self._sessions.open(
            number, user, hello.pid, accepted.descriptor, accepted.geometry, process, time.monotonic()
        )
        if accepted.own:
            session.mirrors.add(0)
        if process >= 0:
            self.watch(process, lambda: self._end_session(session))
        self._fleet.attach(session, scheduler)
        versions = [*map(list, self._versions.items()), *scheduler.packages]
        welcome = m.Welcome(
            PROTOCOL, versions, session.token, session.number, scheduler.engines, accepted.carriers, accepted.refused,
            os.getpid(), self._boot, scheduler.node,
        )  # fmt: skip
        self._answer(envelope, welcome, b"")

    def _call(self, session: Session, message: m.Call, body: bytes, envelope: Envelope) -> None:
        if not self._doors.call(session.number, message.request):
            raise _busy()
        transfer = self._doors.transfer(session.number, message.request, message.inputs)
        self._fleet.of(session).call(session, message, body, envelope, transfer)

    def _cancel(self, session: Session, message: m.Cancel, envelope: Envelope) -> None:
        if not self._doors.cancel(session.number, message.request):
            raise _busy()
        self._fleet.of(session).cancel(session, message, envelope)

    def _change_pool(self, session: Session, message: m.Attach | m.Detach | m.Warm) -> m.Message:
        scheduler, number = self._fleet.of(session), message.segment
        if isinstance(message, m.Attach):
            if number < 1 or number in session.descriptors or len(session.descriptors) >= MAX_SEGMENTS:
                raise ProtocolError(f"A segment of number {number} cannot be added to this session's pool.")
            budget = self._pool_bytes - session.pool_bytes
            accepted = self._doors.accept(session.number, number, message.offer, budget)
            session.add_segment(number, accepted.descriptor, accepted.geometry, accepted.own)
            scheduler.attach_segment(session, number)
            return m.Attached(number, accepted.carriers)
        is_first = number == 0 and isinstance(message, m.Detach)
        if number not in session.descriptors or (is_first and number not in session.mirrors):
            raise ProtocolError(f"This session's pool has no segment of number {number} to do that with.")
        if isinstance(message, m.Detach):
            scheduler.drop_segment(session, number)
            if is_first:
                self._doors.empty(session.number)
                scheduler.attach_segment(session, number)
            else:
                session.drop_segment(number)
                self._doors.drop(session.number, number)
        else:
            scheduler.warm(session, number, message.start, message.nbytes)
            self._doors.warm(session.number, number, message.start, message.nbytes)
        return m.Done()

    def _watchable(self, hello: m.Hello) -> int:
        """Return a descriptor that tells of the client's end; -1 where there is none to be had."""
        if hello.boot == self._boot:
            with contextlib.suppress(OSError, OverflowError, ValueError):
                return os.pidfd_open(hello.pid)
        return -1

    def _greet_again(self, now: float) -> None:
        waiting, self._greetings = self._greetings, []
        for envelope, user, hello, since in waiting:
            scheduler = self._fleet.place()
            if scheduler.ready or scheduler.broken:
                self._guarded(envelope, lambda: self._greet(envelope, user, hello))  # noqa: B023
            elif now - since > _PATIENCE_SECONDS:
                self._answer(envelope, m.Running(-1, "starting"), b"")
            else:
                self._greetings.append((envelope, user, hello, since))

    def _guarded(self, envelope: Envelope, work: Callable[[], None]) -> None:
        try:
            work()
        except OffloadError as error:
            self._answer(envelope, m.Refused(error.code, str(error)), b"")
        except Exception as error:  # for all others it goes on
            traceback.print_exc()
            words = f"The worker failed at this: {type(error).__name__}: {error}."
            self._answer(envelope, m.Refused("worker-failed", words), b"")

    def _end_session(self, session: Session) -> None:
        if session.process >= 0:
            self.unwatch(session.process)
        self._fleet.detach(session)
        self._sessions.remove(session)
        self._doors.close(session.number)

    def _end_deserted(self, now: float) -> None:
        for session in self._sessions:
            if self._doors.is_deserted(session.number, now - session.last_heard):
                self._end_session(session)

    def _answer(self, envelope: Envelope | None, message: m.Message, body: bytes) -> None:
        if envelope is None:
            return
        frames = [*envelope, m.encode(message), *([body] if body else [])]
        # A client that is gone, or does not read, is not waited for; if it lives, it asks again.
        with contextlib.suppress(zmq.ZMQError):
            for frame in frames[:-1]:
                self._socket.send(frame, _NOT_LAST)
            self._socket.send(frames[-1], _LAST)

    def _counters(self) -> list[list[Any]]:
        return [
            ["sessions", len(self._sessions)],
            ["pools", self._sessions.describe()],
            ["engines", [name for name, _ in self._fleet.first.engines]],
            ["pid", os.getpid()],
            ["broken", self._fleet.first.broken],
            *self._fleet.counters(),
        ]


def _survived(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception:  # what one client or executor brings about is not all others' end
        traceback.print_exc()
        time.sleep(_TICK_MS / 1000)


def _busy() -> ProtocolError:
    return ProtocolError("Something is still being moved for this request; ask again.", "busy")
