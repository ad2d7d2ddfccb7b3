"""The client's sockets: one REQ socket a conversation. The only client file that imports zmq."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from sklearn_wsl_gpu.errors import (
    DEADLINE_PASSED,
    AuthenticationError,
    DeadlineExceeded,
    OffloadError,
    RemoteProtocolError,
    WorkerDied,
    WorkerUnavailable,
)
from sklearn_wsl_gpu.keys import ClientKeys
from sklearn_wsl_gpu.protocol import messages as m
from sklearn_wsl_gpu.protocol.codec import MAX_MESSAGE_BYTES
from sklearn_wsl_gpu.protocol.states import ASKING, NEW, READY, Channel

#: A worker answers every message within half a second. One that is silent this long is gone, unless its
#: process is known to be there: then it is only slow, or stopped.
_SILENCE_SECONDS = 1.8
_STOPPED_SECONDS = 15.0
#: As a plain number: a flag of an enumeration takes longer to look at.
_MORE = int(zmq.SNDMORE)
#: Time for a connection to come up, handshake included.
_CONNECT_SECONDS = 3.0
#: More than a first socket takes, with ZeroMQ's threads and a monitor.
_DESCRIPTORS = 24
_THREADS = 3


@dataclass(slots=True)
class _Contexts:
    by_pid: dict[int, zmq.Context[Any]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_contexts = _Contexts()


def _context() -> zmq.Context[Any]:
    # A forked child makes its own: the parent's sockets and threads are not there.
    with _contexts.lock:
        pid = os.getpid()
        if pid not in _contexts.by_pid:
            _contexts.by_pid[pid] = zmq.Context()
        return _contexts.by_pid[pid]


@contextmanager
def _opening() -> Iterator[None]:
    """Open a socket in here; raise `OffloadError` if this process may not."""
    held: list[int] = []
    try:
        # Where ZeroMQ runs out of either in its own threads, it ends the process.
        try:
            held.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(_DESCRIPTORS))
        finally:
            for descriptor in held:
                os.close(descriptor)
        if os.getpid() not in _contexts.by_pid:
            _start_threads()
        yield
    except (OSError, RuntimeError, zmq.ZMQError) as error:
        words = getattr(error, "strerror", None) or error
        raise OffloadError(
            f"This process cannot open a socket: {words}. Close files and end threads that are not needed, or let it "
            "have more (ulimit -n, ulimit -u).",
            "no-socket",
        ) from error


def _start_threads() -> None:
    """Start and end as many threads as ZeroMQ starts; may raise `RuntimeError`."""
    go, started = threading.Event(), []
    try:
        for _ in range(_THREADS):
            thread = threading.Thread(target=go.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        if "interpreter shutdown" not in str(error):  # at which ZeroMQ still may, where Python does not
            raise
    finally:
        go.set()
        for thread in started:
            thread.join()


def close_context() -> None:
    """Close this process's sockets."""
    with _contexts.lock:
        context = _contexts.by_pid.pop(os.getpid(), None)
    if context is not None:
        context.destroy(linger=0)


def after_fork() -> None:
    """Give a forked child a lock of its own; the parent's may be held by a thread that is not here."""
    _contexts.lock = threading.Lock()


def new_keys() -> tuple[ClientKeys, str]:
    """Return the client's keys for a new worker, and that worker's secret key."""
    server_public, server_secret = (key.decode("ascii") for key in zmq.curve_keypair())
    public, secret = (key.decode("ascii") for key in zmq.curve_keypair())
    return ClientKeys(server_public, public, secret), server_secret


class _UnlessShutDown:
    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, zmq.ZMQError):  # `shutdown` in another thread
            raise WorkerDied(f"The connection to the worker was closed during the call: {error.strerror}.") from error


#: In it what ZeroMQ says of a socket that another thread has closed becomes a `WorkerDied`.
unless_shut_down = _UnlessShutDown()


class Wire:
    """A connected REQ socket and the state of its conversation.

    Parameters
    ----------
    endpoint : str
        ``tcp://HOST:PORT``.
    keys : ClientKeys
        CURVE keys.
    process : int
        A process descriptor of the worker that becomes readable when it ends, or -1.
    greeted : bool
        Whether the session has been opened on another wire.

    Raises
    ------
    OffloadError
        If this process may open no more sockets.
    """

    def __init__(self, endpoint: str, keys: ClientKeys, process: int, *, greeted: bool) -> None:
        self._endpoint = endpoint
        self._process = process
        self._conversation = Channel(READY if greeted else NEW)
        with _opening():
            socket = _context().socket(zmq.REQ)
        self._socket: zmq.Socket[bytes] = socket
        with unless_shut_down:
            self._set_up(socket, keys)
            if greeted:
                socket.connect(endpoint)
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        if process >= 0:
            self._poller.register(process, zmq.POLLIN)
        self._told_at = 0.0

    def _set_up(self, socket: zmq.Socket[bytes], keys: ClientKeys) -> None:
        socket.linger = 0
        socket.setsockopt(zmq.REQ_RELAXED, 1)
        socket.setsockopt(zmq.REQ_CORRELATE, 1)  # without it a late reply answers the wrong request
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 2000)
        socket.setsockopt(zmq.IPV6, "[" in self._endpoint)
        socket.curve_serverkey = keys.server_public.encode("ascii")
        socket.curve_publickey = keys.public.encode("ascii")
        socket.curve_secretkey = keys.secret.encode("ascii")

    def __repr__(self) -> str:
        return f"<Wire to {self._endpoint}, {self._conversation.state}>"

    def connect(self, deadline: float | None = None) -> None:
        """Connect and wait for the handshake, to tell what is wrong if there is none.

        Parameters
        ----------
        deadline : float or None
            `time.monotonic` value at which to give up, if it comes before that at which there is nobody.

        Raises
        ------
        DeadlineExceeded
            If the deadline passes first.
        AuthenticationError, WorkerUnavailable
            With what was found at the endpoint.
        OffloadError
            If this process may open no more sockets.
        """
        with _opening():
            monitor = self._socket.get_monitor_socket(
                zmq.EVENT_CONNECTED
                | zmq.EVENT_CLOSED
                | zmq.EVENT_CONNECT_RETRIED
                | zmq.EVENT_DISCONNECTED
                | zmq.EVENT_HANDSHAKE_SUCCEEDED
                | zmq.EVENT_HANDSHAKE_FAILED_AUTH
                | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
                | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            )
        seen: set[int] = set()
        limit = time.monotonic() + _CONNECT_SECONDS
        end = limit if deadline is None else min(limit, deadline)
        try:
            with unless_shut_down:
                self._socket.connect(self._endpoint)
            while True:
                left = end - time.monotonic()
                if left <= 0 or not monitor.poll(int(left * 1000) + 1):
                    if end < limit:
                        raise DeadlineExceeded(DEADLINE_PASSED)
                    raise self._no_handshake(seen)
                event = recv_monitor_message(monitor)["event"]
                seen.add(event)
                if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    return
                if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                    raise AuthenticationError(
                        f"The worker at {self._endpoint} does not know this client's key. Use the key directory "
                        "that the worker was started with (its --keys), by offload(keys=…) or "
                        "SKLEARN_WSL_GPU_KEYS."
                    )
                refused = event == zmq.EVENT_CONNECT_RETRIED and zmq.EVENT_CONNECTED not in seen
                other = event in (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_DISCONNECTED)
                if refused or other:
                    raise self._no_handshake(seen)
        finally:
            self._socket.disable_monitor()
            monitor.close(linger=0)

    def _no_handshake(self, seen: set[int]) -> WorkerUnavailable:
        if zmq.EVENT_CONNECTED in seen:
            return AuthenticationError(
                f"Something answers at {self._endpoint}, but it is no worker, or not the one that the keys are "
                "for. Check the port, and that keys is the worker's own key directory."
            )
        return WorkerUnavailable(
            f"Nothing listens at {self._endpoint}. Start a worker there (python -m wsl_worker --listen "
            f"{self._endpoint} --keys DIRECTORY), or leave endpoint unset to have one started."
        )

    def ask(self, message: m.Message, body: bytes = b"", deadline: float | None = None) -> tuple[m.Message, bytes]:
        """Send a message and wait for its answer.

        Parameters
        ----------
        message : Message
        body : bytes
            The second frame, if it has one.
        deadline : float or None
            `time.monotonic` value at which to give up.

        Raises
        ------
        WorkerDied
            If the worker is gone or silent.
        DeadlineExceeded
            If the deadline passes first.
        RemoteProtocolError
            If the answer is none that the protocol allows.
        """
        with unless_shut_down:
            self.tell(message, body)
            return self._answer(deadline)

    def _answer(self, deadline: float | None) -> tuple[m.Message, bytes]:
        limit = _STOPPED_SECONDS if self._process >= 0 else _SILENCE_SECONDS
        silent_at = time.monotonic() + limit
        end = silent_at if deadline is None else min(silent_at, deadline)
        while True:
            left = end - time.monotonic()
            ready = [item for item, _ in self._poller.poll(max(int(left * 1000) + 1, 0))]
            if self._socket in ready:
                frames = [self._socket.recv(copy=False)]
                while frames[-1].more:
                    frames.append(self._socket.recv(copy=False))
                if len(frames) > 2:
                    raise RemoteProtocolError("The worker sent a message of more than two frames.")
                return self._conversation.receive(frames[0].bytes), frames[1].bytes if len(frames) == 2 else b""
            if self._process in ready:
                raise WorkerDied(
                    "The worker ended during the call. A new one is started for the next call; if this happens "
                    "again, look at its messages with offload(verbose=1)."
                )
            if deadline is not None and time.monotonic() >= deadline:
                raise DeadlineExceeded(DEADLINE_PASSED)
            if time.monotonic() >= silent_at:
                raise WorkerDied(f"The worker at {self._endpoint} does not answer; it is gone or stopped.")

    def tell(self, message: m.Message, body: bytes = b"") -> None:
        """Send a message without waiting for its answer."""
        head = self._conversation.send(message)
        self._told_at = time.monotonic()
        if body:
            self._socket.send(head, _MORE)
        self._socket.send(body or head)

    @property
    def is_silent(self) -> bool:
        """Whether the worker owes an answer for longer than a worker that is there ever does."""
        return self._conversation.state == ASKING and time.monotonic() - self._told_at > _SILENCE_SECONDS

    def close(self, linger_ms: int = 0) -> None:
        """Close the socket; what was sent last may still leave within `linger_ms`."""
        self._socket.close(linger=linger_ms)
