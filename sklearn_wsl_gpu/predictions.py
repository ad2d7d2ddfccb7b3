"""What a call is, as far as its costs depend on it, and what it is expected to cost."""

from __future__ import annotations

from typing import NamedTuple


class Work(NamedTuple):
    """What of a call its costs depend on.

    Attributes
    ----------
    kind : str
        Estimator and method, such as ``"KMeans.predict"``; after a space, parameters that choose another algorithm.
    size : float
        Bytes of the data, times parameters by which the work is multiplied, such as the number of trees.
    columns : int
        Of the data.
    nbytes : int
        Bytes of the data.
    place : str
        Where it would go: what was asked for of a worker; never empty.
    engine : str
        What is known to compute there, by preference, with commas between; empty if nothing is.
    child : bool
        Whether the worker there is started by this process.
    lying : int
        Bytes of the data that need not be sent, because they lie in the pool.
    """

    kind: str
    size: float
    columns: int
    nbytes: int
    place: str
    engine: str = ""
    child: bool = True
    lying: int = 0


class Prediction(NamedTuple):
    """What a call is expected to cost.

    Attributes
    ----------
    kind : str
    stays : bool
        Whether it is to be done here.
    local, remote : float or None
        Seconds here and there; None if nothing is known.
    measured : tuple of bool
        Whether these come from measurements of such calls, here and there.
    """

    kind: str
    stays: bool
    local: float | None
    remote: float | None
    measured: tuple[bool, bool]

    @property
    def words(self) -> str:
        """The costs for a person, such as "KMeans.predict stayed: 3 ms here, 41 ms there."."""
        name = self.kind.partition(" ")[0]
        if self.local is None or self.remote is None:
            return f"{name} stayed: the engine is not known to be faster at it, and the data would have to cross."
        here, there = (
            ("" if known else "about ") + duration(seconds)
            for known, seconds in zip(self.measured, (self.local, self.remote), strict=True)
        )
        sure = "" if self.local <= self.remote else ", and is measured here once more to be sure"
        return f"{name} stayed: {here} here, {there} there{sure}."


def duration(seconds: float) -> str:
    """Return seconds with a unit, to two digits below ten of it."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        value = seconds / scale
        if value >= 0.995 or unit == "us":
            break
    return f"{value:.0f} {unit}" if value >= 9.95 else f"{value:.2g} {unit}"
