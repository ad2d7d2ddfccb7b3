"""The slots of one session: leases on them, waiting in order, and giving back.

One side allocates: the client, for what it sends and, ahead of time, for what it will get. The right to
write a span moves with the messages: to the worker with the request that names it, back with the reply. So
there is no shared counter, lock or flag, and nothing that could disagree.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from sklearn_wsl_gpu.arrays import ArrayRef, SpanRef
from sklearn_wsl_gpu.errors import PoolError
from sklearn_wsl_gpu.pool import ledger, placing
from sklearn_wsl_gpu.pool.copying import Copier
from sklearn_wsl_gpu.pool.counters import Counters
from sklearn_wsl_gpu.pool.heirs import Heirs
from sklearn_wsl_gpu.pool.layout import CLIENT, LEDGER_BYTES, LEDGER_OFFSET, SPAN_HEADER_BYTES, WORKER, Geometry
from sklearn_wsl_gpu.pool.lease import Lease, all_kept, no_room, too_small
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.pool.region import Region, Regions
from sklearn_wsl_gpu.pool.segment import Segment
from sklearn_wsl_gpu.pool.thresholds import Thresholds
from sklearn_wsl_gpu.waiting import Caller, Queue

#: A waiting caller looks this often for what finalizers gave back without being able to wake it.
_WAIT_SLICE_SECONDS = 0.1
_ANYBODY = Caller()


def _do_nothing(deadline: float | None) -> None: ...


class Pool:
    """The memory of one session: a segment from the beginning, and others that are added when it does not suffice.

    Parameters
    ----------
    geometry : Geometry
        Slots of its first segment.
    directory : str or None
        Directory of a memory file system; None lets the system choose.
    limit : int
        Bytes that all segments may take together; segments are added up to there.
    why : str
        Why its slots are as they are, for people.
    named : bool
        Whether its memory is that of files which another kernel can open.
    """

    def __init__(
        self, geometry: Geometry, directory: str | None = None, limit: int = 0, why: str = "", named: bool = False
    ) -> None:
        self.geometry = geometry
        self.why = why
        self._create = partial(Segment.create, directory=directory, named=named)
        self.limit = max(limit, geometry.pool_bytes)
        segment = self._create(geometry, note=why)
        self.counters = Counters(segment.map)
        self._regions = Regions({0: Region(0, segment, self.counters)})
        self._numbers = itertools.count(1)
        self._generations = itertools.count(1)
        self._changed = threading.Condition(threading.Lock())
        self._queue: Queue[object] = Queue()
        self._returned: deque[Lease] = deque()
        self._closed = False
        self.thresholds = Thresholds()
        #: False if inputs are sent from elsewhere: who writes to the span of one has to reserve that part of it.
        self.reserves_inputs = True
        self.copier = Copier()
        #: Called now and then by who waits for room, with its deadline; what it raises ends the wait.
        self.meanwhile: Callable[[float | None], None] = _do_nothing

    def __repr__(self) -> str:
        with self._changed:
            regions = list(self._regions.values())
        slots = sum(region.segment.geometry.slots for region in regions)
        added = f" in {len(regions)} segments" if len(regions) > 1 else ""
        return (
            f"<Pool {slots} slots{added}, {self.used_bytes / 2**20:.1f} of {self.pool_bytes / 2**20:.0f} MiB leased, "
            f"{self.view_bytes / 2**20:.1f} MiB of it kept results{self.why and f' ({self.why})'}>"
        )

    @property
    def segment(self) -> Segment:
        """The segment that is there from the beginning."""
        return self._regions[0].segment

    @property
    def segments(self) -> dict[int, Segment]:
        """All segments by their numbers."""
        with self._changed:
            return {number: region.segment for number, region in self._regions.items()}

    @property
    def pool_bytes(self) -> int:
        """Bytes of all slots."""
        with self._changed:
            return self._regions.pool_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes under lease."""
        with self._changed:
            self._drain()
            return self._regions.used_bytes

    @property
    def view_bytes(self) -> int:
        """Bytes under lease by results that the user keeps."""
        with self._changed:
            self._drain()
            return self._regions.kept_bytes

    def slots(self) -> list[ledger.Slot]:
        """Return what each slot is used for."""
        with self._changed:
            self._drain()
            if self._closed:
                return []
            found = [
                (region.segment.map[LEDGER_OFFSET : LEDGER_OFFSET + LEDGER_BYTES], region.segment.geometry, number)
                for number, region in self._regions.items()
            ]
        return [slot for about in found for slot in ledger.slots(*about)]

    def lease_input(self, nbytes: int, deadline: float | None = None, caller: Caller = _ANYBODY) -> Lease:
        """Lease a span for the arrays of a request, waiting in turn while the pool is full (see `Queue`).

        Parameters
        ----------
        nbytes : int
            Size in bytes, header included.
        deadline : float or None
            `time.monotonic` value at which to give up; None waits as long as it takes.
        caller : Caller
            How urgent it is, and what it is for.

        Raises
        ------
        PoolTooSmall
            At once, if the pool could never hold it.
        PoolSpaceError
            If the memory behind the pool is full.
        DeadlineExceeded
            If the deadline passes first.
        """
        return self._try_lease(nbytes, ledger.INPUT, caller) or self._lease(nbytes, ledger.INPUT, deadline, caller)

    def lease_output(self, nbytes: int, deadline: float | None = None, caller: Caller = _ANYBODY) -> Lease:
        """Lease a span for the arrays of a reply; as `lease_input`."""
        return self._try_lease(nbytes, ledger.OUTPUT, caller) or self._lease(nbytes, ledger.OUTPUT, deadline, caller)

    def try_lease_input(self, nbytes: int, caller: Caller = _ANYBODY) -> Lease | None:
        """Lease a span for a request if that needs no waiting."""
        return self._try_lease(nbytes, ledger.INPUT, caller)

    def try_lease_output(self, nbytes: int, caller: Caller = _ANYBODY) -> Lease | None:
        """Lease a span for a reply; likewise."""
        return self._try_lease(nbytes, ledger.OUTPUT, caller)

    def try_lease_kept(self, nbytes: int, caller: Caller = _ANYBODY) -> Lease | None:
        """Lease a span that the user may keep if that needs no waiting."""
        return self._try_lease(nbytes, ledger.KEPT, caller)

    def put(self, lease: Lease, refs: Sequence[ArrayRef], arrays: Sequence[Array]) -> None:
        """Write the arrays of a request, and the span's header last."""
        window = self.window(lease)  # held: else the mapping could be closed beneath a copy
        placing.write(window.data, 0, refs, arrays, self.copier.copy)
        end = refs[-1].offset + placing.nbytes_of(refs[-1]) if refs else SPAN_HEADER_BYTES
        self.seal(lease, end)

    def seal(self, lease: Lease, nbytes: int) -> None:
        """Write the header of a span whose first `nbytes`, header included, the worker may read."""
        self._segment_of(lease.ref).seal(lease.ref.start, lease.ref.generation, nbytes, CLIENT)

    def check_reply(self, lease: Lease) -> int:
        """Return the payload bytes of a reply that the worker wrote for this very lease.

        Raises
        ------
        StaleReference
            If the span holds anything else.
        """
        return self._segment_of(lease.ref).check(lease.ref.start, lease.ref.generation, lease.size, WORKER)

    def window(self, lease: Lease) -> Array:
        """Return the bytes of a leased span as an array: what `keep` watches, and what results are views of."""
        return self.window_of(lease.ref._replace(nbytes=lease.size))

    def window_of(self, ref: SpanRef) -> Array:
        """Return the bytes of a span that is leased by somebody."""
        return self._segment_of(ref).window(ref.start, ref.nbytes)

    def keep(self, lease: Lease, window: Array, nbytes: int) -> bool:
        """Let the user keep views of `window`, if it lies where that is allowed.

        Kept results lie in output slots and in segments that were added, and never in other slots: so every
        request that fits in an empty pool still finds its place, however much is kept.

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
        start = lease.ref.start
        with self._changed:
            self._drain()
            region = self._regions[lease.ref.segment]
            if not region.may_keep(start):
                return False
            lease.size = region.allocator.shrink(start, nbytes)
            region.kept[start] = lease.ref._replace(nbytes=lease.size)
            region.ledger.keep(start, lease.size)
            self._changed.notify_all()
        finalizer = weakref.finalize(window, lease.release_later)
        finalizer.atexit = False
        return True

    def find_kept(self, array: Array) -> tuple[SpanRef, ArrayRef] | None:
        """Return the span of a kept result, or of an array that was made in the pool, and where `array` lies in it.

        None if it lies elsewhere, or is not contiguous.
        """
        if not array.nbytes or not array.flags.forc:
            return None
        address = array.__array_interface__["data"][0]
        with self._changed:
            found = None if self._closed else self._regions.find_kept(address, array.nbytes)
        return None if found is None else (found[0], placing.ref_of(array, found[1]))

    def pin_kept(self, heirs: Heirs) -> None:
        """Reuse nothing of what is kept now while there are heirs: they hold the same views."""
        with self._changed:
            self._drain()
            self._regions.pin(heirs)

    def prepare(self, nbytes: int) -> tuple[int, Segment] | None:
        """Make a segment that holds a span of `nbytes`, for `admit`; None where the pool's limit forbids it.

        Returns
        -------
        number, segment
            The number that it will have, and the segment, which the worker has to be told of first.
        """
        slots = -(-max(nbytes, 1) // self.geometry.slot_bytes)
        with self._changed:
            if self._closed or self._regions.pool_bytes + slots * self.geometry.slot_bytes > self.limit:
                return None
            number = next(self._numbers)
        return number, self._create(Geometry(self.geometry.slot_bytes, 0, 0, slots))

    def admit(self, number: int, segment: Segment) -> None:
        """Use a segment from `prepare` from now on."""
        with self._changed:
            if self._closed:
                segment.close()
            else:
                self._regions[number] = Region(number, segment, self.counters)
                self._changed.notify_all()

    def drop_idle(self) -> dict[int, Segment]:
        """Take the added segments out in which nothing is leased; the caller closes them when the worker has."""
        with self._changed:
            self._drain()
            return {} if len(self._queue) else self._regions.pop_idle()  # somebody waits for what is free now

    def trim(self, spare: int) -> int:
        """Give the memory of what is not leased back to the system, and return how much that was; see `Region.trim`."""
        with self._changed:
            self._drain()
            if self._closed:
                return 0
            # Under the lock, so that nothing is leased meanwhile.
            return sum(region.trim(spare) for region in self._regions.values())

    def rest(self, rests: bool) -> bool:
        """Let nothing be leased in the first segment for the moment, or again; tell whether nothing is, nor will be."""
        with self._changed:
            self._drain()
            first = self._regions[0]
            first.rests = rests and not self._closed and not first.allocator.used
            self._changed.notify_all()
            return first.rests

    def close(self) -> None:
        """Wake all who wait with an error, and drop the memory; kept results stay valid."""
        with self._changed:
            self._closed = True
            self.meanwhile = _do_nothing
            self._changed.notify_all()
        for region in self._regions.values():
            region.segment.close()

    def _segment_of(self, ref: SpanRef) -> Segment:
        if self._closed:
            raise PoolError("The session was closed while a call was under way.")
        return self._regions[ref.segment].segment

    def _try_lease(self, nbytes: int, use: int, caller: Caller) -> Lease | None:
        with self._changed:
            self._drain()
            free = not self._closed and self._queue.is_free_for(caller.priority)
            found = self._regions.allocate(nbytes, use) if free else None
            if found is not None:
                self._queue.serve_newcomer()
        return None if found is None else self._grant(*found, use, caller)

    def _lease(self, nbytes: int, use: int, deadline: float | None, caller: Caller) -> Lease:
        with self._changed:
            if not self._regions.fit_ever(nbytes):
                raise too_small(nbytes, self.geometry.largest_span, self.limit)
            ticket, began = object(), time.monotonic()
            self._queue.add(ticket, caller.priority)
            try:
                self.counters.come(self._queue.by_priority())
                found = self._wait_for_turn(ticket, nbytes, use, deadline)
                self._queue.serve(ticket)
            finally:
                if ticket in self._queue:
                    self._queue.leave(ticket)
                self.counters.go(self._queue.by_priority(), time.monotonic() - began)
                self._changed.notify_all()
        return self._grant(*found, use, caller)

    def _wait_for_turn(self, ticket: object, nbytes: int, use: int, deadline: float | None) -> tuple[Region, int, int]:
        asks_at = time.monotonic() + 10 * _WAIT_SLICE_SECONDS
        while True:
            if self._closed:
                raise PoolError("The session was closed while a call waited for room in its pool.")
            self._drain()
            if self._queue.first is ticket and (found := self._regions.allocate(nbytes, use)) is not None:
                return found
            if self._queue.first is ticket and not self._regions.may_hold(nbytes):
                raise all_kept(nbytes, self.limit)
            left = _WAIT_SLICE_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise no_room(nbytes)
            self._changed.wait(min(left, _WAIT_SLICE_SECONDS))
            if time.monotonic() >= asks_at:
                self._changed.release()
                try:
                    self.meanwhile(deadline)
                finally:
                    self._changed.acquire()
                asks_at = time.monotonic() + 10 * _WAIT_SLICE_SECONDS

    def _grant(self, region: Region, start: int, size: int, use: int, caller: Caller) -> Lease:
        try:
            if use != ledger.INPUT or self.reserves_inputs:
                region.segment.reserve(start, size)
            with self._changed:
                if not self._closed:
                    region.ledger.note(start, size, use, caller.owner)
        except BaseException:
            with self._changed:
                region.allocator.release(start)
                self._changed.notify_all()
            raise
        return Lease(self, SpanRef(region.number, start, size, next(self._generations)), size)

    def take_back(self, lease: Lease) -> None:
        """Free a span; its lease asks for it."""
        with self._changed:
            self._drain()
            self._free(lease)
            self._changed.notify_all()

    def take_back_later(self, lease: Lease) -> None:
        """Free a span when that needs no waiting for the lock, which this very thread may hold."""
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
        self._regions.unpin(self._closed)

    def _free(self, lease: Lease) -> None:
        self._regions[lease.ref.segment].free(lease.ref.start, self._closed)
