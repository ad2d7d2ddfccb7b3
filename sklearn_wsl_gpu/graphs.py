"""Estimators that are made of others: whether one goes to the worker as a whole, and how its parts are fitted there."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import scipy.sparse

from sklearn_wsl_gpu import _compat, inheritance
from sklearn_wsl_gpu.config import Settings
from sklearn_wsl_gpu.errors import Reason, RemoteProtocolError, Unsupported
from sklearn_wsl_gpu.estimators import Graph, Row, row_of, walk
from sklearn_wsl_gpu.gather import NAMES, part_attributes
from sklearn_wsl_gpu.state import checks, objects, tables

#: A new state of an object, to be assigned when all is checked.
Assignment = tuple[Any, dict[str, Any]]


def reason_to_split(settings: Settings, row: Row, estimator: Any, data: Any, *, itself: bool = False) -> Reason | None:
    """Return why an estimator is done part by part, or None if it may go as a whole.

    Parameters
    ----------
    settings : Settings
    row : Row
        The estimator's.
    estimator : estimator
    data : object
        The argument X.
    itself : bool
        Whether to look at the estimator itself, too.
    """
    is_carried = data is None or isinstance(data, (np.ndarray, list)) or tables.is_table(data)
    if not is_carried and not scipy.sparse.issparse(data):
        what = type(data)
        return Reason("table", f"A {what.__module__}.{what.__qualname__} goes to the parts of {row.name} one by one.")
    output = vars(estimator).get("_sklearn_output_config", {}).get("transform", "default")
    if _compat.is_output_configured() or output != "default":
        # What puts tables side by side leaves each column its dtype.
        return Reason("output-configured", "transform_output is set; the parts hand on tables of that kind here.")
    parts = [*([(row, estimator)] if itself else []), *walk(row, vars(estimator))]
    if any(getattr(part, "memory", None) is not None for part in [estimator, *(part for _, part in parts)]):
        return Reason("cache", f"{row.name} keeps what it computes on this machine's disk.")
    if len({id(part) for _, part in parts}) < len(parts):
        return Reason("shared-part", f"{row.name} holds the same estimator twice.")
    names = {own.name for own, _ in parts if own is not None and not isinstance(own, Graph)}
    if settings.include is not None and row.name not in settings.include and not names <= settings.include:
        return Reason("not-included", f"Not all parts of {row.name} are in include.")
    if settings.exclude is not None and not names.isdisjoint(settings.exclude):
        return Reason("excluded", f"A part of {row.name} is in exclude.")
    found = (why for own, part in parts if (why := _reason_of(row, own, part)) is not None)
    return next(found, None) or next(_declined([(row, estimator), *parts]), None)


def _declined(parts: Iterable[tuple[Row | None, Any]]) -> Iterator[Reason]:
    for row, part in parts:
        if isinstance(row, Graph) and row.declined is not None:
            words = row.declined("fit", vars(part), ())
            if words is not None:
                yield Reason("unsupported-argument", f"{row.name}: {words}.")


def _reason_of(graph: Row, row: Row | None, part: Any) -> Reason | None:
    if row is None:
        what = f"a {type(part).__qualname__}, which is none of the table"
        if isinstance(part, (list, tuple, type(None))):
            what = f"parts that a worker does not take: {part!r:.200}"
        return Reason("unsupported-part", f"{graph.name} holds {what}.")
    own = inheritance.find_own(part, row)
    if own is not None:
        return Reason("overridden", f"A {row.name} in {graph.name} has a {own} of its own.")
    if row.works_in_place(part):
        return Reason("in-place", f"{row.name} in {graph.name} may overwrite the array that it is given.")
    for name in ("_metadata_request", "_skl_callbacks", "_sklearn_output_config"):
        if vars(part).get(name):
            return Reason("configured-part", f"{row.name} in {graph.name} has a {name}, which stays in this process.")
    return None


def check_table(version: str, data: Any) -> None:
    """Check that the worker makes of a DataFrame the same.

    Parameters
    ----------
    version : str
        Of pandas that the worker has.
    data : object
        The argument X.

    Raises
    ------
    Unsupported
        If it has another pandas.
    """
    if tables.is_table(data) and version != sys.modules["pandas"].__version__:
        raise Unsupported(
            f"The worker has {f'pandas {version}' if version else 'no pandas'}, and the DataFrame is one of pandas "
            f"{sys.modules['pandas'].__version__}. Install the same version on both sides.",
            "version-mismatch",
        )


def was_fitted(row: Row, estimator: Any) -> bool:
    """Tell whether parts of an estimator have state of an earlier fit, which a worker does not learn of."""
    return any(
        own is not None and not objects.carried_attributes(part).keys() <= own.initial_names | own.parameters
        for own, part in walk(row, vars(estimator))
    )


def fitted_parts(graph: Graph, attributes: Mapping[str, Any], theirs: Any) -> Iterator[Assignment]:
    """Yield the new states of the objects that an estimator holds as its parts, from how the worker has fitted them.

    Parameters
    ----------
    graph : Graph
        Whose fit fits its parts.
    attributes : mapping of str to object
        Of the estimator here.
    theirs : object
        The worker's value of the parameter that holds the parts.

    Raises
    ------
    RemoteProtocolError
        If these are not the parts that were sent.
    """
    mine = graph.parts_of(attributes)
    found = graph.parts_of({graph.parts: theirs, graph.rest: None})
    if mine is None or found is None or [type(part) for part in mine] != [type(part) for part in found]:
        raise RemoteProtocolError("The worker sent other parts of an estimator than it was given.")
    for part, fitted in zip(mine, found, strict=True):
        row = row_of(type(part))
        assert row is not None
        yield from _fitted(row, part, vars(fitted))


def _fitted(row: Row, part: Any, theirs: dict[str, Any]) -> Iterator[Assignment]:
    new = {name: value for name, value in theirs.items() if name not in row.untouched}
    before = vars(part)
    gone = {name for name in part_attributes(row, part) if name not in theirs and name not in row.untouched}
    # The same object, where it is the same.
    new |= {
        name: before[name]
        for name in row.rewrites.split()
        if isinstance(new.get(name), str) and new[name] == before[name]
    }
    merged = {name: value for name, value in before.items() if name not in gone | {NAMES}} | new
    if isinstance(row, Graph) and row.fits_parts:
        yield from fitted_parts(row, before, theirs.get(row.parts))
        merged[row.parts] = row.list_after_fit(before[row.parts])
    probe = objects.blank(type(part))
    vars(probe).update(merged)
    checks.check_estimator(row.name, probe)
    yield part, merged
