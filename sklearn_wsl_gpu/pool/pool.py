"""The slots of one session: leases on them, waiting in order, and giving back.

One side allocates: the client, for what it sends and, ahead of time, for what it will get. The right to
write a span moves with the messages: to the worker with the request that names it, back with the reply. So
there is no shared counter, lock or flag, and nothing that could disagree.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from sklearn_wsl_gpu.arrays import ArrayRef, SpanRef
from sklearn_wsl_gpu.errors import DeadlineExceeded, PoolError, PoolTooSmall
from sklearn_wsl_gpu.pool import ledger, placing
from sklearn_wsl_gpu.pool.allocator import Allocator
from sklearn_wsl_gpu.pool.layout import (
    CLIENT,
    LEDGER_BYTES,
    LEDGER_OFFSET,
    PAGE,
    SPAN_HEADER_BYTES,
    WORKER,
    Geometry,
    check_span_header,
    pack_span_header,
    round_up,
)
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.pool.segment import Segment

#: Results of this size and more are handed out as views on their span.
VIEW_BYTES = 1024 * 1024
#: A waiting caller looks this often for what finalizers gave back without being able to wake it.
_WAIT_SLICE_SECONDS = 0.1


class Lease:
    """The right to use a span until it is released. Releasing twice is harmless."""

    __slots__ = ("_pid", "_pool", "_released", "ref", "size")

    def __init__(self, pool: Pool, ref: SpanRef, size: int) -> None:
        self._pool = pool
        self._released = False
        self._pid = os.getpid()
        self.ref = ref
        self.size = size

    def __repr__(self) -> str:
        state = "released" if self._released else "held"
        return f"<Lease {self.size} bytes, generation {self.ref.generation}, {state}>"

    def __del__(self) -> None:
        # An interrupt may come between the grant and the first line that would release it.
        self.release_later()

    def release(self) -> None:
        """Give the span back; it may be reused at once."""
        if not self._released:
            self._released = True
            self._pool._release_now(self)

    def release_later(self) -> None:
        """Give the span back from a finalizer: never blocks, and does nothing in a forked child."""
        if not self._released and os.getpid() == self._pid:
            self._released = True
            self._pool._release_from_finalizer(self)


class Pool:
    """The memory of one session.

    Parameters
    ----------
    geometry : Geometry
        Slots of its segment.
    directory : str or None
        Directory of a memory file system; None lets the system choose.
    """

    def __init__(self, geometry: Geometry, directory: str | None = None) -> None:
        self.segment = Segment.create(geometry, directory)
        self.geometry = geometry
        self._allocator = Allocator(geometry)
        self._ledger = ledger.Ledger(self.segment.map)
        self._generations = itertools.count(1)
        self._changed = threading.Condition(threading.Lock())
        self._queue: deque[object] = deque()
        self._returned: deque[Lease] = deque()
        self._view_bytes = 0
        self._views: dict[int, int] = {}
        self._closed = False

    def __repr__(self) -> str:
        used, total = self.used_bytes, self.geometry.pool_bytes
        return (
            f"<Pool {self.geometry.slots} slots, {used / 2**20:.1f} of {total / 2**20:.0f} MiB leased, "
            f"{self._view_bytes / 2**20:.1f} MiB of it kept results>"
        )

    @property
    def used_bytes(self) -> int:
        """Bytes under lease."""
        with self._changed:
            self._drain()
            return self.geometry.pool_bytes - self._allocator.free_bytes

    @property
    def view_bytes(self) -> int:
        """Bytes under lease by results that the user keeps."""
        with self._changed:
            self._drain()
            return self._view_bytes

    def slots(self) -> list[ledger.Slot]:
        """Return what each slot is used for."""
        with self._changed:
            self._drain()
            if self._closed:
                return []
            raw = self.segment.map[LEDGER_OFFSET : LEDGER_OFFSET + LEDGER_BYTES]
        return ledger.slots(raw, self.geometry)

    def lease_input(self, nbytes: int, deadline: float | None = None) -> Lease:
        """Lease a span for the arrays of a request, waiting in order of arrival while the pool is full.

        Parameters
        ----------
        nbytes : int
            Size in bytes, header included.
        deadline : float or None
            `time.monotonic` value at which to give up; None waits as long as it takes.

        Raises
        ------
        PoolTooSmall
            At once, if the pool could never hold it.
        PoolSpaceError
            If the memory behind the pool is full.
        DeadlineExceeded
            If the deadline passes first.
        """
        return self._lease(nbytes, self._allocator.allocate_input, ledger.INPUT, deadline)

    def lease_output(self, nbytes: int, deadline: float | None = None) -> Lease:
        """Lease a span for the arrays of a reply; as `lease_input`."""
        return self._lease(nbytes, self._allocator.allocate_output, ledger.OUTPUT, deadline)

    def try_lease_input(self, nbytes: int) -> Lease | None:
        """Lease a span for a request if that needs no waiting."""
        return self._try_lease(nbytes, self._allocator.allocate_input, ledger.INPUT)

    def try_lease_output(self, nbytes: int) -> Lease | None:
        """Lease a span for a reply if that needs no waiting."""
        return self._try_lease(nbytes, self._allocator.allocate_output, ledger.OUTPUT)

    def put(self, lease: Lease, refs: Sequence[ArrayRef], arrays: Sequence[Array]) -> None:
        """Write the arrays of a request, and the span's header last."""
        start = lease.ref.start
        self._check_open()
        placing.write(self.segment.map, start, refs, arrays)
        end = refs[-1].offset + arrays[-1].nbytes if refs else SPAN_HEADER_BYTES
        header = pack_span_header(self.segment.epoch, lease.ref.generation, end - SPAN_HEADER_BYTES, CLIENT)
        self.segment.map[start : start + SPAN_HEADER_BYTES] = header

    def check_reply(self, lease: Lease) -> int:
        """Return the payload bytes of a reply that the worker wrote for this very lease.

        Raises
        ------
        StaleReference
            If the span holds anything else.
        """
        start = lease.ref.start
        self._check_open()
        raw = self.segment.map[start : start + SPAN_HEADER_BYTES]
        limit = lease.size - SPAN_HEADER_BYTES
        return check_span_header(raw, self.segment.epoch, lease.ref.generation, limit, WORKER)

    def window(self, lease: Lease) -> Array:
        """Return the bytes of a leased span as an array: what `keep` watches, and what results are views of."""
        self._check_open()
        # Not np.ndarray(buffer=…), which lets the mapping be closed beneath it.
        return np.frombuffer(self.segment.map, np.uint8, lease.size, lease.ref.start)

    def keep(self, lease: Lease, window: Array, nbytes: int) -> bool:
        """Let the user keep views of `window`, if the pool has room to spare.

        Kept results take at most half of the output slots, and never other slots: so every request that fits
        in an empty pool still finds its place, however much is kept.

        Parameters
        ----------
        lease : Lease
            Of the span.
        window : ndarray of uint8
            From `window`; the lease lives as long as it, or any view of it, does.
        nbytes : int
            Bytes of the span that are needed; what lies beyond goes back to the pool.

        Returns
        -------
        kept : bool
            False if the caller must copy, and release the lease.
        """
        low, high = self.geometry.output_range
        with self._changed:
            self._drain()
            if lease.ref.start < low or self._view_bytes + round_up(nbytes, PAGE) > (high - low) // 2:
                return False
            lease.size = self._allocator.shrink(lease.ref.start, nbytes)
            self._view_bytes += lease.size
            self._views[lease.ref.start] = lease.size
            self._ledger.note(lease.ref.start, lease.size, ledger.KEPT)
            self._changed.notify_all()
        finalizer = weakref.finalize(window, lease.release_later)
        finalizer.atexit = False
        return True

    def pin_kept(self) -> None:
        """Never reuse what is kept now: a forked child may hold the same views."""
        with self._changed:
            self._drain()
            for start in self._views:
                self._views[start] = 0

    def close(self) -> None:
        """Wake all who wait with an error, and drop the memory; kept results stay valid."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.segment.close()

    def _check_open(self) -> None:
        if self._closed:
            raise PoolError("The session was closed while a call was under way.")

    def _try_lease(self, nbytes: int, allocate: Callable[[int], tuple[int, int] | None], use: int) -> Lease | None:
        if not self._allocator.fits_ever(nbytes):
            return None
        with self._changed:
            self._drain()
            found = None if self._queue or self._closed else allocate(nbytes)
        return None if found is None else self._grant(*found, use)

    def _lease(
        self, nbytes: int, allocate: Callable[[int], tuple[int, int] | None], use: int, deadline: float | None
    ) -> Lease:
        if not self._allocator.fits_ever(nbytes):
            largest = self.geometry.largest_span
            raise PoolTooSmall(
                f"The arrays of this call take {nbytes / 1e6:.0f} MB, and the pool holds at most "
                f"{largest / 1e6:.0f} MB at a time (its input and scratch slots). Enlarge it with "
                "offload(slots=…) or offload(slot_bytes=…), or SKLEARN_WSL_GPU_SLOTS / "
                "SKLEARN_WSL_GPU_SLOT_BYTES."
            )
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                found = self._wait_for_turn(ticket, nbytes, allocate, deadline)
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
        return self._grant(*found, use)

    def _wait_for_turn(
        self,
        ticket: object,
        nbytes: int,
        allocate: Callable[[int], tuple[int, int] | None],
        deadline: float | None,
    ) -> tuple[int, int]:
        while True:
            if self._closed:
                raise PoolError("The session was closed while a call waited for room in its pool.")
            self._drain()
            if self._queue[0] is ticket and (found := allocate(nbytes)) is not None:
                return found
            wait = _WAIT_SLICE_SECONDS
            if deadline is not None:
                wait = min(wait, deadline - time.monotonic())
                if wait <= 0:
                    raise DeadlineExceeded(
                        f"The pool had no room for {nbytes / 1e6:.0f} MB before the call's deadline. Raise "
                        "timeout, enlarge the pool (slots, slot_bytes), or run fewer calls at once."
                    )
            self._changed.wait(wait)

    def _grant(self, start: int, size: int, use: int) -> Lease:
        try:
            self.segment.reserve(start, size)
            with self._changed:
                if not self._closed:
                    self._ledger.note(start, size, use)
        except BaseException:
            with self._changed:
                self._allocator.release(start)
                self._changed.notify_all()
            raise
        return Lease(self, SpanRef(0, start, size, next(self._generations)), size)

    def _release_now(self, lease: Lease) -> None:
        with self._changed:
            self._drain()
            self._free(lease)
            self._changed.notify_all()

    def _release_from_finalizer(self, lease: Lease) -> None:
        # The garbage collector may run while this very thread holds the lock: queue, and only try.
        self._returned.append(lease)
        if self._changed.acquire(blocking=False):
            try:
                self._drain()
                self._changed.notify_all()
            finally:
                self._changed.release()

    def _drain(self) -> None:
        while self._returned:
            self._free(self._returned.popleft())

    def _free(self, lease: Lease) -> None:
        start = lease.ref.start
        kept = self._views.get(start)
        if kept == 0:
            return  # pinned: a forked child may still read it
        if kept is not None:
            del self._views[start]
            self._view_bytes -= kept
        self._allocator.release(start)
        if not self._closed:
            self._ledger.strike(start)
