"""What a pool has leased so far, and who waits for room in it: the owner writes it down, anybody may read it.

For people only, as the ledger.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import struct
from collections.abc import Sequence
from typing import Any

from sklearn_wsl_gpu.pool.layout import COUNTERS_BYTES, COUNTERS_OFFSET
from sklearn_wsl_gpu.waiting import BOUNDS, PRIORITIES, Waits, describe_queue, describe_waits

#: Leases, the bytes of all of them, and the most bytes that were under lease at once: written with each lease.
_LEASES = struct.Struct("<QQQ")
#: Who waits now, by priority, and `Waits.as_list`: written when somebody begins or ends to wait.
_WAITS = struct.Struct(f"<{len(PRIORITIES)}Q{len(BOUNDS) + 1}Qd")


class Counters:
    """The owner's side: counts, and writes it down.

    Parameters
    ----------
    map : mmap
        Of the pool's first segment.

    Attributes
    ----------
    leases : int
        How many there were.
    leased_bytes : int
        Bytes of all of them together.
    used_bytes, peak_bytes : int
        Bytes under lease now, and the most that were so at once.
    waits : Waits
        How long callers have waited for room.
    """

    def __init__(self, map: mmap.mmap) -> None:
        self._map = map
        self.leases = self.leased_bytes = self.used_bytes = self.peak_bytes = 0
        self.waits = Waits()
        self._waiting = [0] * len(PRIORITIES)

    def lease(self, nbytes: int) -> None:
        """Count a lease that begins."""
        self.leases += 1
        self.leased_bytes += nbytes
        self.used_bytes += nbytes
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        _LEASES.pack_into(self._map, COUNTERS_OFFSET, self.leases, self.leased_bytes, self.peak_bytes)

    def give_back(self, nbytes: int) -> None:
        """Take note of bytes that are not under lease any more."""
        self.used_bytes -= nbytes

    def come(self, waiting: list[int]) -> None:
        """Take note that somebody waits for room, and of how many do now, as `Queue.by_priority` tells."""
        self._waiting = waiting
        self._write_waits()

    def go(self, waiting: list[int], seconds: float) -> None:
        """Count a wait that has ended, with or without success."""
        self._waiting = waiting
        self.waits.add(seconds)
        self._write_waits()

    def as_list(self) -> list[Any]:
        """Return leases, bytes leased, peak of bytes under lease, who waits by priority, and `Waits.as_list`."""
        return [self.leases, self.leased_bytes, self.peak_bytes, self._waiting, self.waits.as_list()]

    def _write_waits(self) -> None:
        at, raw = COUNTERS_OFFSET + _LEASES.size, _WAITS.pack(*self._waiting, *self.waits.as_list())
        with contextlib.suppress(ValueError):  # a wait also ends because the pool, and with it the mapping, is closed
            self._map[at : at + len(raw)] = raw


def read(raw: bytes) -> list[Any]:
    """Return what `Counters.as_list` does, from the bytes at `COUNTERS_OFFSET`.

    What is missing counts as zero, and so do seconds that are no number.
    """
    raw = raw[:COUNTERS_BYTES].ljust(COUNTERS_BYTES, b"\0")
    *waits, seconds = _WAITS.unpack_from(raw, _LEASES.size)
    waiting, counts = waits[: len(PRIORITIES)], waits[len(PRIORITIES) :]
    return [*_LEASES.unpack_from(raw), waiting, [*counts, seconds if 0 <= seconds < math.inf else 0.0]]


def describe(counters: Sequence[Any]) -> dict[str, Any]:
    """Return what `Counters.as_list` gives, by name.

    Returns
    -------
    counters : dict
        ``leases``, ``leased_bytes``, ``peak_bytes``; ``waiting``: how many callers wait for room now, by priority; and
        ``waits``: a histogram of how long such have waited, as `describe_waits` returns it.
    """
    leases, leased_bytes, peak_bytes, waiting, waits = counters
    return {
        "leases": leases,
        "leased_bytes": leased_bytes,
        "peak_bytes": peak_bytes,
        "waiting": describe_queue(waiting),
        "waits": describe_waits(waits),
    }
