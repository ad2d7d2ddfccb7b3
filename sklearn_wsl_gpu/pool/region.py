"""A segment of a pool and what is leased in it."""

from __future__ import annotations

from collections import Counter

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.pool import ledger
from sklearn_wsl_gpu.pool.allocator import Allocator
from sklearn_wsl_gpu.pool.counters import Counters as PoolCounters
from sklearn_wsl_gpu.pool.heirs import Heirs
from sklearn_wsl_gpu.pool.segment import Segment


class Region:
    """The owner's side of one segment.

    Parameters
    ----------
    number : int
        Of the segment in its pool; never given twice.
    segment : Segment
    counters : PoolCounters
        Of the pool.

    Attributes
    ----------
    allocator : Allocator
    ledger : Ledger
    kept : dict of int to SpanRef
        What the user keeps, by its start.
    pinned : Counter of int
        Starts of what processes may read that were forked, and by how many forks.
    rests : bool
        Whether nothing is leased for the moment.
    """

    def __init__(self, number: int, segment: Segment, counters: PoolCounters) -> None:
        self.number = number
        self.segment = segment
        self.allocator = Allocator(segment.geometry)
        self.ledger = ledger.Ledger(segment.map, counters)
        self.kept: dict[int, SpanRef] = {}
        self.pinned: Counter[int] = Counter()
        self.rests = False

    def __repr__(self) -> str:
        return f"<Region {self.number}, {self.allocator!r}, {len(self.kept)} kept>"

    def allocate(self, nbytes: int, use: int) -> tuple[int, int] | None:
        """Return start and size of a run, or None while there is none.

        Parameters
        ----------
        nbytes : int
        use : int
            `ledger.INPUT`, `ledger.OUTPUT` or `ledger.KEPT`.
        """
        if self.rests:
            return None
        if use == ledger.INPUT:
            return self.allocator.allocate_input(nbytes)
        return self.allocator.allocate_output(nbytes, may_overflow=use == ledger.OUTPUT)

    def may_keep(self, start: int) -> bool:
        """Tell whether what begins there may be kept by the user as long as they like."""
        return start >= self.segment.geometry.kept_range[0]

    def may_hold(self, nbytes: int) -> bool:
        """Tell whether a run would fit once all is released but what the user, or a process that was forked, keeps."""
        used, geometry = self.allocator.used, self.segment.geometry
        held = sorted((start, start + size) for start, size in used.items() if start in self.kept.keys() | self.pinned)
        begin, last = geometry.input_range[0], geometry.output_range[0]
        for start, end in [*held, (last, last)]:
            if min(start, last) - begin >= nbytes:
                return True
            begin = max(begin, end)
        return False

    def find_kept(self, address: int, nbytes: int) -> tuple[SpanRef, int] | None:
        """Return the kept span that holds these bytes of memory, and their offset in it; None if there is none."""
        at = address - self.segment.address
        if 0 <= at < self.segment.geometry.file_bytes:
            for start, ref in self.kept.items():
                if start <= at and at + nbytes <= start + ref.nbytes:
                    return ref, at - start
        return None

    def free(self, start: int, is_closed: bool) -> None:
        """Free a run, unless it is pinned."""
        self.kept.pop(start, None)
        if start in self.pinned:
            return
        self.allocator.release(start)
        if not is_closed:
            self.ledger.strike(start)

    def unpin(self, start: int, is_closed: bool) -> None:
        """Take one pin away, and free what was to be free before."""
        self.pinned[start] -= 1
        if not self.pinned[start]:
            del self.pinned[start]
            if start not in self.kept:
                self.free(start, is_closed)

    def trim(self, spare: int) -> int:
        """Give the memory of what is not leased back to the system, but for `spare` bytes of inputs and of outputs.

        Returns
        -------
        nbytes : int
            How much that was.
        """
        geometry = self.segment.geometry
        ranges = (geometry.input_range, geometry.output_range)
        spared = [(start, min(start + spare, end)) for start, end in ranges]
        runs = [run for extent in self.allocator.free_extents() for run in _without(extent, spared)]
        return sum(self.segment.discard(*run) for run in runs)


class Regions(dict[int, Region]):
    """The regions of a pool by the numbers of their segments, oldest first."""

    def __init__(self, regions: dict[int, Region]) -> None:
        super().__init__(regions)
        self._inherited: list[tuple[Heirs, list[tuple[Region, int]]]] = []

    def pin(self, heirs: Heirs) -> None:
        """Reuse nothing of what is kept now while there are heirs of it."""
        pins = [(region, start) for region in self.values() for start in region.kept]
        for region, start in pins:
            region.pinned[start] += 1
        if pins:
            self._inherited.append((heirs, pins))

    def unpin(self, is_closed: bool) -> None:
        """Free what was to be free, and whose heirs are gone."""
        if not self._inherited:
            return
        gone = [estate for estate in self._inherited if estate[0].are_gone()]
        self._inherited = [estate for estate in self._inherited if estate not in gone]
        for _, pins in gone:
            for region, start in pins:
                region.unpin(start, is_closed)

    @property
    def pool_bytes(self) -> int:
        """Bytes of all slots."""
        return sum(region.segment.geometry.pool_bytes for region in self.values())

    @property
    def used_bytes(self) -> int:
        """Bytes under lease."""
        return self.pool_bytes - sum(region.allocator.free_bytes for region in self.values())

    @property
    def kept_bytes(self) -> int:
        """Bytes under lease by what the user keeps."""
        return sum(ref.nbytes for region in self.values() for ref in region.kept.values())

    def fit_ever(self, nbytes: int) -> bool:
        """Tell whether one of them, empty, could hold `nbytes`."""
        return any(region.allocator.fits_ever(nbytes) for region in self.values())

    def may_hold(self, nbytes: int) -> bool:
        """Tell whether one of them could hold `nbytes`, however long that takes; see `Region.may_hold`."""
        return any(region.may_hold(nbytes) for region in self.values())

    def allocate(self, nbytes: int, use: int) -> tuple[Region, int, int] | None:
        """Return region, start and size of a run, or None while there is none; see `Region.allocate`."""
        for region in self.values():
            if region.allocator.fits_ever(nbytes) and (found := region.allocate(nbytes, use)) is not None:
                return region, *found
        return None

    def find_kept(self, address: int, nbytes: int) -> tuple[SpanRef, int] | None:
        """Return the kept span that holds these bytes of memory, and their offset in it; None if there is none."""
        for region in self.values():
            if (found := region.find_kept(address, nbytes)) is not None:
                return found
        return None

    def pop_idle(self) -> dict[int, Segment]:
        """Take out, but for the first, those in which nothing is leased; return their segments."""
        idle = [number for number, region in self.items() if number and not region.allocator.used]
        return {number: self.pop(number).segment for number in idle}


def _without(extent: tuple[int, int], spared: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return what is left of an extent without the ranges that are spared, which are in order."""
    (begin, end), left = extent, []
    for low, high in spared:
        left.append((begin, min(end, low)))
        begin = max(begin, high)
    return [(low, high) for low, high in [*left, (begin, end)] if low < high]
