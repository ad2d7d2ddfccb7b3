"""How large a pool is made: a pure function of what was asked and of what there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sklearn_wsl_gpu.errors import ConfigurationError
from sklearn_wsl_gpu.pool.layout import DATA_OFFSET, DEFAULT_SLOT_BYTES, PAGE, Geometry

#: A pool whose size was not asked for takes at most one part in so many of what is free. What is computed with the
#: data in it needs about as much again, for the worker's copies and the user's. A tmpfs takes the same share by
#: default (Linux, Documentation/filesystems/tmpfs.rst).
PARTS = 2
_PARTS_AT_START = 128
_HUGE_PAGE = 2 * 1024 * 1024


class Bound(NamedTuple):
    """Something that a pool has to fit in.

    Attributes
    ----------
    what : str
        Its name, for people.
    size : int
        Bytes in all: a larger pool is impossible.
    free : int or None
        Bytes that can be had now; None where that is not known.
    """

    what: str
    size: int
    free: int | None = None

    @property
    def room(self) -> int:
        """Bytes that can be had, as far as is known."""
        return self.size if self.free is None else min(self.free, self.size)


class Choice(NamedTuple):
    """The slots of a pool, and why they are as they are."""

    geometry: Geometry
    why: str


def choose(bounds: Sequence[Bound], slots: tuple[int, int, int], slot_bytes: int | None) -> Choice:
    """Decide on the slots of a pool.

    Parameters
    ----------
    bounds : sequence of Bound
        What the pool has to fit in.
    slots : tuple of int
        Input, output and scratch slots, as asked.
    slot_bytes : int or None
        Bytes of a slot as asked, a multiple of 4096. None takes 256 MiB, or less where less than twice the pool is
        free: then whole huge pages, if it is that much.

    Returns
    -------
    choice : Choice
        Never more slots, nor larger ones, than asked.

    Raises
    ------
    ConfigurationError
        If a pool of that size was asked for and cannot be.
    """
    inputs, outputs, scratch = slots
    count = inputs + outputs + scratch
    _check_possible(bounds, count, PAGE if slot_bytes is None else slot_bytes)
    if slot_bytes is not None:
        return Choice(Geometry(slot_bytes, inputs, outputs, scratch), f"{_slots(count, slot_bytes)}, as asked")
    scarcest = min(bounds, key=lambda bound: bound.room, default=None)
    size = DEFAULT_SLOT_BYTES
    if scarcest is not None:
        size = min(size, _whole_pages(max(scarcest.room - DATA_OFFSET, 0) // PARTS // count))
    why = f"{_slots(count, size)}, {_reason(size, scarcest)}"
    return Choice(Geometry(size, inputs, outputs, scratch), why)


def limit(bounds: Sequence[Bound]) -> int:
    """Return the bytes that a pool may grow to if that was not asked for: half of what there is; 0 if unknown."""
    return min((bound.size for bound in bounds), default=0) // PARTS


def ready_bytes(bounds: Sequence[Bound], geometry: Geometry) -> int:
    """Return the bytes that are made ready at the start if that was not asked for: little of what is free."""
    room = min((bound.room for bound in bounds), default=0)
    return min(room // _PARTS_AT_START // PAGE * PAGE, geometry.slot_bytes)


def _reason(size: int, scarcest: Bound | None) -> str:
    if scarcest is None:
        return "the default: what there is of memory is not known"
    known = "there is" if scarcest.free is None else "is free"
    amount = f"{_size(scarcest.room)} of {scarcest.what}"
    if size == DEFAULT_SLOT_BYTES:
        return f"the default: no more than half of what {known}, {amount}"
    if size > PAGE:
        return f"half of what {known}: {amount}"
    return f"the smallest possible: hardly more {known}, {amount}"


def _check_possible(bounds: Sequence[Bound], count: int, slot_bytes: int) -> None:
    smallest = min(bounds, key=lambda bound: bound.size, default=None)
    if smallest is not None and DATA_OFFSET + count * slot_bytes > smallest.size:
        raise ConfigurationError(
            f"A pool of {count} slots of {slot_bytes} bytes takes {_size(DATA_OFFSET + count * slot_bytes)}, and there "
            f"are {_size(smallest.size)} of {smallest.what}. Make slots or slot_bytes smaller, so that their product "
            f"is at most {max(smallest.size - DATA_OFFSET, 0)} bytes."
        )


def _whole_pages(nbytes: int) -> int:
    page = _HUGE_PAGE if nbytes >= _HUGE_PAGE else PAGE
    return max(nbytes // page * page, PAGE)


def _slots(count: int, slot_bytes: int) -> str:
    return f"{count} slots of {_size(slot_bytes)}"


def _size(nbytes: int) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if nbytes >= scale:
            return f"{nbytes / scale:.4g} {unit}"
    return f"{nbytes} B"
