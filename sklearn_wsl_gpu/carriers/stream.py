"""The carrier for two memories: the bytes of a span travel over a socket beside the ZeroMQ one.

They are sent from where the user's arrays lie, and received where the span lies: there is no copy but those of the
system. A connection does one transfer at a time; there are as many as calls at a time.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.carriers import frames, sockets
from sklearn_wsl_gpu.carriers.base import BACK, THERE, Carrier, CarrierFailed, Damaged
from sklearn_wsl_gpu.carriers.checksum import CHECKSUM_BYTES, Checksum
from sklearn_wsl_gpu.carriers.frames import Head
from sklearn_wsl_gpu.errors import DEADLINE_PASSED, DeadlineExceeded, PoolError, RemoteProtocolError
from sklearn_wsl_gpu.pool.segment import Segment

NAME = "stream"
_CONNECT_SECONDS = 2.5
#: A port that has just been opened inside WSL2 is there for Windows after a while: it is tried again so often.
_PAUSE_SECONDS = 0.1
#: And for so long, by kind of route.
_OPEN_SECONDS = {"tcp": 5.0}
#: A socket that is given no time at all would not wait at all, and say so in other words.
_LEAST_SECONDS = 0.001
#: The fastest first: the way from Windows to WSL2 by TCP goes through a program.
_ORDER = ("hyperv", "vsock", "tcp")


class Route(NamedTuple):
    """An address that the worker listens at.

    Attributes
    ----------
    kind : str
        ``"tcp"``, ``"vsock"`` (Linux), or ``"hyperv"`` (Windows).
    host : str
        Name or address; context id; or id of the virtual machine.
    port : int
    """

    kind: str
    host: str
    port: int


class Refused(PoolError):
    """The worker does not do this transfer, whichever way it would go; its connection is as good as before."""


def routes_of(raw: Any, host: str) -> list[Route]:
    """Return the routes of a worker's answer that this system has sockets for.

    Parameters
    ----------
    raw : object
        List of [kind, host, port], unchecked; without a host it is where the worker's endpoint is.
    host : str
        Of that endpoint.
    """
    if type(raw) is not list or not all(type(item) is list and [*map(type, item)] == [str, str, int] for item in raw):
        raise RemoteProtocolError("The worker's answer to the offer of a stream is malformed.")
    here = {"tcp": True, "vsock": hasattr(socket, "AF_VSOCK"), "hyperv": hasattr(socket, "AF_HYPERV")}
    found = [Route(kind, where or host, port) for kind, where, port in raw if here.get(kind) and 0 < port < 2**32]
    return sorted(found, key=lambda route: _ORDER.index(route.kind))


def crosses_network(route: Route) -> bool:
    """Tell whether a route may leave the machine."""
    if route.kind != "tcp":
        return False
    try:
        return not ipaddress.ip_address(route.host.partition("%")[0]).is_loopback
    except ValueError:
        return route.host.lower() != "localhost"


def connect(route: Route, seconds: float = _CONNECT_SECONDS) -> socket.socket:
    """Return a connected socket, or raise `OSError`."""
    if route.kind == "tcp":
        return socket.create_connection((route.host, route.port), seconds)
    if sys.platform == "linux" and route.kind == "vsock":
        end = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        address: Any = (int(route.host), route.port)
    else:
        end, address = _hyperv(route, seconds)
    try:
        end.settimeout(seconds)
        end.connect(address)
    except BaseException:
        end.close()
        raise
    return end


def _hyperv(route: Route, seconds: float) -> tuple[socket.socket, Any]:
    family, protocol = socket.AF_HYPERV, socket.HV_PROTOCOL_RAW  # type: ignore[attr-defined, unused-ignore]
    end = socket.socket(family, socket.SOCK_STREAM, protocol)
    # Without it a port that nobody listens at takes half a minute.
    option = socket.HVSOCKET_CONNECT_TIMEOUT  # type: ignore[attr-defined, unused-ignore]
    end.setsockopt(protocol, option, int(seconds * 1000))
    return end, (route.host, f"{route.port:08x}-facb-11e6-bd58-64006a7986d3")


class Stream(Carrier):
    """The client's end of a stream.

    Parameters
    ----------
    route : Route
    session : int
        The session's number at the worker.
    key : bytes
        Known to this session and the worker.
    is_thorough : bool
        Of the checksum, see there.
    """

    kind = NAME
    needs_segment = False

    def __init__(self, route: Route, session: int, key: bytes, is_thorough: bool = True) -> None:
        self.name = f"{NAME} ({route.kind})"
        self.open_seconds = _OPEN_SECONDS.get(route.kind, _CONNECT_SECONDS)
        self._route = route
        self._session = session
        self._key = key
        self._is_thorough = is_thorough
        self._idle: list[socket.socket] = []
        #: Carries nothing: as long as it, or another one, is there, the worker knows that this process is.
        self._lifeline: socket.socket | None = None
        self._lock = threading.Lock()
        self._closed = False

    def open(self, segment: Segment, deadline: float, enough: threading.Event) -> None:
        # Is there somebody who knows the key at the other end?
        while True:
            try:
                self._lifeline = self._connect(deadline)
                return
            except CarrierFailed:
                again = self._route.kind in _OPEN_SECONDS and time.monotonic() + _PAUSE_SECONDS < deadline
                if not again or enough.wait(_PAUSE_SECONDS):
                    raise

    def there(
        self, request: int, ref: SpanRef, offset: int, pieces: Sequence[memoryview], deadline: float | None
    ) -> None:
        nbytes = sum(map(len, pieces[1:]))
        head = frames.pack_head(Head(THERE, request, ref, offset, nbytes, self._is_thorough))

        def work(end: socket.socket) -> None:
            sockets.send(end, head + pieces[0], deadline, sockets.STALL_SECONDS)
            checksum = Checksum(self._is_thorough)
            for piece in pieces[1:]:
                sockets.send(end, piece, deadline, sockets.STALL_SECONDS, checksum)
            sockets.send(end, checksum.digest(), deadline, sockets.STALL_SECONDS)
            self._hear(end, deadline)

        self._with_end(work, deadline)

    def back(self, request: int, ref: SpanRef, window: memoryview, deadline: float | None) -> None:
        head = frames.pack_head(Head(BACK, request, ref, 0, len(window), self._is_thorough))

        def work(end: socket.socket) -> None:
            sockets.send(end, head, deadline, sockets.STALL_SECONDS)
            self._hear(end, deadline)
            checksum = Checksum(self._is_thorough)
            sockets.receive_into(end, window, deadline, sockets.STALL_SECONDS, checksum)
            if sockets.receive(end, CHECKSUM_BYTES, deadline, sockets.STALL_SECONDS) != checksum.digest():
                raise Damaged("Other bytes have come over the connection of the bulk data than the worker has sent.")

        self._with_end(work, deadline)

    def admit(self, number: int, segment: Segment, offered: list[Any], answer: Sequence[Any]) -> None:
        pass  # the worker has memory of its own for it

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            if self._lifeline is not None:
                idle.append(self._lifeline)
        for end in idle:
            end.close()

    def _with_end(self, work: Callable[[socket.socket], None], deadline: float | None) -> None:
        end, is_new = self._take(deadline)
        while True:
            try:
                work(end)
            except Refused:
                self._give(end)
                raise
            except CarrierFailed as error:
                sockets.hang_up(end)
                if is_new or isinstance(error, (sockets.Stalled, Damaged)):
                    raise
            except BaseException:
                sockets.hang_up(end)
                raise
            else:
                self._give(end)
                return
            # It had stood idle, and may have been cut meanwhile.
            end, is_new = self._connect(deadline), True

    def _hear(self, end: socket.socket, deadline: float | None) -> None:
        raw = sockets.receive(end, frames.ANSWER_BYTES, deadline, sockets.STALL_SECONDS)
        outcome, nbytes = frames.unpack_answer(raw)
        if outcome == frames.DONE:
            return
        words = sockets.receive(end, nbytes, deadline, sockets.STALL_SECONDS).decode("utf-8", "replace")
        raise Refused(words) if outcome == frames.REFUSED else Damaged(words)

    def _take(self, deadline: float | None) -> tuple[socket.socket, bool]:
        with self._lock:
            if self._idle:
                return self._idle.pop(), False
        return self._connect(deadline), True

    def _give(self, end: socket.socket) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(end)
                return
        end.close()

    def _connect(self, deadline: float | None) -> socket.socket:
        where = f"{self._route.kind}://{self._route.host}:{self._route.port}"
        limit = time.monotonic() + _CONNECT_SECONDS
        if deadline is not None:
            limit = min(limit, deadline)
        try:
            end = connect(self._route, max(limit - time.monotonic(), _LEAST_SECONDS))
        except OSError as error:
            _check(deadline)
            raise CarrierFailed(f"The worker's bulk data at {where} cannot be reached: {error}.") from error
        try:
            sockets.tune(end)
            self._shake_hands(end, limit)
        except DeadlineExceeded:
            end.close()
            _check(deadline)
            raise CarrierFailed(f"What listens for the worker's bulk data at {where} does not answer.") from None
        except BaseException:
            end.close()
            raise
        return end

    def _shake_hands(self, end: socket.socket, deadline: float) -> None:
        nonce = os.urandom(frames.NONCE_BYTES)
        sockets.send(end, frames.pack_greeting(self._session, nonce), deadline, None)
        raw = sockets.receive(end, frames.NONCE_BYTES + frames.MAC_BYTES, deadline, None)
        other, proof = raw[: frames.NONCE_BYTES], raw[frames.NONCE_BYTES :]
        if not frames.is_proof(proof, self._key, b"worker", nonce, other):
            raise CarrierFailed("What answers for the worker's bulk data does not know this session's key.")
        sockets.send(end, frames.mac(self._key, b"client", other, nonce), deadline, None)


def _check(deadline: float | None) -> None:
    # A call that has too little time left tells nothing of the carrier.
    if deadline is not None and time.monotonic() >= deadline:
        raise DeadlineExceeded(DEADLINE_PASSED)
