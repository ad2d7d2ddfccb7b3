"""The worker's end of streams: a port, and a thread for each connection, which moves spans in and out of the pools.

The front's own thread opens and closes accounts here, one for each session that has a stream, and asks that a request
moves nothing any more. What a client asks for is looked at as if it were forged.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from sklearn_wsl_gpu.carriers import frames, sockets
from sklearn_wsl_gpu.carriers.base import BACK, CarrierFailed
from sklearn_wsl_gpu.carriers.frames import Head
from sklearn_wsl_gpu.errors import OffloadError, PoolError
from sklearn_wsl_gpu.pool import Segment
from sklearn_wsl_gpu.pool.layout import CLIENT, DATA_OFFSET, PAGE, SPAN_HEADER_BYTES, WORKER

_GREETING_SECONDS = 3.0
_MAX_STRANGERS = 64
_MAX_ENDS = 256
_STALL_SECONDS = 10.0
#: A connection that is told to end does so in the middle of a system call; only reserving memory takes time.
_SETTLE_SECONDS = 0.5
_REMEMBERED_REQUESTS = 4096


class Account:
    """What the threads know of one session.

    Attributes
    ----------
    key : bytes
        What its connections have to prove that they know.
    segments : dict of int to Segment
        The worker's own memory of its pool, by number.
    """

    def __init__(self) -> None:
        self.key = os.urandom(frames.KEY_BYTES)
        self.segments: dict[int, Segment] = {}
        self._changed = threading.Condition()
        self._active: dict[socket.socket, int] = {}
        self._ends: set[socket.socket] = set()
        self._cancelled: set[int] = set()
        self._order: deque[int] = deque()
        self._closed = False

    def add(self, end: socket.socket) -> bool:
        """Take a connection that has proved to be the session's; tell whether there may be another one."""
        with self._changed:
            if self._closed or len(self._ends) >= _MAX_ENDS:
                return False
            self._ends.add(end)
            return True

    def drop(self, end: socket.socket) -> None:
        """Forget a connection."""
        with self._changed:
            self._ends.discard(end)

    @contextlib.contextmanager
    def moving(self, end: socket.socket, request: int) -> Iterator[None]:
        """Move something for a request.

        Raises
        ------
        PoolError
            If that is over.
        """
        with self._changed:
            if self.is_over(request):
                raise PoolError("The request was cancelled.")
            self._active[end] = request
        try:
            yield
        finally:
            with self._changed:
                del self._active[end]
                self._changed.notify_all()

    def is_over(self, request: int) -> bool:
        """Tell whether nothing may be moved for a request any more."""
        return self._closed or request in self._cancelled

    def cancel(self, request: int) -> bool:
        """Let nothing be moved for a request any more; tell whether that is certain by now."""
        with self._changed:
            if request not in self._cancelled:
                self._cancelled.add(request)
                self._order.append(request)
                if len(self._order) > _REMEMBERED_REQUESTS:
                    self._cancelled.discard(self._order.popleft())
            for end, number in self._active.items():
                if number == request:
                    _shut(end)
            return self._changed.wait_for(lambda: request not in self._active.values(), _SETTLE_SECONDS)

    def close(self) -> None:
        """End its connections, and let go of the memory."""
        with self._changed:
            self._closed = True
            for end in self._ends:
                _shut(end)
            self._changed.wait_for(lambda: not self._active, _SETTLE_SECONDS)
        for segment in self.segments.values():
            segment.close()


class Bulk:
    """Ports for streams, open as soon as there is an account that has any.

    Parameters
    ----------
    host : str
        Address to listen at.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._accounts: dict[int, Account] = {}
        self._listeners: list[socket.socket] = []
        self._threads: set[threading.Thread] = set()
        self._strangers = threading.Semaphore(_MAX_STRANGERS)
        self.routes: list[list[object]] = []

    def open(self, session: int, streams: bool) -> Account:
        """Open an account for a session, and the ports if it may have streams."""
        if streams and not self._listeners:
            self._listen()
        account = self._accounts[session] = Account()
        return account

    def account(self, session: int) -> Account | None:
        """Return the account of a session, if it has one."""
        return self._accounts.get(session)

    def close_account(self, session: int) -> None:
        """Close a session's account, if it has one."""
        account = self._accounts.pop(session, None)
        if account is not None:
            account.close()

    def close(self) -> None:
        """Close all accounts and ports."""
        for listener in self._listeners:
            _shut(listener)
            listener.close()
        for session in list(self._accounts):
            self.close_account(session)
        for thread in list(self._threads):
            thread.join(_SETTLE_SECONDS)

    def _listen(self) -> None:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.create_server((self._host, 0), family=family, backlog=_MAX_STRANGERS)
        self._follow(listener)
        self.routes.append(["tcp", "", listener.getsockname()[1]])

    def _follow(self, listener: socket.socket) -> None:
        self._listeners.append(listener)
        self._start(partial(self._accept, listener))

    def _start(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            finally:
                self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name="wsl_worker bulk", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                end, _ = listener.accept()
            except OSError:
                return
            if self._strangers.acquire(blocking=False):
                self._start(partial(self._serve, end))
            else:
                end.close()

    def _serve(self, end: socket.socket) -> None:
        with end, contextlib.suppress(OffloadError, OSError):
            try:
                sockets.tune(end)
                account = self._greet(end)
            finally:
                self._strangers.release()
            if account is None or not account.add(end):
                return
            try:
                while True:
                    self._move(end, account)
            finally:
                account.drop(end)

    def _greet(self, end: socket.socket) -> Account | None:
        deadline = time.monotonic() + _GREETING_SECONDS
        session, other = frames.unpack_greeting(sockets.receive(end, frames.GREETING_BYTES, deadline, None))
        account = self._accounts.get(session)
        # Whoever names no session is answered as if it had a key: so numbers cannot be tried out.
        key = os.urandom(frames.KEY_BYTES) if account is None else account.key
        nonce = os.urandom(frames.NONCE_BYTES)
        sockets.send(end, nonce + frames.mac(key, b"worker", other, nonce), deadline, None)
        proof = sockets.receive(end, frames.MAC_BYTES, deadline, None)
        return account if frames.is_proof(proof, key, b"client", nonce, other) else None

    def _move(self, end: socket.socket, account: Account) -> None:
        end.settimeout(None)  # it may stand idle for hours
        raw = sockets.receive(end, frames.HEAD_BYTES, None, None)
        end.settimeout(sockets.SLICE_SECONDS)
        head = frames.unpack_head(raw)
        come = 0 if head.way == BACK else SPAN_HEADER_BYTES + head.nbytes
        try:
            with account.moving(end, head.request):
                segment = _segment(account, head)
                if head.way == BACK:
                    _give(end, segment, head)
                else:
                    segment.reserve(head.ref.start, head.offset + head.nbytes)
                    come = 0
                    _take(end, segment, head)
        except CarrierFailed:
            raise
        except OffloadError as error:
            # It comes in any case, and has to be out of the way of the answer.
            for begin in range(0, come, sockets.CHUNK_BYTES):
                sockets.receive(end, min(sockets.CHUNK_BYTES, come - begin), None, _STALL_SECONDS)
            sockets.send(end, frames.pack_answer(str(error)), None, _STALL_SECONDS)


def _segment(account: Account, head: Head) -> Segment:
    segment, span = account.segments.get(head.ref.segment), head.ref
    if segment is None:
        raise PoolError("A transfer names a segment that the session's pool does not have.")
    inside = span.start >= DATA_OFFSET and span.start + span.nbytes <= segment.geometry.file_bytes
    least = 0 if head.way == BACK else SPAN_HEADER_BYTES
    if not inside or span.start % PAGE or head.offset < least or head.offset + head.nbytes > span.nbytes:
        raise PoolError("A transfer names bytes outside of its span.")
    return segment


def _take(end: socket.socket, segment: Segment, head: Head) -> None:
    start = head.ref.start
    header = sockets.receive(end, SPAN_HEADER_BYTES, None, _STALL_SECONDS)
    window = segment.window(start, head.offset + head.nbytes).data
    sockets.receive_into(end, window[head.offset :], None, _STALL_SECONDS)
    # Last: what is torn is never taken for whole.
    window[:SPAN_HEADER_BYTES] = header
    sockets.send(end, frames.pack_answer(), None, _STALL_SECONDS)


def _give(end: socket.socket, segment: Segment, head: Head) -> None:
    span = head.ref
    segment.check(span.start, span.generation, span.nbytes, CLIENT, WORKER)
    sockets.send(end, frames.pack_answer(), None, _STALL_SECONDS)
    sockets.send(end, segment.window(span.start, head.nbytes).data, None, _STALL_SECONDS)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
