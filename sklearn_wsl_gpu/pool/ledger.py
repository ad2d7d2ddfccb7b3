"""What the slots of a pool are used for, told to whoever looks: the owner writes, anybody may read.

For people only. No decision is made by it, on neither side: the allocator has its own book-keeping.
"""

from __future__ import annotations

import itertools
import mmap
import struct
import time
from dataclasses import dataclass

from sklearn_wsl_gpu.pool.layout import DATA_OFFSET, LEDGER_BYTES, LEDGER_OFFSET, Geometry

#: Start and size of a lease, when it began (seconds since 1970), what for; zero is no lease.
_RECORD = struct.Struct("<QQdB7x")
_RECORDS = LEDGER_BYTES // _RECORD.size
USES = ("free", "input", "output", "kept")
INPUT, OUTPUT, KEPT = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot of a pool.

    Attributes
    ----------
    number : int
    kind : str
        ``"input"``, ``"scratch"`` or ``"output"``.
    state : str
        ``"free"``, or what most of its leased bytes are for: ``"input"`` and ``"output"`` are data of calls
        under way, ``"kept"`` are results that the user still holds.
    size, used : int
        Bytes of the slot, and those of them under lease.
    age : float
        Seconds since the oldest of its leases began; 0.0 without one.
    """

    number: int
    kind: str
    state: str
    size: int
    used: int
    age: float


class Ledger:
    """The owner's side: notes each lease while it lasts.

    Parameters
    ----------
    map : mmap
        Of the segment.
    """

    def __init__(self, map: mmap.mmap) -> None:
        self._map = map
        self._places: dict[int, int] = {}
        self._unused = list(range(_RECORDS))

    def note(self, start: int, size: int, use: int) -> None:
        """Write down, or change, what the lease that begins at `start` is for."""
        place = self._places.get(start)
        if place is None:
            if not self._unused:
                return
            place = self._places[start] = self._unused.pop()
        _RECORD.pack_into(self._map, LEDGER_OFFSET + place * _RECORD.size, start, size, time.time(), use)

    def strike(self, start: int) -> None:
        """Strike out a lease that has ended."""
        place = self._places.pop(start, None)
        if place is not None:
            self._unused.append(place)
            _RECORD.pack_into(self._map, LEDGER_OFFSET + place * _RECORD.size, 0, 0, 0.0, 0)


def slots(raw: bytes, geometry: Geometry) -> list[Slot]:
    """Return the map of slots from the bytes of a ledger.

    A record that makes no sense, as while it is being written, counts as none.
    """
    now, size = time.time(), geometry.slot_bytes
    used: list[list[int]] = [[0] * len(USES) for _ in range(geometry.slots)]
    since = [now] * geometry.slots
    whole = len(raw) // _RECORD.size * _RECORD.size
    for start, nbytes, began, use in _RECORD.iter_unpack(raw[:whole]):
        if not 0 < use < len(USES) or start < DATA_OFFSET or not 0 < nbytes <= geometry.file_bytes - start:
            continue
        first, last = (start - DATA_OFFSET) // size, (start + nbytes - 1 - DATA_OFFSET) // size
        for number in range(first, last + 1):
            begin = DATA_OFFSET + number * size
            used[number][use] += min(start + nbytes, begin + size) - max(start, begin)
            since[number] = min(since[number], began)
    kinds = itertools.chain.from_iterable(
        itertools.repeat(kind, count)
        for kind, count in (("input", geometry.inputs), ("scratch", geometry.scratch), ("output", geometry.outputs))
    )
    return [
        Slot(number, kind, USES[max(range(len(USES)), key=used[number].__getitem__)], size, sum(used[number]),
             max(now - since[number], 0.0))
        for number, kind in enumerate(kinds)
    ]  # fmt: skip
