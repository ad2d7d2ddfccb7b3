"""What is known of the streams of one session: its key, its memory, its connections, and the requests that are over."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

from sklearn_wsl_gpu.carriers import frames, sockets
from sklearn_wsl_gpu.errors import PoolError
from sklearn_wsl_gpu.pool import Segment
from wsl_worker.arrivals import Arrival, Arrivals

_MAX_ENDS = 256
#: A connection that is told to end does so in the middle of a system call.
_SETTLE_SECONDS = 0.5
_REMEMBERED_REQUESTS = 4096


class Account:
    """What the threads know of one session.

    Parameters
    ----------
    tell : callable
        See `Arrivals`.

    Attributes
    ----------
    key : bytes
        What its connections have to prove that they know.
    segments : dict of int to Segment
        The worker's own memory of its pool, by number.
    alone_since : float
        Since when, by `time.monotonic`, it has had no connection; infinity while it has one.
    arrivals : Arrivals
    """

    def __init__(self, tell: Callable[[Arrival], None] = lambda arrival: None) -> None:
        self.key = os.urandom(frames.KEY_BYTES)
        self.segments: dict[int, Segment] = {}
        self.alone_since = time.monotonic()
        self.arrivals = Arrivals(tell)
        self._changed = threading.Condition()
        self._writing: dict[socket.socket, int] = {}
        self._ends: set[socket.socket] = set()
        #: Requests that were called or cancelled, and whether they were cancelled; the oldest first.
        self._ended: dict[int, bool] = {}
        self._closed = False

    def add(self, end: socket.socket) -> bool:
        """Take a connection that has proved to be the session's; tell whether there may be another one."""
        with self._changed:
            if self._closed or len(self._ends) >= _MAX_ENDS:
                return False
            self._ends.add(end)
            self.alone_since = float("inf")
            return True

    def drop(self, end: socket.socket) -> None:
        """Forget a connection."""
        with self._changed:
            self._ends.discard(end)
            if not self._ends:
                self.alone_since = time.monotonic()
                self._changed.notify_all()

    @contextlib.contextmanager
    def writing(self, end: socket.socket, request: int) -> Iterator[None]:
        """Write what comes over a connection for a request.

        Raises
        ------
        PoolError
            If nothing is brought there for it any more.
        """
        with self._changed:
            if not self.takes(request):
                raise PoolError("The request was called or cancelled before its arrays came.")
            self._writing[end] = request
        try:
            yield
        except BaseException:
            self.arrivals.forget(request)
            raise
        finally:
            with self._changed:
                del self._writing[end]
                self._changed.notify_all()

    def is_over(self, request: int) -> bool:
        """Tell whether nothing may be moved for a request any more."""
        return self._closed or self._ended.get(request, False)

    def takes(self, request: int) -> bool:
        """Tell whether something may be brought there for a request still."""
        return not self._closed and request not in self._ended

    def call(self, request: int) -> bool:
        """Let nothing be brought there for a request any more; tell whether that is certain by now.

        A connection that the client has given up may still hold bytes that nobody has read. They must not come to lie
        in a span that is used by an engine, or for another request, by then.
        """
        return self._end(request, cancelled=False)

    def cancel(self, request: int) -> bool:
        """Let nothing be moved for a request any more; tell whether that is certain by now."""
        return self._end(request, cancelled=True)

    def _end(self, request: int, cancelled: bool) -> bool:
        if cancelled:
            self.arrivals.forget(request)
        with self._changed:
            self._ended[request] = cancelled or self._ended.get(request, False)
            if len(self._ended) > _REMEMBERED_REQUESTS:
                del self._ended[next(iter(self._ended))]
            for end, number in self._writing.items():
                if number == request:
                    sockets.shut(end)
            return self._changed.wait_for(lambda: request not in self._writing.values(), _SETTLE_SECONDS)

    def close(self) -> None:
        """End its connections, and let go of the memory."""
        with self._changed:
            self._closed = True
            for end in self._ends:
                sockets.shut(end)
            self._changed.wait_for(lambda: not self._ends, _SETTLE_SECONDS)
        for segment in self.segments.values():
            segment.close()
