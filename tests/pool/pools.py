"""A small pool, and what its tests do with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sklearn_wsl_gpu.arrays import ArrayRef
from sklearn_wsl_gpu.pool import Lease, Pool, placing
from sklearn_wsl_gpu.pool.layout import PAGE, SPAN_HEADER_BYTES, WORKER, pack_span_header
from sklearn_wsl_gpu.pool.placing import Array

SLOT = 16 * PAGE
#: Its slots.
INPUTS, OUTPUTS, SCRATCH = 2, 4, 2
LARGEST = (INPUTS + SCRATCH) * SLOT


def now() -> float:
    """Return a deadline that has passed: what is not free at once is not waited for."""
    return time.monotonic()


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        threading.Event().wait(0.001)


def waiting(pool: Pool) -> int:
    return len(pool._queue)


def reply(pool: Pool, lease: Lease, values: Array) -> ArrayRef:
    """Write a reply as a worker would."""
    refs, nbytes = placing.plan([values])
    placing.write(pool.segment.map, lease.ref.start, refs, [values])
    header = pack_span_header(pool.segment.epoch, lease.ref.generation, nbytes - SPAN_HEADER_BYTES, WORKER)
    pool.segment.map[lease.ref.start : lease.ref.start + SPAN_HEADER_BYTES] = header
    return refs[0]


def keep(pool: Pool, values: Array, spare: int = 0) -> Array | None:
    """Return a view of a result that the pool keeps, or None if it has no room to spare."""
    nbytes = placing.plan([values])[1]
    lease = pool.lease_output(nbytes + spare, now())
    ref = reply(pool, lease, values)
    window = pool.window(lease)
    if not pool.keep(lease, window, nbytes):
        lease.release()
        return None
    return placing.view(window.data, 0, ref)
