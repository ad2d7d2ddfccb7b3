"""The worker's end of streams: ports, and a thread for each connection, which moves spans in and out of the pools.

The front's own thread opens and closes accounts here, one for each session that has a stream, and asks that a request
brings nothing there any more. What a client asks for is looked at as if it were forged.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable
from functools import partial

from sklearn_wsl_gpu.carriers import frames, sockets
from sklearn_wsl_gpu.carriers.base import BACK, CarrierFailed, Damaged
from sklearn_wsl_gpu.carriers.checksum import CHECKSUM_BYTES, Checksum
from sklearn_wsl_gpu.carriers.frames import Head
from sklearn_wsl_gpu.errors import OffloadError, PoolError, WorkerUnavailable
from sklearn_wsl_gpu.pool import Segment
from sklearn_wsl_gpu.pool.layout import CLIENT, DATA_OFFSET, PAGE, SPAN_HEADER_BYTES, WORKER
from sklearn_wsl_gpu.pool.memory import step_back
from sklearn_wsl_gpu.pool.prefault import prefault
from wsl_worker import listening
from wsl_worker.account import Account
from wsl_worker.arrivals import Arrival

_GREETING_SECONDS = 3.0
_MAX_STRANGERS = 64
_MAX_TO_WARM = 64
_STALL_SECONDS = 10.0
#: A connection that is told to end does so in the middle of a system call.
_SETTLE_SECONDS = 0.5
#: Memory is reserved in such parts while bytes come, and what has come is told of: nobody waits long for either.
_BLOCK_BYTES = 8 * 1024 * 1024
#: After an error that another attempt would meet at once, such as too many descriptors.
_PAUSE_SECONDS = 0.05


class Bulk:
    """Ports for streams, open from `listen` on, or as soon as there is an account that has any.

    Parameters
    ----------
    host : str
        Address to listen at.
    port : int
        TCP port there; 0 for a free one.
    vsock : bool
        Whether to listen at AF_VSOCK too, which is the fastest way from Windows to WSL2.
    """

    def __init__(self, host: str, port: int = 0, *, vsock: bool = False) -> None:
        self._host = host
        self._port = port
        self._vsock = vsock
        self._accounts: dict[int, Account] = {}
        self._listeners: list[socket.socket] = []
        self._threads: set[threading.Thread] = set()
        self._strangers = threading.Semaphore(_MAX_STRANGERS)
        self._stop = -1
        self._to_warm: queue.Queue[tuple[Segment, int, int] | None] | None = None
        self._warming: threading.Thread | None = None
        self._closing = threading.Event()
        self.routes: list[list[object]] = []

    @property
    def port(self) -> int:
        """The TCP port, once it is open."""
        return int(self._listeners[0].getsockname()[1])

    def open(self, session: int, streams: bool, tell: Callable[[Arrival], None] = lambda arrival: None) -> Account:
        """Open an account for a session, and the ports if it may have streams.

        Parameters
        ----------
        session : int
        streams : bool
        tell : callable
            See `Arrivals`.

        Raises
        ------
        WorkerUnavailable
            If there can be no port.
        """
        if streams and not self._listeners:
            try:
                self.listen()
            except OSError as error:
                words = f"The worker cannot open a port for arrays on {self._host}: {error.strerror or error}."
                raise WorkerUnavailable(words, "no-carrier") from error
        account = self._accounts[session] = Account(tell)
        return account

    def account(self, session: int) -> Account | None:
        """Return the account of a session, if it has one."""
        return self._accounts.get(session)

    def close_account(self, session: int) -> None:
        """Close a session's account, if it has one."""
        account = self._accounts.pop(session, None)
        if account is not None:
            # In a thread: connections need a moment to end, and to give much memory back takes long.
            try:
                self._start(account.close)
            except RuntimeError:  # there are too many
                account.close()

    def warm(self, segment: Segment, start: int, nbytes: int) -> None:
        """Make pages of a run ready for this process, in the background; what is no run of the segment is left out."""
        if start % PAGE or not DATA_OFFSET <= start < start + nbytes <= segment.geometry.file_bytes:
            return
        runs = self._to_warm or queue.Queue(_MAX_TO_WARM)
        with contextlib.suppress(queue.Full, RuntimeError):  # it is a favour; there may be too many threads
            runs.put_nowait((segment, start, nbytes))
            if self._to_warm is None:
                self._warming = self._start(partial(_warm_all, runs, self._closing))
                self._to_warm = runs

    def listen(self) -> None:
        """Open the ports; may raise `OSError`."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        # As ZeroMQ does: at [::] IPv4 is served, too.
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        with contextlib.ExitStack() as otherwise:
            listener = otherwise.enter_context(
                socket.create_server(
                    (self._host, self._port), family=family, backlog=_MAX_STRANGERS, dualstack_ipv6=both
                )
            )
            listeners, routes = [listener], [["tcp", "", int(listener.getsockname()[1])]]
            if self._vsock:
                listeners.append(otherwise.enter_context(socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)))
                routes += _listen_at_vsock(listeners[1])
            stop = os.eventfd(0)
            otherwise.callback(os.close, stop)
            selector = otherwise.enter_context(selectors.DefaultSelector())
            selector.register(stop, selectors.EVENT_READ)
            for one in listeners:
                one.setblocking(False)
                selector.register(one, selectors.EVENT_READ)
            self._listeners, self._stop = listeners, stop
            try:
                self._start(partial(self._accept, selector))
            except RuntimeError as error:
                self._listeners, self._stop = [], -1
                raise OSError(f"no thread for it can be started ({error})") from error
            otherwise.pop_all()
            self.routes += routes

    def close(self) -> None:
        """Close all accounts and ports."""
        self._closing.set()
        if self._to_warm is not None:
            with contextlib.suppress(queue.Full):
                self._to_warm.put_nowait(None)
        if self._warming is not None:
            self._warming.join(_SETTLE_SECONDS)
        if self._stop >= 0:
            os.eventfd_write(self._stop, 1)
        for session in list(self._accounts):
            self.close_account(session)
        for thread in list(self._threads):
            thread.join(_SETTLE_SECONDS)
        for listener in self._listeners:
            listener.close()
        if self._stop >= 0:
            os.close(self._stop)
            self._stop = -1

    def _start(self, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            finally:
                self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name="wsl_worker bulk", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except BaseException:
            self._threads.discard(thread)
            raise
        return thread

    def _accept(self, selector: selectors.BaseSelector) -> None:
        with selector:
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._stop in ready:
                    return
                for listener in self._listeners:
                    if listener in ready:
                        self._let_in(listener)

    def _let_in(self, listener: socket.socket) -> None:
        try:
            end, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError:  # whoever it was is gone, or there are too many descriptors
            time.sleep(_PAUSE_SECONDS)
            return
        if not self._strangers.acquire(blocking=False):
            end.close()
            return
        try:
            self._start(partial(self._serve, end))
        except RuntimeError:  # there are too many threads
            self._strangers.release()
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
                    _move(end, account)
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


def _listen_at_vsock(listener: socket.socket) -> list[list[object]]:
    """Return the routes to it."""
    listener.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
    listener.listen(_MAX_STRANGERS)
    port = listener.getsockname()[1]
    machine = listening.vm_id()
    found: list[list[object]] = [["hyperv", machine, port]] if machine else []
    return [*found, ["vsock", str(listening.local_cid()), port]]


def _warm_all(runs: queue.Queue[tuple[Segment, int, int] | None], closing: threading.Event) -> None:
    step_back()
    while (run := runs.get()) is not None and not closing.is_set():
        segment, start, nbytes = run
        with contextlib.suppress(OffloadError, OSError):
            if segment.reserve_behind(start, nbytes, closing):
                prefault(segment, start, nbytes, closing)
        del run, segment  # a session that ends takes its memory along


def _move(end: socket.socket, account: Account) -> None:
    end.settimeout(None)  # it may stand idle for hours
    raw = sockets.receive(end, frames.HEAD_BYTES, None, None)
    end.settimeout(sockets.SLICE_SECONDS)
    head = frames.unpack_head(raw)
    if head.way == BACK:
        _give(end, account, head)
    else:
        _take(end, account, head)


def _take(end: socket.socket, account: Account, head: Head) -> None:
    header = sockets.receive(end, SPAN_HEADER_BYTES, None, _STALL_SECONDS)
    at, last, words = head.offset, head.offset + head.nbytes, ""
    checksum = Checksum(head.is_thorough)
    try:
        with account.writing(end, head.request):
            segment = _segment(account, head)
            if head.offset < SPAN_HEADER_BYTES:
                raise PoolError("A transfer would write over the header of its span.")
            while at < last:
                count = min(_BLOCK_BYTES, last - at)
                segment.reserve(head.ref.start + at, count)
                window = segment.window(head.ref.start + at, count).data
                sockets.receive_into(end, window, None, _STALL_SECONDS, checksum)
                account.arrivals.note(head.request, head.ref, at, at + count)
                at += count
            told = sockets.receive(end, CHECKSUM_BYTES, None, _STALL_SECONDS)
            at += CHECKSUM_BYTES
            if told != checksum.digest():
                raise Damaged("Other bytes have come over the connection of the bulk data than the client has sent.")
            # Last: what is torn is never taken for whole.
            segment.reserve(head.ref.start, SPAN_HEADER_BYTES)
            segment.window(head.ref.start, SPAN_HEADER_BYTES).data[:] = header
    except Damaged as error:
        sockets.send(end, frames.pack_answer(frames.DAMAGED, str(error)), None, _STALL_SECONDS)
        raise
    except CarrierFailed:
        raise
    except OffloadError as error:
        words, last = str(error), last + CHECKSUM_BYTES
    while at < last:  # it comes in any case, and has to be out of the way of the answer
        at += len(sockets.receive(end, min(sockets.CHUNK_BYTES, last - at), None, _STALL_SECONDS))
    sockets.send(end, frames.pack_answer(frames.REFUSED if words else frames.DONE, words), None, _STALL_SECONDS)


def _give(end: socket.socket, account: Account, head: Head) -> None:
    span = head.ref
    try:
        segment = _segment(account, head)
        segment.check(span.start, span.generation, span.nbytes, CLIENT, WORKER)
        window = segment.window(span.start, head.nbytes)
    except OffloadError as error:
        sockets.send(end, frames.pack_answer(frames.REFUSED, str(error)), None, _STALL_SECONDS)
        return
    checksum = Checksum(head.is_thorough)
    sockets.send(end, frames.pack_answer(), None, _STALL_SECONDS)
    sockets.send(end, window.data, None, _STALL_SECONDS, checksum)
    sockets.send(end, checksum.digest(), None, _STALL_SECONDS)


def _segment(account: Account, head: Head) -> Segment:
    segment, span = account.segments.get(head.ref.segment), head.ref
    if segment is None:
        raise PoolError("A transfer names a segment that the session's pool does not have.")
    inside = span.start >= DATA_OFFSET and span.start + span.nbytes <= segment.geometry.file_bytes
    if not inside or span.start % PAGE or span.nbytes < SPAN_HEADER_BYTES or head.offset + head.nbytes > span.nbytes:
        raise PoolError("A transfer names bytes outside of its span.")
    return segment
