"""What each engine can do, as tables: whether it takes a call is known without data, and before any is sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

from sklearn_wsl_gpu.errors import Reason, Unsupported
from sklearn_wsl_gpu.estimators import Graph, Row
from sklearn_wsl_gpu.support import array_api, cpu, cuml
from sklearn_wsl_gpu.support.entry import CallLimit, Entry, Limit
from sklearn_wsl_gpu.support.graphs import parts
from sklearn_wsl_gpu.support.request import (
    Fact,
    Request,
    facts_of,
    facts_of_data,
    names_of,
    request_of,
    without_target,
)

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
    "is_single",
    "names_of",
    "outdated",
    "reason",
    "request_of",
    "without_target",
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
        Of an estimator that is not made of others.
    """
    name = request.row.name
    if engine == "cpu":
        words = cpu.objection(request)
        return None if words is None else Reason("unsupported-argument", f"{name}: {words}.")
    if engine not in TABLES:
        return None
    entry = TABLES[engine].get(name)
    words = "it is not in its table" if entry is None else entry.objection(request)
    return None if words is None else Reason("unsupported-by-engine", f"{name} by {engine}: {words}.")


def outdated(engine: str, versions: Mapping[str, str]) -> dict[str, str]:
    """Return the estimators of an engine's table that it does not compute with versions of packages, and why.

    Parameters
    ----------
    engine : str
    versions : mapping of str to str
        Of the packages on the worker's side, by the names that the table has for them.
    """
    found = {name: entry.objection_to_versions(versions) for name, entry in TABLES[engine].items()}
    return {name: words for name, words in found.items() if words is not None}


def is_single(engine: str, row: Row) -> bool:
    """Tell whether an engine computes an estimator in single precision, whatever the precision of X is."""
    entry = TABLES.get(engine, {}).get(row.name)
    return entry is not None and entry.single


def able(engines: Mapping[str, Collection[str]], row: Row, ask: Callable[[], Request]) -> list[str]:
    """Return the engines that take a call, in their order.

    Parameters
    ----------
    engines : mapping of str to collection of str
        The names of the estimators that each engine may take.
    row : Row
        The estimator. Of one that is made of others each part is taken by an engine of its own: the answer is one
        text, with the names of all that do so, separated by commas.
    ask : callable
        Returns the request; it is not called if all of them take whatever calls of the row.

    Raises
    ------
    Unsupported
        If there is none, with the reasons of all.
    """
    if isinstance(row, Graph):
        taken = _able_parts(engines, ask())
        return [",".join(engine for engine in engines if engine in taken)]
    found, reasons = [], []
    for engine, estimators in engines.items():
        if row.name not in estimators:
            reasons.append(Reason("unsupported-by-engine", f"The engine {engine} does not compute {row.name}."))
        elif (why := None if engine == "cpu" and row.declined is None else reason(engine, ask())) is None:
            found.append(engine)
        else:
            reasons.append(why)
    if not found:
        raise Unsupported(" ".join(why.words for why in reasons), reasons[0].code)
    return found


def _able_parts(engines: Mapping[str, Collection[str]], request: Request) -> set[str]:
    taken: set[str] = set()
    for part, asked in parts(request):
        if asked is None:
            what = type(part).__qualname__
            words = f"{request.row.name}: it holds a {what}, which is none of the table."
            raise Unsupported(words, "unsupported-part")
        found = able(engines, asked.row, partial(_itself, asked))
        taken.update(name for one in found for name in one.split(","))
    return taken or {next(iter(engines))}


def _itself(request: Request) -> Request:
    return request
