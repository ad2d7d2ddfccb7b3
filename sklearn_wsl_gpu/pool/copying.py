"""The one copy of an array into the pool: with one thread, or with two where that has been seen to be faster.

Whether it is depends on the machine: where one core saturates the memory, a second thread gains nothing.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_wsl_gpu.pool import memory
from sklearn_wsl_gpu.pool.layout import PAGE

#: Smaller arrays are not worth a thread.
MIN_BYTES = 32 * 1024 * 1024
#: At the beginning of so many copies each way is tried, in an order that nobody's copies take turns in.
_PERIOD = 64
_TRIES = (1, 2, 2, 1)
#: A second thread takes a core from somebody: it has to be worth this much.
_WORTH = 0.9
#: So many slow copies in a row are no accident.
_PATIENCE = 3
#: Memory of which one page in so many was not there yet is not warm.
_COLD_SHARE = 16


class Trials:
    """Which of two ways is faster, learnt from the copies that are made anyway: pure book-keeping.

    The first copies are made with one thread and with two, the next in the way that was faster, until some time later
    both are tried again. Two are used no more until then once they take longer than one has, some times in a
    row: others need the cores.
    """

    def __init__(self) -> None:
        self._count = 0
        self._best = {1: float("inf"), 2: float("inf")}
        self._slow = 0

    def next(self) -> int:
        """Return the number of threads for the next copy."""
        place = self._count % _PERIOD
        if place < len(_TRIES):
            return _TRIES[place]
        return 2 if self._best[2] < _WORTH * self._best[1] else 1

    def note(self, threads: int, seconds_per_byte: float) -> None:
        """Take in what a copy has cost."""
        if self._count % _PERIOD == 0:
            self._best = {1: float("inf"), 2: float("inf")}
        self._count += 1
        self._best[threads] = min(self._best[threads], seconds_per_byte)
        self._slow = self._slow + 1 if threads == 2 and seconds_per_byte > self._best[1] else 0
        if self._slow >= _PATIENCE:
            self._best[2] = float("inf")


class Copier:
    """Copies arrays, and learns how."""

    def __init__(self) -> None:
        # By size: what a thread costs to start is much of a small copy and nothing of a large one.
        self._trials: defaultdict[int, Trials] = defaultdict(Trials)

    def copy(self, target: NDArray[Any], source: NDArray[Any]) -> None:
        """Copy an array to another of its shape and dtype."""
        if source.nbytes < MIN_BYTES or (os.cpu_count() or 1) < 2:
            np.copyto(target, source)
            return
        trials = self._trials[source.nbytes.bit_length()]
        threads = trials.next()
        faults, begin = memory.page_faults(), time.perf_counter()
        if threads == 1:
            np.copyto(target, source)
        else:
            _copy_in_halves(target, source)
        seconds = time.perf_counter() - begin
        # Into pages that nobody had touched a copy takes many times as long: that tells nothing of either way.
        if (memory.page_faults() - faults) * PAGE * _COLD_SHARE <= source.nbytes:
            trials.note(threads, seconds / source.nbytes)


def _copy_in_halves(target: NDArray[Any], source: NDArray[Any]) -> None:
    # Along the axis whose steps are longest, so that each thread has a run of memory of its own.
    axis = max(range(target.ndim), key=lambda number: (target.strides[number], target.shape[number]))
    target, source = np.moveaxis(target, axis, 0), np.moveaxis(source, axis, 0)
    half = len(target) // 2
    other = threading.Thread(target=np.copyto, args=(target[half:], source[half:]))
    try:
        other.start()
    except RuntimeError:  # there are too many threads
        np.copyto(target, source)
        return
    try:
        np.copyto(target[:half], source[:half])
    finally:
        # Interrupted or not: the memory must not be somebody else's while it writes.
        try:
            other.join()
        except BaseException:
            other.join()
            raise
