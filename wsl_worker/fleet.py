"""The executors of a worker: one for each device, and for each session the one that serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from wsl_worker.arrivals import Arrival
from wsl_worker.scheduler import Scheduler
from wsl_worker.sessions import Session

#: Counters of a single executor that are told of all together.
_SUMS = ("queued", "running", "done", "executor_starts")
#: The same, of lists of numbers.
_LIST_SUMS = ("queued_by_priority", "queue_waits")


class Fleet:
    """Schedulers, each with an executor of its own; sessions are spread over them.

    The first executor is started with the worker; another when a session comes that would share one.

    Parameters
    ----------
    make : callable
        Returns the scheduler of a device.
    devices : sequence of str
        Names of devices; with ``["auto"]`` the first executor says which others there are.
    """

    def __init__(self, make: Callable[[str], Scheduler], devices: Sequence[str]) -> None:
        self._make = make
        self._all = [make(device) for device in devices]
        self._devices = list(devices)
        self._started = self._all[:1]
        self._served: dict[int, Scheduler] = {}

    def __iter__(self) -> Iterator[Scheduler]:
        return iter(list(self._started))

    @property
    def first(self) -> Scheduler:
        """The one that is there from the beginning."""
        return self._all[0]

    def start(self) -> None:
        """Start the first executor."""
        self.first.start()

    def place(self) -> Scheduler:
        """Return the scheduler for a new session: that with the fewest, whose executor is started if need be."""
        if self.first.ready and len(self._all) == 1:
            self._all += [self._make(device) for device in self.first.others]
            self._devices += self.first.others
        able = [one for one in self._all if not one.broken] or self._all[:1]
        found = min(able, key=lambda one: sum(served is one for served in self._served.values()))
        if found not in self._started:
            self._started.append(found)
            found.start()
        return found

    def attach(self, session: Session, scheduler: Scheduler) -> None:
        """Have a session served by a scheduler."""
        self._served[session.number] = scheduler
        scheduler.attach(session)

    def detach(self, session: Session) -> None:
        """Forget a session."""
        scheduler = self._served.pop(session.number, None)
        if scheduler is not None:
            scheduler.detach(session)

    def of(self, session: Session) -> Scheduler:
        """Return the scheduler that serves a session."""
        return self._served[session.number]

    def arrived(self, session: int, arrival: Arrival) -> None:
        """Pass on what has come of a session's arrays."""
        if session in self._served:
            self._served[session].arrived(session, arrival)

    def stop(self) -> None:
        """End all executors."""
        for scheduler in self._started:
            scheduler.stop()

    def counters(self) -> list[list[Any]]:
        """Return what there is to tell, as pairs of name and value: of all, and ``executors`` of each."""
        each = [dict((name, value) for name, value in one.counters()) for one in self._started]
        together = dict(each[0])
        for name in _SUMS:
            together[name] = sum(found[name] for found in each)
        for name in _LIST_SUMS:
            together[name] = [sum(column) for column in zip(*[found[name] for found in each], strict=True)]
        executors = [
            [device, found["executor_pid"], found["ready"], one.broken, found["done"],
             sum(served is one for served in self._served.values())]
            for device, one, found in zip(self._names(), self._started, each, strict=True)
        ]  # fmt: skip
        return [*[[name, value] for name, value in together.items()], ["executors", executors]]

    def _names(self) -> list[str]:
        return [self._devices[self._all.index(one)] for one in self._started]
