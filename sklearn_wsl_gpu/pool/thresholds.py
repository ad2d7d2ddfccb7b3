"""From which sizes on it pays to place an array in a slot, and to refer to it rather than copy it: as measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

#: Between these an array's way is decided by what was measured.
MAX_INLINE_BYTES = 64 * 1024
MIN_VIEW_BYTES, MAX_VIEW_BYTES = 64 * 1024, 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Costs:
    """What the ways of an array cost, in seconds.

    Attributes
    ----------
    slot : float
        To place a small array in a slot and take it from there, on both sides together.
    inline_byte : float
        For a byte to travel in a message, there and back halved.
    reference : float
        To keep a result where it lies, and to give its span back.
    copy_byte : float
        For a byte to be copied into memory of its own.
    """

    slot: float
    inline_byte: float
    reference: float
    copy_byte: float


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Sizes in bytes; those of the class hold until something was measured.

    Attributes
    ----------
    inline : int
        Arrays of a call travel in its message if they are no larger than this together.
    view : int
        Results of this size and more are views on their span.
    """

    inline: int = 4 * 1024
    view: int = 1024 * 1024


def decide(costs: Costs) -> Thresholds:
    """Return the sizes from which on the other way is cheaper."""
    inline = costs.slot / max(costs.inline_byte, 1e-12)
    view = costs.reference / max(costs.copy_byte, 1e-12)
    return Thresholds(int(min(max(inline, 0), MAX_INLINE_BYTES)), int(min(max(view, MIN_VIEW_BYTES), MAX_VIEW_BYTES)))


def seconds_of(run: Callable[[], object], times: int = 7) -> float:
    """Return the median seconds of a function, the first run not counted."""
    run()
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        found.append(time.perf_counter() - begin)
    return statistics.median(found)
