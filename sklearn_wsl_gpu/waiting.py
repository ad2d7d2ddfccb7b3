"""Who waits, whose turn is next, and how long it took: pure book-keeping, no lock, no clock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

PRIORITIES: Final = ("high", "normal", "low")
#: So many others may pass one who waits before it counts as one priority higher; so nobody waits for ever.
AGEING: Final = 8
#: Upper bounds of the classes of waits, in seconds; the last class has none.
BOUNDS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

_Item = TypeVar("_Item")


class Caller(NamedTuple):
    """Who asks for something that there may be a queue for.

    Attributes
    ----------
    priority : str
        One of `PRIORITIES`.
    owner : str
        What it is for, in words for people.
    """

    priority: str = "normal"
    owner: str = ""


class _Place:
    __slots__ = ("number", "passed", "rank")

    def __init__(self, number: int, rank: int) -> None:
        self.number = number
        self.rank = rank
        self.passed = 0

    @property
    def key(self) -> tuple[int, int]:
        return max(self.rank - self.passed // AGEING, 0), self.number


class Queue(Generic[_Item]):
    """Those who wait: high before normal before low, in order of arrival within.

    One that was passed `AGEING` times by others that came later counts as one priority higher, before all of that
    priority that came later. So one with priority low is passed at most ``2 * AGEING`` times, normal ``AGEING`` times.

    Items are told apart by identity.
    """

    def __init__(self) -> None:
        self._places: dict[int, tuple[_Item, _Place]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[_Item]:
        """Yield the items in the order in which they would be served if no other came."""
        return iter([item for item, _ in sorted(self._places.values(), key=lambda found: found[1].key)])

    def __contains__(self, item: object) -> bool:
        return id(item) in self._places

    def add(self, item: _Item, priority: str) -> None:
        """Let an item wait."""
        self._count += 1
        self._places[id(item)] = (item, _Place(self._count, PRIORITIES.index(priority)))

    @property
    def first(self) -> _Item | None:
        """Whose turn it is; None if nobody waits."""
        return min(self._places.values(), key=lambda found: found[1].key)[0] if self._places else None

    def is_free_for(self, priority: str) -> bool:
        """Tell whether one that comes now with this priority would be the first."""
        rank = PRIORITIES.index(priority)
        return all(place.key[0] > rank for _, place in self._places.values())

    def serve(self, item: _Item) -> None:
        """Take out an item that has got what it waited for: those that came earlier were passed."""
        place = self._places.pop(id(item))[1]
        for _, other in self._places.values():
            other.passed += other.number < place.number

    def serve_newcomer(self) -> None:
        """Note that one that did not have to wait has passed all."""
        for _, other in self._places.values():
            other.passed += 1

    def leave(self, item: _Item) -> None:
        """Take out an item that gives up waiting."""
        del self._places[id(item)]

    def by_priority(self) -> list[int]:
        """Return how many wait, by the priority that they came with."""
        counts = [0] * len(PRIORITIES)
        for _, place in self._places.values():
            counts[place.rank] += 1
        return counts


class Waits:
    """How long they have waited: a count for each class of `BOUNDS`, and the sum in seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def as_list(self) -> list[float]:
        """Return the counts, and then the seconds."""
        return [*self.counts, self.seconds]

    def add(self, seconds: float) -> None:
        """Count one wait."""
        self.counts[bisect_right(BOUNDS, seconds)] += 1
        self.seconds += seconds


def describe_queue(by_priority: Sequence[int]) -> dict[str, int]:
    """Return what `Queue.by_priority` gives, by name."""
    return dict(zip(PRIORITIES, by_priority, strict=True))


def describe_waits(waits: Sequence[float]) -> dict[str, Any]:
    """Return what `Waits.as_list` gives, by name.

    Returns
    -------
    waits : dict
        ``bounds`` of the classes in seconds, ``counts`` of each, ``total`` of all, and the sum of their ``seconds``.
    """
    *counts, seconds = waits
    return {"bounds": list(BOUNDS), "counts": counts, "total": sum(counts), "seconds": seconds}
