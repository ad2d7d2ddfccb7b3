"""Which bytes of a segment are free: pure book-keeping, no memory, no lock, no clock.

Free space is a sorted list of extents that are coalesced when given back. An allocation prefers the extent
that was released last (its pages are warm: touching fresh ones costs many times the copy itself), and
otherwise takes the lowest address that fits.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from sklearn_wsl_gpu.pool.layout import PAGE, Geometry, round_up

#: How many released extents are remembered as warm.
_WARM_LIMIT = 64
#: A warm extent serves a request if it is at most this many times larger than what is asked.
_WARM_RATIO = 4


class Allocator:
    """Allocates and releases runs of bytes in the slots of one segment.

    Parameters
    ----------
    geometry : Geometry
        The segment's slots.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        first, end = geometry.input_range[0], geometry.output_range[1]
        self._free: list[tuple[int, int]] = [(first, end)]
        self._used: dict[int, int] = {}
        self._warm: list[tuple[int, int]] = []
        low, high = geometry.input_range, geometry.output_range
        # Inputs overflow upwards into scratch, outputs downwards; only an output may take input slots, last.
        self._input_ranges = (low, (low[0], high[0]))
        self._output_ranges = (high, (low[1], high[1]), (low[0], high[0]))
        self._kept_ranges = (geometry.kept_range,)

    def __repr__(self) -> str:
        total = self.geometry.pool_bytes
        return f"<Allocator {total - self.free_bytes} of {total} bytes used in {len(self._used)} runs>"

    @property
    def free_bytes(self) -> int:
        """Bytes that are not allocated."""
        return sum(end - start for start, end in self._free)

    @property
    def used(self) -> dict[int, int]:
        """Start → number of bytes of what is allocated."""
        return dict(self._used)

    def fits_ever(self, nbytes: int) -> bool:
        """Tell whether an empty pool could hold `nbytes`."""
        return round_up(nbytes, PAGE) <= self.geometry.largest_span

    def allocate_input(self, nbytes: int) -> tuple[int, int] | None:
        """Return start and size of a run for a request's arrays, or None while there is none."""
        return self._allocate(nbytes, self._input_ranges)

    def allocate_output(self, nbytes: int, may_overflow: bool = True) -> tuple[int, int] | None:
        """Return start and size of a run for a reply's arrays, or None while there is none.

        Without `may_overflow` only where the user may keep it.
        """
        return self._allocate(nbytes, self._output_ranges if may_overflow else self._kept_ranges)

    def free_extents(self) -> list[tuple[int, int]]:
        """Return first byte and end of each run of bytes that is not allocated."""
        return list(self._free)

    def release(self, start: int) -> None:
        """Give a run back.

        Raises
        ------
        KeyError
            If no run starts there: a double release is a bug, never a silent success.
        """
        size = self._used.pop(start)
        self._add_free(start, start + size)
        self._warm.append((start, size))
        if len(self._warm) > _WARM_LIMIT:
            del self._warm[0]

    def shrink(self, start: int, nbytes: int) -> int:
        """Give back what a run has beyond its first `nbytes`, and return the size that is left."""
        size, left = self._used[start], round_up(max(nbytes, 1), PAGE)
        if left < size:
            self._used[start] = left
            self._add_free(start + left, start + size)
        return min(left, size)

    def _add_free(self, begin: int, end: int) -> None:
        at = bisect_left(self._free, (begin, begin))
        if at < len(self._free) and self._free[at][0] == end:
            end = self._free.pop(at)[1]
        if at > 0 and self._free[at - 1][1] == begin:
            begin = self._free.pop(at - 1)[0]
        insort(self._free, (begin, end))

    def _allocate(self, nbytes: int, ranges: tuple[tuple[int, int], ...]) -> tuple[int, int] | None:
        size = round_up(max(nbytes, 1), PAGE)
        for low, high in ranges:
            start = self._find_warm(size, low, high)
            if start is None:
                start = self._find_lowest(size, low, high)
            if start is not None:
                self._take(start, size)
                return start, size
        return None

    def _find_warm(self, size: int, low: int, high: int) -> int | None:
        for index in range(len(self._warm) - 1, -1, -1):
            start, extent = self._warm[index]
            fits = size <= extent <= size * _WARM_RATIO and low <= start and start + size <= high
            if fits and self._is_free(start, start + size):
                del self._warm[index]
                return start
        return None

    def _find_lowest(self, size: int, low: int, high: int) -> int | None:
        for begin, end in self._free:
            start = max(begin, low)
            if min(end, high) - start >= size:
                return start
        return None

    def _index_of(self, start: int) -> int:
        at = bisect_left(self._free, (start + 1, start))
        return at - 1

    def _is_free(self, start: int, end: int) -> bool:
        at = self._index_of(start)
        return at >= 0 and self._free[at][0] <= start and end <= self._free[at][1]

    def _take(self, start: int, size: int) -> None:
        at = self._index_of(start)
        begin, end = self._free.pop(at)
        if start + size < end:
            self._free.insert(at, (start + size, end))
        if begin < start:
            self._free.insert(at, (begin, start))
        self._used[start] = size
