"""What ran where, why not elsewhere, and what it cost."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sklearn_wsl_gpu.errors import Reason
from sklearn_wsl_gpu.tables import as_html, as_text

PHASES = ("start", "gather", "send", "compute", "receive", "adopt")
#: Older calls leave the list; the totals keep counting them.
_MAX_CALLS = 10_000


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call inside ``offload()``.

    Attributes
    ----------
    estimator, method : str
        What was called.
    where : str
        ``"worker"`` or ``"local"``; ``"in parts"`` for an estimator made of others, whose parts are calls of their own.
    engine : str
        Engine that computed it; ``"scikit-learn"`` for local calls.
    reason : Reason or None
        Why it was not done by the worker.
    seconds : dict of str to float
        Seconds by phase: start (of worker and session, where there was none yet), gather (take apart), send (place,
        hand over), compute (in the engine), receive (on the way back, queueing included), adopt (check, assign). Local
        calls have only compute.
    bytes_sent, bytes_received : int
        Bytes of arrays and metadata, each way.
    """

    estimator: str
    method: str
    where: str
    engine: str
    reason: Reason | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    bytes_sent: int = 0
    bytes_received: int = 0

    @property
    def total_seconds(self) -> float:
        """Seconds of all phases."""
        return sum(self.seconds.values())


class Kind(NamedTuple):
    """What calls have in common that a report counts together; the fields are those of `CallRecord`.

    Of a reason whose words vary from call to call, they are the latest ones.
    """

    estimator: str
    method: str
    where: str
    engine: str
    reason: Reason | None


@dataclass(slots=True)
class _Total:
    kind: Kind
    count: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    sent: int = 0
    received: int = 0


_reports: weakref.WeakSet[Report] = weakref.WeakSet()


def after_fork() -> None:
    """Give a forked child locks of its own; a thread that is not here may hold the parent's."""
    for report in _reports:
        report._lock = threading.Lock()


class Report:
    """Calls of a block, or of the process.

    ``str()`` is a table for people, with a line for each kind of call, and so is what a notebook shows; `calls`
    and `to_dict` are data.
    """

    def __init__(self) -> None:
        self._calls: deque[CallRecord] = deque(maxlen=_MAX_CALLS)
        self._totals: dict[Kind, _Total] = {}
        self._carriers: dict[str, list[str]] = {}
        self._noted: Iterable[tuple[str, str]] = ()
        self._lock = threading.Lock()
        _reports.add(self)

    def __repr__(self) -> str:
        offloaded, local = self.offloaded, self.local
        return f"<Report: {offloaded} calls offloaded, {local} local>"

    @property
    def calls(self) -> list[CallRecord]:
        """The latest calls, oldest first, ten thousand at most."""
        with self._lock:
            return list(self._calls)

    @property
    def offloaded(self) -> int:
        """Number of calls that a worker did."""
        return self._count("worker")

    @property
    def local(self) -> int:
        """Number of calls that were done here."""
        return self._count("local")

    def counts(self) -> dict[Kind, int]:
        """Return how many calls there were of each kind."""
        with self._lock:
            return {total.kind: total.count for total in self._totals.values()}

    def add(self, record: CallRecord) -> None:
        """Add a call."""
        reason = record.reason
        key = kind = Kind(record.estimator, record.method, record.where, record.engine, reason)
        if reason is not None and reason.varies:
            key = kind._replace(reason=Reason(reason.code, ""))
        with self._lock:
            self._calls.append(record)
            total = self._totals.get(key)
            if total is None:
                total = self._totals[key] = _Total(kind)
            total.kind = kind  # the latest words
            total.count += 1
            total.sent += record.bytes_sent
            total.received += record.bytes_received
            for phase, seconds in record.seconds.items():
                total.seconds[phase] += seconds

    @property
    def carriers(self) -> dict[str, list[str]]:
        """What became of each way of arrays to workers, by its name: in use, refused, given up, and why."""
        with self._lock:
            return {name: list(told) for name, told in self._carriers.items()}

    def note_carriers(self, ways: Iterable[tuple[str, str]]) -> None:
        """Take note of carriers, and of what there is to tell of them."""
        if ways is self._noted:  # by every call but the first
            return
        with self._lock:
            self._noted = ways
            for name, words in ways:
                told = self._carriers.setdefault(name, [])
                if words not in told:
                    told.append(words)

    def _count(self, where: str) -> int:
        with self._lock:
            return sum(total.count for kind, total in self._totals.items() if kind.where == where)

    def to_dict(self) -> dict[str, Any]:
        """Return the totals as plain data, as for JSON.

        Returns
        -------
        data : dict
            ``offloaded`` and ``local``, the numbers of calls; and ``calls``, a list with a dict for each kind of
            call: ``estimator``, ``method``, ``where``, ``engine``, ``reason`` (None, or a dict of ``code`` and
            ``words``), ``n`` (number of calls), ``seconds`` (dict by phase), ``bytes_sent``, ``bytes_received``; and
            ``carriers``, as `carriers`.
        """
        with self._lock:
            totals = [replace(total, seconds=dict(total.seconds)) for total in self._totals.values()]
        calls = [
            {
                **total.kind._asdict(),
                "reason": _plain(total.kind.reason),
                "n": total.count,
                "seconds": total.seconds,
                "bytes_sent": total.sent,
                "bytes_received": total.received,
            }
            for total in totals
        ]
        number = {where: sum(call["n"] for call in calls if call["where"] == where) for where in ("worker", "local")}
        return {"offloaded": number["worker"], "local": number["local"], "calls": calls, "carriers": self.carriers}

    def __str__(self) -> str:
        return as_text(self.to_dict())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        # What IPython shows in a terminal.
        printer.text(str(self))

    def _repr_html_(self) -> str:
        return as_html(self.to_dict())


def _plain(reason: Reason | None) -> dict[str, str] | None:
    return None if reason is None else {"code": reason.code, "words": reason.words}


#: All calls of this process.
process_report = Report()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork)
