"""What calls cost, here and there: a table of measured seconds, and what is predicted from it. No clock, no file.

Predicted seconds of a call that goes are round trip + bytes ÷ bandwidth + what the engine takes; of one that stays,
what scikit-learn takes here. What was not measured yet is derived from the other side by what was published.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sklearn_wsl_gpu.curves import LIMIT, MAX_COUNT, Curve, Estimate, Point, updated
from sklearn_wsl_gpu.predictions import Prediction, Work
from sklearn_wsl_gpu.published import outlook

#: Until they are measured: a small call to a process of this machine, and a copy into memory that both map.
_ROUND_TRIP, _BANDWIDTH = 5e-4, 2e9
#: What the first small call tells of the round trip at most: it may have waited for another one, or a start.
_FIRST_ROUND_TRIP = 0.02
#: Calls that tell of the round trip have at most so many bytes, such as tell of the bandwidth at least so many.
_SMALL_BYTES, _LARGE_BYTES = 2**16, 2**20
#: The least data of the calls that were published.
_PUBLISHED_BYTES = 2**18
#: Measurements tell of sizes up to so many doublings away.
_NEAR = 2.0
_MAX_CURVES, _MAX_POINTS, _MAX_LINKS, _MAX_NAME = 512, 2000, 64, 400
#: The place of calls that are done here.
_HERE = ""
_FORMAT = 2
_NEVER = -1


@dataclass(slots=True)
class _Link:
    """Round trip (seconds) and bandwidth (bytes a second) to a place, as logarithms; what computes there, seen when."""

    round_trip: float = math.log(_ROUND_TRIP)
    trips: int = 0
    bandwidth: float = math.log(_BANDWIDTH)
    loads: int = 0
    engine: str = ""
    day: int = 0

    def seconds(self, nbytes: int) -> float:
        return math.exp(self.round_trip) + nbytes / math.exp(self.bandwidth)

    def add(self, nbytes: int, seconds: float) -> None:
        if nbytes <= _SMALL_BYTES:
            seconds = seconds if self.trips else min(seconds, _FIRST_ROUND_TRIP)
            self.round_trip = updated(self.round_trip, self.trips, math.log(max(seconds, 1e-6)))
            self.trips = min(self.trips + 1, MAX_COUNT)
        elif nbytes >= _LARGE_BYTES:
            moving = max(seconds - math.exp(self.round_trip), seconds / 10, 1e-6)
            self.bandwidth = updated(self.bandwidth, self.loads, math.log(nbytes / moving))
            self.loads = min(self.loads + 1, MAX_COUNT)


class Table:
    """Measured costs of calls.

    What it predicts depends on nothing but what was noted, in its order. At most 512 kinds of calls are kept; those
    that were noted longest ago go first.

    Parameters
    ----------
    day : int
        Number of today: what has computed at a place the day before yesterday may be something else by now.
    """

    def __init__(self, day: int = 0) -> None:
        self.day = day
        self._curves: dict[tuple[str, str], Curve] = {}
        self._links: dict[str, _Link] = {}
        self._noted: set[Any] = set()

    def predict(self, work: Work) -> Prediction:
        """Return what a call is expected to cost, and whether it is to stay.

        A side that may be the cheaper one is tried: as long as it was never measured, it may cost what was published of
        its best case, though not less than half of what is likely; by measuring the doubt vanishes.
        """
        link = self._links.get(work.place) or _Link()
        work = work._replace(engine=work.engine or link.engine)
        here, there = self._curves.get((_HERE, work.kind)), self._curves.get((_place(work), work.kind))
        engine = there.engine if there is not None else work.engine
        hope = outlook(work.kind, engine, child=work.child)
        local = here.at(work.size, work.columns) if here is not None else None
        remote = there.at(work.size, work.columns) if there is not None else None
        if local is not None and remote is not None:
            # What was published tells more of the one than measurements far away do.
            if remote.doublings > _NEAR:
                remote = None
            elif local.doublings > _NEAR:
                local = None
        if local is None and remote is None:
            # It goes, as was asked for, unless that is not expected to pay at any size.
            stays = hope.likely < 1 or hope.best <= 1
            return Prediction(work.kind, stays, None, None, (False, False))
        crossing = link.seconds(work.nbytes - work.lying)
        if local is None:
            assert remote is not None
            # What was published is of more data; of little, scikit-learn may be done before a device has begun.
            worst = hope.worst * min(work.nbytes / _PUBLISHED_BYTES, 1)
            seconds, least = remote.seconds * hope.likely, remote.seconds * worst
        else:
            seconds = local.seconds
            least = local.seconds / _doubt(local, remote)
        if remote is None:
            engines, fastest = seconds / hope.likely, seconds / min(hope.best, 2 * hope.likely)
        else:
            engines = remote.seconds
            fastest = remote.seconds / _doubt(remote, local)
        known = (local is not None, remote is not None)
        return Prediction(work.kind, least <= crossing + fastest, seconds, crossing + engines, known)

    def note_local(self, work: Work, seconds: float) -> None:
        """Note what a call took that was done here."""
        self._note(_HERE, work, "", seconds)

    def note_remote(self, work: Work, engine: str, seconds: float, crossing: float, nbytes: int) -> None:
        """Note what a call took that a worker did.

        Parameters
        ----------
        work : Work
        engine : str
            What computed it.
        seconds : float
            All of it, the start of a worker left out.
        crossing : float
            Seconds of it in which data went there and back.
        nbytes : int
            What crossed.
        """
        link = self._links.pop(work.place, None) or _Link()
        self._links[work.place] = link
        if len(self._links) > _MAX_LINKS:
            del self._links[next(iter(self._links))]
        link.engine, link.day = work.engine, self.day
        link.add(nbytes, crossing)
        self._noted.add(work.place)
        # What the crossing of the data does not explain is the engine's: state that went along, results.
        least = max(seconds - crossing, seconds / 100)
        self._note(_place(work), work, engine, max(seconds - link.seconds(work.nbytes - work.lying), least))

    def note_engine(self, work: Work, engine: str, seconds: float) -> None:
        """Note what an engine took for a call of which it is not known what else it would have taken."""
        self._note(_place(work), work, engine, seconds)

    def _note(self, place: str, work: Work, engine: str, seconds: float) -> None:
        key = (place, work.kind)
        curve = self._curves.pop(key, None) or Curve()
        self._curves[key] = curve  # the last noted is the last
        if len(self._curves) > _MAX_CURVES:
            del self._curves[next(iter(self._curves))]
        curve.engine = engine
        curve.add(work.size, work.columns, seconds)
        self._noted.add(key)

    def to_data(self) -> dict[str, Any]:
        """Return it as plain data, as for JSON."""
        curves = [
            [place, kind, curve.engine, [[*key, p.size, p.seconds, p.count] for key, p in curve.points.items()]]
            for (place, kind), curve in self._curves.items()
        ]
        links = [
            [place, link.engine, link.round_trip, link.trips, link.bandwidth, link.loads, link.day]
            for place, link in self._links.items()
        ]
        return {"format": _FORMAT, "links": links, "curves": curves}

    def take_over(self, data: Any) -> None:
        """Take what another table has kept; what was noted here stands.

        Raises
        ------
        ValueError
            If these are not the data of a table. Nothing is changed then.
        """
        try:
            curves, links = dict(_read_curves(data)), dict(_read_links(data))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"No table of costs: {error}") from error
        for link in links.values():
            if not 0 <= self.day - link.day <= 1:
                link.engine = ""
        # Theirs first, so that they leave first.
        self._curves = _merged(curves, self._curves, self._noted, _MAX_CURVES)
        self._links = _merged(links, self._links, self._noted, _MAX_LINKS)
        self._noted &= self._curves.keys() | self._links.keys()


def without_engines(data: Any) -> Any:
    """Return the data of a table without what it knows of the engines at each place: they may be others now.

    Raises
    ------
    ValueError
        If these are not the data of a table.
    """
    Table().take_over(data)
    return {**data, "links": [[*link[:-1], _NEVER] for link in data["links"]]}


def _place(work: Work) -> str:
    """Return what is measured of a place by itself: with other engines it is another one."""
    return f"{work.place} by {work.engine}"[:_MAX_NAME]


def _doubt(own: Estimate, other: Estimate | None) -> float:
    """Return how many times less than measured a side may cost.

    Much, if it was measured once, or at another size; a little more with every call that only the other side gets.
    """
    idle = 0 if other is None else other.times / own.times / 200
    return 1 + 1 / own.times**2 + min(max(own.doublings - 1, 0) / 4, 2) + min(idle, 1)


def _merged(theirs: Mapping[Any, Any], ours: Mapping[Any, Any], noted: Container[Any], most: int) -> dict[Any, Any]:
    stands = {key: value for key, value in ours.items() if key in noted}
    rest = {key: value for key, value in {**ours, **theirs}.items() if key not in stands}
    return dict([*rest.items(), *stands.items()][-most:])


def _read_curves(data: Any) -> Iterator[tuple[tuple[str, str], Curve]]:
    if data["format"] != _FORMAT:
        raise ValueError("Another format.")
    for place, kind, engine, points in data["curves"]:
        found = {
            (_whole(width), _whole(number)): Point(_logarithm(size), _logarithm(seconds), _whole(count, 1))
            for width, number, size, seconds, count in points
        }
        if not 0 < len(points) <= _MAX_POINTS:
            raise ValueError("A kind of call without measurements, or with more than are kept.")
        yield (_name(place), _name(kind)), Curve(_name(engine), found)


def _read_links(data: Any) -> Iterator[tuple[str, _Link]]:
    for place, engine, round_trip, trips, bandwidth, loads, day in data["links"]:
        numbers = (_logarithm(round_trip), _whole(trips, 0), _logarithm(bandwidth), _whole(loads, 0))
        if type(day) is not int:
            raise ValueError("Not the number of a day.")
        yield _name(place), _Link(*numbers, _name(engine), day)


def _name(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MAX_NAME:
        raise ValueError("Not a name.")
    return value


def _logarithm(value: Any) -> float:
    if type(value) not in (int, float) or not -LIMIT <= value <= LIMIT:
        raise ValueError("Not the logarithm of a measurement.")
    return float(value)


def _whole(value: Any, least: int = -MAX_COUNT) -> int:
    if type(value) is not int or not least <= value <= MAX_COUNT:
        raise ValueError("Not a whole number of a table.")
    return value
