"""What of a call its costs depend on: read from shapes and parameters, in microseconds; no array is looked into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sklearn_wsl_gpu.config import Settings
from sklearn_wsl_gpu.estimators import Graph, row_of, walk
from sklearn_wsl_gpu.invocation import Invocation
from sklearn_wsl_gpu.predictions import Work

#: Parameters by which the work is multiplied, and attributes with a row for each sample that a prediction looks at.
_MULTIPLIERS = ("n_estimators", "n_clusters", "n_components", "n_init")
_ROWS = ("_fit_X", "support_vectors_", "X_fit_")
#: Parameters that choose another algorithm, or how many cores it has; and the values that most leave them at.
_CHOICES = ("algorithm", "solver", "svd_solver", "kernel", "metric", "method", "n_jobs")
_USUAL = (None, 1, "auto")
_ITEM_BYTES = 8
_MAX_NAME, _MAX_SIZE = 400, 1e25


def of_call(settings: Settings, call: Invocation) -> Work:
    """Return it of a method of an estimator, or of one that is made of others."""
    attributes = vars(call.estimator)
    name, choices, factor = call.row.name, _choices(attributes), _factor(attributes)
    if isinstance(call.row, Graph):
        name, factor = _name_of_graph(call.row.name, walk(call.row, attributes))
    if not call.fits:
        factor *= _seen(attributes)
    return _work(settings, f"{name}.{call.method}{choices}", call.data, factor)


def of_fits(settings: Settings, name: str, estimator: Any, X: Any, number: int, jobs: int | None) -> Work:
    """Return it of the fits of a search or cross-validation.

    Parameters
    ----------
    settings : Settings
    name : str
        What is done with each, such as ``"fit_and_score"``.
    estimator : estimator
        Of the first fit.
    X : array-like of shape (n_samples, n_features)
    number : int
        How many fits there are.
    jobs : int or None
        What scikit-learn's joblib was asked for.
    """
    row, attributes = row_of(type(estimator)), vars(estimator)
    kind, factor = type(estimator).__name__, _factor(attributes)
    if isinstance(row, Graph):
        kind, factor = _name_of_graph(kind, walk(row, attributes))
    choices = _choices(attributes) + ("" if jobs in _USUAL else f" jobs={jobs}")
    return _work(settings, f"{kind}.{name}{choices}", X, factor * number)


def of_function(settings: Settings, name: str, array: Any, engine: str) -> Work:
    """Return it of a function, by its name, its first array, and the engine that would compute it."""
    return _work(settings, name, array, 1)._replace(engine=engine)


def offered(work: Work, engines: Iterable[str]) -> Work:
    """Return it with all engines that a worker has turned out to have."""
    return work._replace(engine=",".join(engines))


def _work(settings: Settings, kind: str, data: Any, factor: float) -> Work:
    columns, nbytes = _extent(data)
    child = settings.endpoint is None
    place = f"{settings.endpoint or 'child'} {settings.engine} {settings.device}"
    if settings.carrier != "auto":
        place += f" {settings.carrier}"
    engine = settings.engine if child and settings.engine != "auto" else ""
    size = min(max(nbytes, _ITEM_BYTES) * factor, _MAX_SIZE)
    return Work(kind[:_MAX_NAME], size, columns, nbytes, place, engine, child)


def _extent(data: Any) -> tuple[int, int]:
    """Return the number of columns, and of bytes."""
    shape = getattr(data, "shape", None)
    if not isinstance(shape, tuple):
        if not isinstance(data, (list, tuple)) or not data:
            return 1, 0
        columns = len(data[0]) if isinstance(data[0], (list, tuple)) else 1
        return columns, _ITEM_BYTES * len(data) * columns
    columns = shape[1] if len(shape) > 1 else 1
    nbytes = getattr(data, "nbytes", None)
    if type(nbytes) is int and type(columns) is int:
        return columns, nbytes
    stored: Any = getattr(data, "nnz", None)
    try:
        if hasattr(stored, "__index__"):  # and is no column of that name
            return int(columns), (_ITEM_BYTES + 4) * int(stored)  # of a sparse matrix: values, numbers of their columns
        return int(columns), _ITEM_BYTES * int(shape[0]) * int(columns)
    except (TypeError, ValueError, IndexError):
        return 1, 0


def _factor(attributes: Mapping[str, Any]) -> float:
    factor = 1.0
    for name in _MULTIPLIERS:
        value = attributes.get(name)
        if isinstance(value, int) and value > 1:
            factor *= value
    return factor


def _seen(attributes: Mapping[str, Any]) -> float:
    factor = 1.0
    for name in _ROWS:
        shape = getattr(attributes.get(name), "shape", ())
        factor *= max(shape[0], 1) if shape else 1
    return factor


def _choices(attributes: Mapping[str, Any]) -> str:
    found = ""
    for name in _CHOICES:
        value = attributes.get(name)
        if isinstance(value, (str, int)) and value not in _USUAL:
            found += f" {name}={value}"
    return found


def _name_of_graph(name: str, parts: Iterable[tuple[Any, Any]]) -> tuple[str, float]:
    names, factor = [], 1.0
    for _, part in parts:
        names.append(type(part).__name__)
        factor *= _factor(getattr(part, "__dict__", {}))
    return f"{name}({','.join(names)})", factor
