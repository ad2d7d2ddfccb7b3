"""Room for the calls of a session: leases, segments that are added and given back, and pages made ready ahead.

Whatever it does by itself it does in a thread of its own.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue

import numpy as np

from sklearn_wsl_gpu.carriers.base import Ask
from sklearn_wsl_gpu.carriers.moving import Moving
from sklearn_wsl_gpu.errors import DEADLINE_PASSED, DeadlineExceeded, OffloadError, PoolError, ProtocolError
from sklearn_wsl_gpu.pool import Geometry, Lease, Pool, memory, numa, placing, prefault, thresholds
from sklearn_wsl_gpu.protocol import messages as m
from sklearn_wsl_gpu.waiting import Caller

#: A pool that was not used for so long gives its memory back, but for what is made ready at the start.
IDLE_SECONDS = 60.0
#: With so many bytes it is measured what a byte in a message costs.
_BALLAST_BYTES = 256 * 1024
#: The front answers what is asked here at once. Who closes a session, or needs room too, does not wait longer for it.
_ANSWER_SECONDS = 3.0
_REFUSED_SECONDS = 5.0


class Room:
    """Finds room in a pool, and makes some.

    Parameters
    ----------
    pool : Pool
    moving : Moving
        The ways to the worker's side of it.
    session : bytes
        The session's token.
    ask : Ask
    ready_bytes : int
        Bytes of the input slots, and of the output slots, whose pages are made ready at the start.
    node : int
        NUMA node that reads the input slots, or -1.
    """

    def __init__(
        self, pool: Pool, moving: Moving, session: bytes, ask: Ask, ready_bytes: int, node: int = numa.UNKNOWN
    ) -> None:
        self.pool = pool
        self._moving = moving
        self._session = session
        self._ask = ask
        self._ready_bytes = ready_bytes
        self._node = node
        self._growing = threading.Lock()
        #: Numbers of segments that a worker may have attached and nobody uses.
        self._unsure: list[int] = []
        #: Until when the worker, which has refused one, is not asked to take another segment.
        self._refused_until = 0.0
        #: Leases that there had been when the worker's own memory was given back.
        self._trimmed = -1
        self._stop = threading.Event()
        self._wishes: SimpleQueue[int] = SimpleQueue()
        #: Set when the pages that are made ready at the start are so on both sides, or cannot be.
        self.ready = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="sklearn_wsl_gpu room", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # there are too many threads, or the interpreter is ending: nothing is made ready
            self.ready.set()

    def lease_input(self, nbytes: int, deadline: float | None, caller: Caller) -> Lease:
        """Lease a span for a request: at once, or in a new segment, or else in turn; see `Pool.lease_input`."""
        attempt = partial(self.pool.try_lease_input, nbytes, caller)
        return self._find(nbytes, attempt, deadline) or self.pool.lease_input(nbytes, deadline, caller)

    def lease_output(self, nbytes: int, deadline: float | None, caller: Caller) -> Lease:
        """Lease a span for a reply whose size is known; as `lease_input`."""
        return self.lease_kept(nbytes, deadline, caller) or self.pool.lease_output(nbytes, deadline, caller)

    def lease_kept(self, nbytes: int, deadline: float | None, caller: Caller) -> Lease | None:
        """Lease a span that the user may keep; None where there is none, and none can be made."""
        return self._find(nbytes, partial(self.pool.try_lease_kept, nbytes, caller), deadline)

    def try_lease_output(self, nbytes: int, caller: Caller) -> Lease | None:
        """Lease a span for a reply whose size is guessed, if that needs nothing."""
        return self.pool.try_lease_kept(nbytes, caller) or self.pool.try_lease_output(nbytes, caller)

    def grow(self, nbytes: int, deadline: float | None = None) -> bool:
        """Add a segment for a span of `nbytes`; tell whether the pool's limit, the memory and the worker allow it."""
        with self._growing:
            return self._grow(nbytes, deadline)

    def shrink(self) -> int:
        """Give all memory back in which nothing lies, but for what is made ready at the start.

        Returns
        -------
        nbytes : int
            How much that was.
        """
        with contextlib.suppress(OffloadError):
            self.pool.meanwhile(time.monotonic() + _ANSWER_SECONDS)  # what was given up may be over
        with self._growing:
            dropped = self.pool.drop_idle()
            given = 0
            for segment in dropped.values():
                given += segment.geometry.pool_bytes
                segment.close()
            self._unsure += dropped
            self._forget_there()
            return given + self.pool.trim(self._ready_bytes)

    def wish(self, nbytes: int) -> None:
        """Grow by so many bytes, or shrink if they are negative, soon and in the background."""
        self._wishes.put(nbytes)

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._wishes.put(0)
        if threading.current_thread() is not self._thread and self._thread.is_alive():
            self._thread.join()

    def _tell(self, message: m.Message, deadline: float | None = None, body: bytes = b"") -> m.Message:
        patience = time.monotonic() + _ANSWER_SECONDS
        return self._ask(message, patience if deadline is None else min(deadline, patience), body)

    def _forget_there(self) -> None:
        """Have the worker forget segments that are gone here, and trim what it has for the others."""
        try:
            while self._unsure and not self._stop.is_set():
                self._tell(m.Detach(self._session, self._unsure[-1]))
                del self._unsure[-1]
        except OffloadError:
            return  # it is not asked again and again: that is done the next time
        if not self._stop.is_set():
            self._trim_there()

    def _trim_there(self) -> None:
        leases = self.pool.counters.leases
        # What the worker has as its own it cannot trim by itself: only here it is known what is leased.
        if self._moving.is_shared or self._trimmed == leases or not self.pool.rest(True):
            return
        try:
            with contextlib.suppress(OffloadError):
                if isinstance(self._tell(m.Detach(self._session, 0)), m.Done):
                    self._trimmed = leases
                    for start, nbytes in prefault.first_runs(self.pool.segment.geometry, self._ready_bytes):
                        self._tell(m.Warm(self._session, 0, start, nbytes))
        finally:
            self.pool.rest(False)

    def _find(self, nbytes: int, attempt: Callable[[], Lease | None], deadline: float | None) -> Lease | None:
        found = attempt()
        if found is not None:
            return found
        left = threading.TIMEOUT_MAX if deadline is None else max(deadline - time.monotonic(), 0)
        if not self._growing.acquire(timeout=min(left, threading.TIMEOUT_MAX)):
            raise DeadlineExceeded(DEADLINE_PASSED)
        try:
            # Somebody else may have made room meanwhile.
            found = attempt()
            if found is None and self._grow(nbytes, deadline):
                found = attempt()
            return found
        finally:
            self._growing.release()

    def _grow(self, nbytes: int, deadline: float | None) -> bool:
        if time.monotonic() < self._refused_until:
            return False
        try:
            prepared = self.pool.prepare(nbytes)
        except (OffloadError, OSError):  # whatever is in the way: calls wait for room, or say what cannot be
            return False
        if prepared is None:
            return False
        number, segment = prepared
        try:
            offer = self._moving.offer(number, segment)
            answer = self._tell(m.Attach(self._session, number, offer), deadline)
            if isinstance(answer, m.Refused):
                self._refused_until = time.monotonic() + _REFUSED_SECONDS
                segment.close()
                return False
            if not isinstance(answer, m.Attached) or answer.segment != number:
                raise ProtocolError("The worker did not attach a segment that was added to the pool.")
            self._moving.admit(number, segment, answer.carriers)
        except BaseException as error:
            segment.close()
            self._unsure.append(number)  # its answer may have been lost, and the worker hold it
            if isinstance(error, OffloadError):
                return False  # without it calls wait for room, or say what cannot be
            raise
        self.pool.admit(number, segment)
        return True

    def _keep(self) -> None:
        try:
            with contextlib.suppress(OffloadError, OSError):
                self.pool.thresholds = thresholds.decide(self._measure())
            # In a thread of its own: one that has stepped back must not hold the interpreter's lock for long.
            thread = threading.Thread(target=self._make_ready, daemon=True)
            with contextlib.suppress(RuntimeError):  # as above
                thread.start()
                thread.join()
        finally:
            self.ready.set()
        granted = -1
        while not self._stop.is_set():
            try:
                wish = self._wishes.get(timeout=IDLE_SECONDS)
            except Empty:
                wish = -1 if granted == self.pool.counters.leases else 0
                granted = self.pool.counters.leases
            with contextlib.suppress(OffloadError, OSError):
                if wish > 0:
                    self.grow(wish)
                elif wish:
                    self.shrink()

    def _measure(self) -> thresholds.Costs:
        # Not in the session's own pool, which may be full.
        with contextlib.closing(Pool(Geometry(64 * 1024, 1, 1, 0))) as pool:
            return self._measure_in(pool)

    def _measure_in(self, pool: Pool) -> thresholds.Costs:
        message = m.Wait(self._session, 0)
        small, large = np.zeros(4096, np.uint8), np.zeros(_BALLAST_BYTES, np.uint8)
        refs, nbytes = placing.plan([small])

        def seconds_of(run: Callable[[], object]) -> float:
            def unless_stopped() -> None:
                if self._stop.is_set():
                    raise PoolError("The session is closed.")
                run()

            return thresholds.seconds_of(unless_stopped)

        def place() -> None:
            lease = pool.lease_input(nbytes)
            pool.put(lease, refs, [small])
            placing.view(pool.window(lease).data, 0, refs[0])
            lease.release()

        def refer() -> None:
            lease = pool.lease_output(nbytes)
            window = pool.window(lease)
            if not pool.keep(lease, window, nbytes):
                lease.release()

        ballast = large.tobytes()
        asking = seconds_of(lambda: self._tell(message))
        with_ballast = seconds_of(lambda: self._tell(message, body=ballast))
        return thresholds.Costs(
            2 * (seconds_of(place) + self._moving.least_seconds),
            max(with_ballast - asking, 0.0) / _BALLAST_BYTES,
            seconds_of(refer),
            seconds_of(large.copy) / _BALLAST_BYTES,
        )

    def _make_ready(self) -> None:
        memory.step_back()
        segment = self.pool.segment
        for start, nbytes in prefault.first_runs(segment.geometry, self._ready_bytes):
            # Reserving gives a page its place, so that is done from there too.
            if self._stop.is_set():
                return
            is_input = start == segment.geometry.input_range[0]
            with contextlib.suppress(OffloadError, OSError), numa.near(self._node if is_input else numa.UNKNOWN):
                if not is_input or self.pool.reserves_inputs:
                    is_done = segment.reserve_behind(start, nbytes, self._stop)
                    if not is_done or not prefault.prefault(segment, start, nbytes, self._stop):
                        continue
                self._tell(m.Warm(self._session, 0, start, nbytes))
