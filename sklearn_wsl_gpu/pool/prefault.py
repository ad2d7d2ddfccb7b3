"""Pages made ready before they are needed, in the background."""

from __future__ import annotations

import contextlib
import threading

from sklearn_wsl_gpu.pool import memory
from sklearn_wsl_gpu.pool.layout import PAGE, Geometry, round_up
from sklearn_wsl_gpu.pool.segment import Segment

#: So many bytes at a time, so that closing a session need not wait.
_CHUNK_BYTES = 8 * 1024 * 1024


def first_runs(geometry: Geometry, nbytes: int) -> list[tuple[int, int]]:
    """Return start and size of what is leased first, of the input slots and of the output slots: `nbytes` of each."""
    ranges = (geometry.input_range, geometry.output_range)
    return [(start, min(round_up(nbytes, PAGE), end - start)) for start, end in ranges if nbytes > 0]


def prefault(segment: Segment, start: int, nbytes: int, stop: threading.Event) -> bool:
    """Make the pages of a reserved run ready for this process; tell whether that was done to the end."""
    for begin in range(start, start + nbytes, _CHUNK_BYTES):
        if stop.is_set():
            return False
        with contextlib.suppress(ValueError):  # it was closed meanwhile
            if memory.populate(segment.map, begin, min(_CHUNK_BYTES, start + nbytes - begin)):
                continue
        return False
    return True
