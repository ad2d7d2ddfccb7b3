"""What each engine can do, as tables: whether it takes a call is known without data, and before any is sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from sklearn_wsl_gpu.errors import Reason, Unsupported
from sklearn_wsl_gpu.estimators import Graph, Row, walk
from sklearn_wsl_gpu.support import array_api, cpu, cuml
from sklearn_wsl_gpu.support.entry import CallLimit, Entry, Limit
from sklearn_wsl_gpu.support.graphs import parts
from sklearn_wsl_gpu.support.request import Fact, Request, facts_of, facts_of_data, request_of

__all__ = [
    "TABLES",
    "CallLimit",
    "Entry",
    "Fact",
    "Limit",
    "Request",
    "able",
    "facts_of",
    "facts_of_data",
    "reason",
    "request_of",
]

#: Engine → estimator → what it computes of it.
TABLES: Mapping[str, Mapping[str, Entry]] = {"cuml": cuml.TABLE, "array_api": array_api.TABLE}


def reason(engine: str, request: Request) -> Reason | None:
    """Return why an engine does not take a call, or None if it does.

    Parameters
    ----------
    engine : str
        Name of an engine; one without a table here is asked on the worker, and gets None.
    request : Request
    """
    name = request.row.name
    if isinstance(request.row, Graph):
        return next((why for part in parts(request) if (why := _reason_of(engine, name, *part)) is not None), None)
    if engine == "cpu":
        words = cpu.objection(request)
        return None if words is None else Reason("unsupported-argument", f"{name}: {words}.")
    if engine not in TABLES:
        return None
    entry = TABLES[engine].get(name)
    words = "it is not in its table" if entry is None else entry.objection(request)
    return None if words is None else Reason("unsupported-by-engine", f"{name} by {engine}: {words}.")


def _reason_of(engine: str, graph: str, part: Any, request: Request | None) -> Reason | None:
    if request is not None:
        return reason(engine, request)
    what = type(part).__qualname__
    return Reason("unsupported-part", f"{graph}: it holds a {what}, which is none of the table.")


def able(engines: Mapping[str, Collection[str]], row: Row, ask: Callable[[], Request]) -> list[str]:
    """Return the engines that take a call, in their order.

    Parameters
    ----------
    engines : mapping of str to collection of str
        The names of the estimators that each engine may take.
    row : Row
        The estimator.
    ask : callable
        Returns the request; it is not called if all of them take whatever calls of the row.

    Raises
    ------
    Unsupported
        If there is none, with the reasons of all.
    """
    found, reasons = [], []
    for engine, estimators in engines.items():
        why = _objection(engine, estimators, row, ask)
        if why is None:
            found.append(engine)
        else:
            reasons.append(why)
    if not found:
        raise Unsupported(" ".join(why.words for why in reasons), reasons[0].code)
    return found


def _objection(engine: str, estimators: Collection[str], row: Row, ask: Callable[[], Request]) -> Reason | None:
    names = [row.name]
    if isinstance(row, Graph):
        names = [own.name for own, _ in walk(row, ask().parameters) if own is not None and not isinstance(own, Graph)]
    absent = next((name for name in names if name not in estimators), None)
    if absent is not None:
        return Reason("unsupported-by-engine", f"The engine {engine} does not compute {absent}.")
    takes_all = engine == "cpu" and row.declined is None and not isinstance(row, Graph)
    return None if takes_all else reason(engine, ask())
