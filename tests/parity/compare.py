"""Where two results or two estimators first differ: the measure of "as if it had run here"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.base import BaseEstimator
from sklearn.metrics import DistanceMetric
from sklearn.neighbors import BallTree, KDTree
from sklearn.tree._tree import Tree

_SPARSE_PARTS = ("data", "indices", "indptr", "row", "col", "offsets")


def first_difference(a: Any, b: Any, path: str = "") -> str | None:
    """Return where `b` first differs from `a`, and how; None if it does not.

    Nothing is close enough: types, dtypes, shapes, memory order, writability and every bit of every value
    have to be equal. Estimators are compared attribute by attribute, in whatever order these were set.
    """
    if type(a) is not type(b):
        return _tell(path, "type", _name_of(a), _name_of(b))
    if isinstance(a, np.ndarray):
        return _arrays(a, b, path)
    if isinstance(a, np.generic):
        return _arrays(np.asarray(a), np.asarray(b), path)
    if scipy.sparse.issparse(a):
        return _sparse(a, b, path)
    if isinstance(a, Mapping):
        return _mappings(a, b, path, "[{!r}]")
    if isinstance(a, (list, tuple)):
        return _sequences(a, b, path)
    if isinstance(a, BaseEstimator):
        return _mappings(_attributes(a), _attributes(b), path, ".{}")
    return _others(a, b, path)


def _others(a: Any, b: Any, path: str) -> str | None:
    if type(a).__module__.partition(".")[0] == "pandas":
        return _frames(a, b, path)
    if isinstance(a, Tree):
        return first_difference(a.__reduce__()[1:], b.__reduce__()[1:], path)
    if isinstance(a, (KDTree, BallTree)):
        return first_difference(_contents(a), _contents(b), path)
    if isinstance(a, DistanceMetric):
        return first_difference(a.__getstate__(), b.__getstate__(), path)
    if isinstance(a, np.random.RandomState):
        return first_difference(a.get_state(legacy=False), b.get_state(legacy=False), path)
    if isinstance(a, float):
        return _arrays(np.float64(a), np.float64(b), path)
    if type(a).__module__.startswith("sklearn.") and hasattr(a, "__dict__"):
        return _mappings(_attributes(a), _attributes(b), path, ".{}")
    # What compares by identity (a function, say) is never equal to its copy: that is a difference as well.
    return None if a == b else _tell(path, "value", a, b)


def _attributes(value: Any) -> dict[str, Any]:
    attributes = dict(vars(value))
    if type(value).__name__ == "SVR" and attributes.get("_sparse"):
        # scikit-learn leaves these counts uninitialised after a sparse regression, and never reads them.
        attributes.pop("_n_support", None)
    return attributes


def _contents(tree: Any) -> Any:
    # Items 7 to 10 count what queries did: they are the history of the object, and change no result.
    state = tree.__getstate__()
    return (*state[:7], *state[11:])


def _arrays(a: Any, b: Any, path: str) -> str | None:
    if a.dtype != b.dtype:
        return _tell(path, "dtype", a.dtype, b.dtype)
    if a.shape != b.shape:
        return _tell(path, "shape", a.shape, b.shape)
    if a.dtype.names:
        # By field: the bytes between the fields of a record are whatever was in memory.
        found = (_arrays(a[name], b[name], f"{path}[{name!r}]") for name in a.dtype.names)
        return next(filter(None, found), None)
    if np.ma.isMaskedArray(a):
        return _arrays(np.ma.getmaskarray(a), np.ma.getmaskarray(b), f"{path}.mask") or _arrays(
            a.filled(0), b.filled(0), f"{path}.data"
        )
    if a.dtype.hasobject:
        return _sequences(a.ravel().tolist(), b.ravel().tolist(), path)
    if a.tobytes() != b.tobytes():
        return _tell(path, "values", _some_difference(a, b), "")
    if _order(a) != _order(b) and "strided" not in (_order(a), _order(b)):
        return _tell(path, "memory order", _order(a), _order(b))
    if isinstance(a, np.ndarray) and a.flags.writeable != b.flags.writeable:
        return _tell(path, "writeable", a.flags.writeable, b.flags.writeable)
    return None


def _order(array: Any) -> str:
    # A view on every second row of something is one here and a copy there: no caller can rely on that.
    flags = array.flags
    names = {(True, True): "any", (True, False): "C", (False, True): "F", (False, False): "strided"}
    return names[bool(flags.c_contiguous), bool(flags.f_contiguous)]


def _some_difference(a: Any, b: Any) -> str:
    if a.dtype.kind not in "fciu":
        return f"{a.ravel()[:3]}… is not {b.ravel()[:3]}…"
    different = np.flatnonzero(a.ravel() != b.ravel())
    if not different.size:
        return "signs of zero, or kinds of NaN"
    at = int(different[0])
    return f"{different.size} of {a.size}, first {a.ravel()[at]!r} is not {b.ravel()[at]!r} at {at}"


def _sparse(a: Any, b: Any, path: str) -> str | None:
    if a.shape != b.shape:
        return _tell(path, "shape", a.shape, b.shape)
    for part in _SPARSE_PARTS:
        if hasattr(a, part):
            found = _arrays(getattr(a, part), getattr(b, part), f"{path}.{part}")
            if found:
                return found
    return None


def _frames(a: Any, b: Any, path: str) -> str | None:
    for name in ("columns", "dtypes", "name", "index"):
        if hasattr(a, name):
            here, there = (list(value) if np.ndim(value) else value for value in (getattr(a, name), getattr(b, name)))
            if here != there:
                return _tell(f"{path}.{name}", "value", here, there)
    return _arrays(a.to_numpy(), b.to_numpy(), path)


def _mappings(a: Mapping[Any, Any], b: Mapping[Any, Any], path: str, step: str) -> str | None:
    if a.keys() != b.keys():
        return _tell(path, "names", sorted(map(str, a.keys() - b.keys())), sorted(map(str, b.keys() - a.keys())))
    found = (first_difference(value, b[name], path + step.format(name)) for name, value in a.items())
    return next(filter(None, found), None)


def _sequences(a: Sequence[Any], b: Sequence[Any], path: str) -> str | None:
    if len(a) != len(b):
        return _tell(path, "length", len(a), len(b))
    found = (first_difference(one, other, f"{path}[{at}]") for at, (one, other) in enumerate(zip(a, b, strict=True)))
    return next(filter(None, found), None)


def _name_of(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__} ({value!r:.60})"


def _tell(path: str, what: str, a: Any, b: Any) -> str:
    return f"{path or 'it'}: {what} {a} {'is not ' + str(b) if str(b) else ''}".rstrip()
