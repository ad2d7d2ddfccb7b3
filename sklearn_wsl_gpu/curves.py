"""Seconds as a function of the size of the work: measured points, and straight lines between their logarithms.

So a power of the size is followed exactly, between the points and beyond them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

#: How much the latest of many measurements counts; and what a single one may be off before it is cut (logarithm).
_LATEST, _OUTLIER = 0.2, math.log(4)
MAX_COUNT = 1000
#: Width of a bin of sizes, whose measurements make one point.
_BIN = math.log(2)
#: Sizes whose logarithms differ by less count as the same.
_SAME = 0.01
#: Sizes and seconds that a curve may have, as logarithms.
LIMIT = 60.0


def updated(mean: float, count: int, new: float) -> float:
    """Return the mean of `count` logarithms after one more.

    The first value counts only until there is a second: what is done for the first time takes longer. Later on the
    latest counts a fifth, and one that is far off as much as one that is four times off.
    """
    if count < 2:
        return new
    return mean + max(_LATEST, 1 / count) * min(max(new - mean, -_OUTLIER), _OUTLIER)


@dataclass(slots=True)
class Point:
    """Size and seconds, as logarithms, and of how many measurements."""

    size: float
    seconds: float
    count: int


class Estimate(NamedTuple):
    """Seconds at a size, how many times they were measured at the nearest point, and how many doublings off that is."""

    seconds: float
    times: int
    doublings: float


@dataclass(slots=True)
class Curve:
    """Points of one kind of call in one place, and the engine that computed the last of them.

    Attributes
    ----------
    engine : str
    points : dict of tuple of int to Point
        By the width of the data (number of columns, in steps of four times) and the bin of the size.
    """

    engine: str = ""
    points: dict[tuple[int, int], Point] = field(default_factory=dict)

    def add(self, size: float, columns: int, seconds: float) -> None:
        """Add a measurement."""
        place, new = math.log(size), math.log(max(seconds, 1e-7))
        key = (_width(columns), math.floor(place / _BIN))
        point = self.points.get(key)
        if point is None:
            self.points[key] = Point(place, new, 1)
            return
        point.size = updated(point.size, point.count, place)
        point.seconds = updated(point.seconds, point.count, new)
        point.count = min(point.count + 1, MAX_COUNT)

    def at(self, size: float, columns: int) -> Estimate:
        """Return what is expected of a size."""
        place, width = math.log(size), _width(columns)
        exact = self.points.get((width, math.floor(place / _BIN)))
        if exact is not None and abs(exact.size - place) < _SAME:
            return Estimate(math.exp(exact.seconds), exact.count, 0.0)
        known, farther = self._of_width(width)
        near = min(known, key=lambda point: abs(point.size - place))
        seconds = math.exp(min(near.seconds + _slope(known, place) * (place - near.size), LIMIT))
        return Estimate(seconds, near.count, abs(place - near.size) / _BIN + farther)

    def _of_width(self, width: int) -> tuple[Sequence[Point], float]:
        nearest = min(abs(own - width) for own, _ in self.points)
        found = [point for (own, _), point in self.points.items() if abs(own - width) == nearest]
        return sorted(found, key=lambda point: point.size), 2.0 * nearest


def _slope(known: Sequence[Point], place: float) -> float:
    """Return the slope between the points around a place, or of the last ones before it; 1 where there is only one."""
    if len(known) < 2:
        return 1.0
    above = sum(point.size < place for point in known)
    first = min(max(above - 1, 0), len(known) - 2)
    one, other = known[first], known[first + 1]
    gap = other.size - one.size
    return min(max((other.seconds - one.seconds) / gap, 0.0), 2.0) if gap > _SAME else 1.0


def _width(columns: int) -> int:
    return columns.bit_length() // 2
