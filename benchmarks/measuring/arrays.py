"""The arrays that all contestants work on: float32 matrices in one warm private buffer."""

from __future__ import annotations

import mmap
import time

import numpy as np

COLUMNS = 64
LAYOUTS = ("C", "F", "strided")


class Arrays:
    """Matrices of any size up to the largest, and the copy that everything is compared with.

    Parameters
    ----------
    largest : int
        Bytes of the largest C-ordered array; strided ones are of half that at most.
    """

    def __init__(self, largest: int) -> None:
        self._values = np.random.default_rng(0).random(largest // 4, dtype=np.float32)
        # Forked processes do not get it: else its next use would copy each page first.
        memory = mmap.mmap(-1, largest + mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for advice in (mmap.MADV_HUGEPAGE, mmap.MADV_DONTFORK):
            memory.madvise(advice)
        # At the same place in its page, where a copy is fastest.
        place = self._values.__array_interface__["data"][0] % mmap.PAGESIZE
        self._copy = np.frombuffer(memory, np.float32, largest // 4, place)
        np.copyto(self._copy, self._values)

    def of(self, nbytes: int, layout: str) -> np.ndarray:
        """Return a matrix of so many bytes: C- or Fortran-contiguous, or every other column of one twice as wide."""
        rows = nbytes // (4 * COLUMNS)
        if layout == "strided":
            return self._values[: 2 * rows * COLUMNS].reshape(rows, 2 * COLUMNS)[:, ::2]
        return self._values[: rows * COLUMNS].reshape(rows, COLUMNS, order=layout)

    def memcpy(self, nbytes: int) -> float:
        """Return the seconds of one copy of so many bytes between two warm private buffers."""
        count = nbytes // 4
        source, target = self._values[:count], self._copy[:count]
        # The clock is too coarse for one small copy.
        repeats = max(1, 2**20 // nbytes)
        begin = time.perf_counter()
        for _ in range(repeats):
            np.copyto(target, source)
        return (time.perf_counter() - begin) / repeats
