"""Rounds: contestants in turn, each after a memcpy of the same bytes and, where it matters, a bare echo."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from measuring.arrays import Arrays
from measuring.memory import settle
from measuring.runner import Broken, Runner, TooSlow, kill_orphans

#: Rounds by size, up to so many bytes.
_ROUNDS = ((2**16, 101), (2**20, 51), (2**24, 21), (2**28, 7), (2**62, 5))
_START_SECONDS = 60.0
#: Above this the echo is no measure of anything.
ECHO_BYTES = 2**20


def rounds_of(nbytes: int) -> int:
    """Return how many rounds there are at a size."""
    return next(rounds for most, rounds in _ROUNDS if nbytes <= most)


@dataclass
class Row:
    """What was measured of a contestant in a mode, at a size and layout; lists with a number for each round."""

    contestant: str
    mode: str
    nbytes: int
    layout: str
    seconds: list[float] = field(default_factory=list)
    memcpy: list[float] = field(default_factory=list)
    echo: list[float] = field(default_factory=list)
    phases: list[dict[str, float]] = field(default_factory=list)
    state: str = "ok"

    @property
    def ratio(self) -> float:
        """Median of its seconds, each by those of the memcpy directly before."""
        return statistics.median(mine / base for mine, base in zip(self.seconds, self.memcpy, strict=True))

    @property
    def echo_ratio(self) -> float:
        """As `ratio`, by the echo."""
        return statistics.median(mine / base for mine, base in zip(self.seconds, self.echo, strict=True))

    def to_dict(self) -> dict[str, Any]:
        about = {"contestant": self.contestant, "mode": self.mode, "bytes": self.nbytes, "layout": self.layout}
        about |= {"state": self.state, "rounds": len(self.seconds)}
        if self.seconds:
            about |= {name: summary(getattr(self, name)) for name in ("seconds", "memcpy")}
            ratios = [mine / base for mine, base in zip(self.seconds, self.memcpy, strict=True)]
            about["x memcpy"] = summary(ratios)
        if self.echo and self.seconds:
            about |= {"echo": summary(self.echo), "x echo": self.echo_ratio}
        if self.phases:
            names = self.phases[0]
            about["phases"] = {name: statistics.median(one[name] for one in self.phases) for name in names}
        return about


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return median and minimum."""
    return {"median": statistics.median(values), "min": min(values)}


class Field:
    """All contestants that are in the race.

    Attributes
    ----------
    out : dict
        Why a contestant that was asked for is not, or no longer, there.
    """

    def __init__(self, names: Sequence[str], arrays: Arrays, logs: Path, limit: float) -> None:
        self.arrays, self.logs, self.limit = arrays, logs, limit
        self.names = list(names)
        self.out: dict[str, str] = {}
        self.runners: dict[str, Runner] = {}

    def start(self, environment: dict[str, str] | None = None) -> None:
        """Start those that are not there."""
        for name in self.names:
            if name in self.runners or name in self.out:
                continue
            runner = self.runners[name] = self.launch(name, environment)
            try:
                runner.start(_START_SECONDS)
                runner.use(_START_SECONDS, 4096, "C")
                runner.call(_START_SECONDS, runner.modes[0])
                settle(runner.pid)
            except (TooSlow, Broken) as error:
                words = f"did not start: {error if isinstance(error, Broken) else f'{_START_SECONDS:.0f} s passed'}"
                self.drop(name, words)

    def launch(self, name: str, environment: dict[str, str] | None = None) -> Runner:
        """Return a new runner that is not one of the field."""
        return Runner(name, self.arrays, self.logs / f"{name}.log", environment)

    def fresh(self, name: str, environment: dict[str, str] | None = None) -> Runner:
        """Return a new runner that has started, and is not one of the field."""
        runner = self.launch(name, environment)
        runner.start(_START_SECONDS)
        runner.use(_START_SECONDS, 4096, "C")
        return runner

    def drop(self, name: str, words: str) -> None:
        """Take a contestant out."""
        self.out[name] = words
        runner = self.runners.pop(name, None)
        if runner is not None:
            runner.kill()

    def race(self, nbytes: int, layout: str, names: Sequence[str], rounds: int) -> list[Row]:
        """Let contestants take turns, `rounds` times; return their rows."""
        left = {name: self.limit for name in names if name in self.runners}
        rows = [Row(name, mode, nbytes, layout) for name in left for mode in self.runners[name].modes]
        for name in list(left):
            self._guarded(name, left, nbytes, lambda runner, seconds: runner.use(seconds, nbytes, layout))
        warm = 1 if nbytes >= 2**26 else 3
        shuffle = random.Random(0).shuffle
        for number in range(-warm, rounds):
            # What one leaves to be done, such as pages to be written to a disk, is not always the same other's loss.
            turns = list(rows)
            shuffle(turns)
            for row in turns:
                if row.contestant in left:
                    self._guarded(row.contestant, left, nbytes, partial(self._turn, row, number, warm))
            if not left:
                break
        for row in rows:
            if row.contestant in self.out and not row.seconds:
                row.state = self.out[row.contestant]
            elif len(row.seconds) < rounds:
                row.state = f"{len(row.seconds)} of {rounds} rounds within the limit"
        return rows

    def _turn(self, row: Row, number: int, warm: int, runner: Runner, seconds: float) -> None:
        echo = None
        if row.nbytes <= ECHO_BYTES and "echo" in self.runners and row.contestant != "echo":
            echo = self.runners["echo"].call(_START_SECONDS, "echo")[0]
        base = self.arrays.memcpy(row.nbytes)
        found, phases = runner.call(seconds, row.mode, number == -warm)
        if number >= 0:
            row.seconds.append(found)
            row.memcpy.append(base)
            if echo is not None:
                row.echo.append(echo)
            if phases:
                row.phases.append(phases)

    def _guarded(self, name: str, left: dict[str, float], nbytes: int, step: Any) -> None:
        begin = time.perf_counter()
        try:
            step(self.runners[name], left[name])
        except (TooSlow, Broken) as error:
            del left[name]
            slow = isinstance(error, TooSlow)
            self.drop(name, f"> {self.limit:.0f} s at {in_words(nbytes)}" if slow else f"failed: {error}")
        else:
            left[name] -= time.perf_counter() - begin

    def stop(self) -> None:
        """End all."""
        for runner in self.runners.values():
            runner.stop()
        self.runners.clear()
        kill_orphans(set())


def in_words(nbytes: int) -> str:
    """Return a size such as 64 KB."""
    for unit, name in ((2**30, "GB"), (2**20, "MB"), (2**10, "KB")):
        if nbytes >= unit:
            return f"{nbytes / unit:g} {name}"
    return f"{nbytes} B"
