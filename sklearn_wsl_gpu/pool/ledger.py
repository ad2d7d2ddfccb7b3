"""What the slots of a pool are used for, told to whoever looks: the owner writes, anybody may read.

For people only. No decision is made by it, on neither side: the allocator has its own book-keeping.
"""

from __future__ import annotations

import math
import mmap
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sklearn_wsl_gpu.pool.counters import Counters
from sklearn_wsl_gpu.pool.layout import DATA_OFFSET, LEDGER_BYTES, LEDGER_OFFSET, Geometry, round_up

#: Start and size of a lease, what for, whose it is, and when it began (seconds since 1970); zero is no lease.
_RECORD = struct.Struct("<QQB55sd")
#: Of it, what changes when a result is kept.
_HEAD = struct.Struct("<QQB")
_RECORDS = LEDGER_BYTES // _RECORD.size
_NO_LEASE = bytes(_RECORD.size)
_NOWHERE = -1
_UNPRINTABLE = bytes(code for code in range(256) if not 32 <= code < 127)
USES = ("free", "input", "output", "kept")
INPUT, OUTPUT, KEPT = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot of a pool.

    Attributes
    ----------
    segment, number : int
        Which segment of the pool it lies in, and which of its slots it is.
    kind : str
        ``"input"``, ``"scratch"`` or ``"output"``.
    state : str
        ``"free"``, or what most of its leased bytes are for: ``"input"`` and ``"output"`` are data of calls
        under way, ``"kept"`` are results that the user still holds.
    owner : str
        What the largest of those leases is for, such as ``"KMeans.fit"``: printable ASCII, empty if it is not known.
    size, used : int
        Bytes of the slot, and those of them under lease.
    age : float
        Seconds since the oldest of its leases began; 0.0 without one.
    """

    segment: int
    number: int
    kind: str
    state: str
    owner: str
    size: int
    used: int
    age: float


class _Lease(NamedTuple):
    """What a record says, or the part of it that lies in a slot."""

    start: int
    end: int
    use: int
    owner: bytes
    began: float

    @property
    def size(self) -> int:
        return self.end - self.start


class Ledger:
    """The owner's side: notes each lease while it lasts, as far as there is room for a record of it.

    Parameters
    ----------
    map : mmap
        Of the segment.
    counters : Counters
        Of the pool.
    """

    def __init__(self, map: mmap.mmap, counters: Counters) -> None:
        self._map = map
        self._counters = counters
        #: Place of the record, and size, of each lease by its start.
        self._leases: dict[int, tuple[int, int]] = {}
        #: The lowest is taken first: who reads stops behind the last that was ever used.
        self._unused = list(range(_RECORDS - 1, -1, -1))

    def note(self, start: int, size: int, use: int, owner: str) -> None:
        """Write down a lease that begins."""
        if start in self._leases:
            self.strike(start)  # an interrupt came between its note and its grant
        place = self._unused.pop() if self._unused else _NOWHERE
        self._leases[start] = place, size
        self._counters.lease(size)
        if place != _NOWHERE:
            words = owner.encode("ascii", "replace")
            _RECORD.pack_into(self._map, LEDGER_OFFSET + place * _RECORD.size, start, size, use, words, time.time())

    def keep(self, start: int, size: int) -> None:
        """Change a lease: the user keeps its first `size` bytes, the others were given back."""
        place, before = self._leases[start]
        self._leases[start] = place, size
        self._counters.give_back(before - size)
        if place != _NOWHERE:
            _HEAD.pack_into(self._map, LEDGER_OFFSET + place * _RECORD.size, start, size, KEPT)

    def strike(self, start: int) -> None:
        """Strike out a lease that has ended."""
        place, size = self._leases.pop(start, (_NOWHERE, 0))
        self._counters.give_back(size)
        if place != _NOWHERE:
            self._unused.append(place)
            at = LEDGER_OFFSET + place * _RECORD.size
            self._map[at : at + _RECORD.size] = _NO_LEASE


def slots(raw: bytes, geometry: Geometry, segment: int = 0, limit: int | None = None) -> list[Slot]:
    """Return the map of slots from the bytes of a ledger, whatever they are.

    A record that makes no sense, as while it is being written, counts as none, and so does one of bytes that another
    has leased.

    Parameters
    ----------
    raw : bytes
    geometry : Geometry
        Of the segment.
    segment : int
        Its number.
    limit : int or None
        Only so many slots, the first ones; None takes all.
    """
    now, size = time.time(), geometry.slot_bytes
    count = geometry.slots if limit is None else min(geometry.slots, limit)
    parts: list[list[_Lease]] = [[] for _ in range(count)]
    for lease in _read(raw, geometry):
        for number in range((lease.start - DATA_OFFSET) // size, min(-(-(lease.end - DATA_OFFSET) // size), count)):
            begin = DATA_OFFSET + number * size
            parts[number].append(lease._replace(start=max(lease.start, begin), end=min(lease.end, begin + size)))
    return [_slot(segment, number, geometry, leases, now) for number, leases in enumerate(parts)]


def _read(raw: bytes, geometry: Geometry) -> list[_Lease]:
    """Return the leases that are written down, by their starts; no two of them share a byte."""
    written = round_up(len(raw.rstrip(b"\0")), _RECORD.size)
    found = sorted(
        _Lease(start, start + size, use, owner, began)
        for start, size, use, owner, began in _RECORD.iter_unpack(raw[:written].ljust(written, b"\0"))
        if 0 < use < len(USES) and start >= DATA_OFFSET and 0 < size <= geometry.file_bytes - start
        and 0 <= began < math.inf
    )  # fmt: skip
    end, apart = 0, []
    for lease in found:
        if lease.start >= end:
            apart.append(lease)
            end = lease.end
    return apart


def _slot(segment: int, number: int, geometry: Geometry, leases: Sequence[_Lease], now: float) -> Slot:
    used = [sum(lease.size for lease in leases if lease.use == use) for use in range(len(USES))]
    use = max(range(len(USES)), key=used.__getitem__)
    largest = max((lease for lease in leases if lease.use == use), key=lambda lease: lease.size, default=None)
    owner = b"" if largest is None else largest.owner.partition(b"\0")[0].translate(None, _UNPRINTABLE)
    age = max(now - min((lease.began for lease in leases), default=now), 0.0)
    return Slot(
        segment, number, _kind(number, geometry), USES[use], owner.decode("ascii"), geometry.slot_bytes, sum(used), age
    )


def _kind(number: int, geometry: Geometry) -> str:
    if number < geometry.inputs:
        return "input"
    return "scratch" if number < geometry.inputs + geometry.scratch else "output"
