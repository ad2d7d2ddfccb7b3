"""Work that may hang in the system, done beside the front's thread, which hears what came of it.

A lane does one errand at a time, in a thread of its own. An errand that takes too long is given up: who waits for it is
told, and the lane takes no other one. Its thread may hang for ever; what it does after that has to be harmless.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from sklearn_wsl_gpu.carriers.file import IO_FAILED, STALLED
from sklearn_wsl_gpu.errors import OffloadError, PoolError, ProtocolError
from sklearn_wsl_gpu.protocol import messages as m

#: A client takes a worker that is silent for longer than 1.8 s for dead.
PATIENCE_SECONDS = 1.0
_MAX_WAITING = 64
_STALLED = f"The worker has waited for the pool's file for {PATIENCE_SECONDS:.0f} s; it is not used any more."

Answer = Callable[[m.Message], None]


class Errand:
    """One piece of work.

    Attributes
    ----------
    request : int
        For which it is done.
    writes : bool
        Whether it writes to what is the client's; then nothing can be done about it until it has ended.
    is_over : bool
        Whether it was answered.
    """

    __slots__ = ("answer", "is_over", "request", "since", "work", "writes")

    def __init__(self, work: Callable[[Errand], m.Message], answer: Answer, request: int, writes: bool) -> None:
        self.work = work
        self.answer = answer
        self.request = request
        self.writes = writes
        self.since = time.monotonic()
        self.is_over = False


class Lane:
    """A thread for the errands of one client.

    Parameters
    ----------
    tell : callable
        Has an answer given by the front's thread.
    """

    def __init__(self, tell: Callable[[Answer, m.Message], None]) -> None:
        self._tell = tell
        self._changed = threading.Condition()
        self._waiting: deque[Errand] = deque()
        self._running: Errand | None = None
        self._thread: threading.Thread | None = None
        self._last: Callable[[], None] | None = None
        self._stalled = False

    def submit(self, errand: Errand) -> None:
        """Have something done.

        Raises
        ------
        OffloadError
            If the lane takes nothing more.
        """
        with self._changed:
            if self._stalled:
                raise OffloadError(_STALLED)  # of this one it is certain that it is not done
            if len(self._waiting) >= _MAX_WAITING or self._last is not None:
                raise ProtocolError("The worker does not take any more work on this session's files now.", "busy")
            self._waiting.append(errand)
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="wsl_worker files", daemon=True)
                self._thread.start()

    @contextlib.contextmanager
    def landing(self, errand: Errand) -> Iterator[None]:
        """Do what must not be done once an errand was given up.

        Raises
        ------
        PoolError
            If it was.
        """
        with self._changed:
            if errand.is_over or self._last is not None:
                raise PoolError("The errand was given up.")
            yield

    def is_writing_for(self, request: int) -> bool:
        """Tell whether something is written for a request, or may still be."""
        with self._changed:
            running = self._running
            waiting = any(errand.writes and errand.request == request for errand in self._waiting)
            return waiting or (running is not None and running.writes and running.request == request)

    def give_up(self, before: float) -> None:
        """Give up all errands, if one has come before this time and is not done."""
        with self._changed:
            errands = [*([] if self._running is None else [self._running]), *self._waiting]
            if not any(errand.since < before and not errand.is_over for errand in errands):
                return
            self._stalled = True
            self._waiting.clear()
            for errand in errands:
                if not errand.is_over:
                    errand.is_over = True
                    self._tell(errand.answer, m.Refused(STALLED, _STALLED))

    def end(self, last: Callable[[], None]) -> None:
        """Take nothing more; do something last, in the thread, whenever that comes back."""
        with self._changed:
            self._waiting.clear()
            self._last = last
            self._changed.notify()
            if self._thread is not None:
                return
        last()

    def _run(self) -> None:
        while (errand := self._next()) is not None:
            try:
                message = errand.work(errand)
            except OffloadError as error:
                message = m.Refused(error.code, str(error))
            except OSError as error:
                message = m.Refused(
                    IO_FAILED, f"The pool's file gives an error in the worker: {error.strerror or error}."
                )
            with self._changed:
                self._running = None
                if not errand.is_over:
                    errand.is_over = True
                    self._tell(errand.answer, message)
        assert self._last is not None
        self._last()

    def _next(self) -> Errand | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._last is not None)
            self._running = self._waiting.popleft() if self._waiting and self._last is None else None
            return self._running


class Background:
    """All lanes, and the way back into the front's thread.

    Attributes
    ----------
    descriptor : int
        Readable when there is something to collect.
    """

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._todo: deque[Callable[[], None]] = deque()
        self._lanes: list[Lane] = []
        self._lock = threading.Lock()

    def lane(self) -> Lane:
        """Return a new lane."""
        lane = Lane(self._tell)
        self._lanes.append(lane)
        return lane

    def end(self, lane: Lane, last: Callable[[], None]) -> None:
        """End a lane; see `Lane.end`."""
        self._lanes.remove(lane)
        lane.end(last)

    def collect(self) -> None:
        """Do what there is to do in this thread, such as to give answers."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)
        while self._todo:
            self._todo.popleft()()

    def tick(self, now: float) -> None:
        """Give up what takes too long."""
        for lane in self._lanes:
            lane.give_up(now - PATIENCE_SECONDS)

    def close(self) -> None:
        """Answer nothing any more."""
        with self._lock:
            os.close(self.descriptor)
            self.descriptor = -1

    def post(self, work: Callable[[], None]) -> None:
        """Have something done by who collects, after all that was posted before."""
        with self._lock:
            if self.descriptor >= 0:
                self._todo.append(work)
                os.eventfd_write(self.descriptor, 1)

    def _tell(self, answer: Answer, message: m.Message) -> None:
        self.post(partial(answer, message))
