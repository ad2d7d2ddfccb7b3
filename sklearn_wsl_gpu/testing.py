"""Comparing what scikit-learn left here with what an offloaded call left: for tests, ours and yours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.sparse
from sklearn._loss._loss import CyLossFunction
from sklearn.base import BaseEstimator
from sklearn.metrics import DistanceMetric
from sklearn.neighbors import BallTree, KDTree
from sklearn.tree._tree import Tree

__all__ = ["assert_same", "first_difference"]

_SPARSE_PARTS = ("data", "indices", "indptr", "row", "col", "offsets")

#: Relative and absolute tolerance of one attribute.
Tolerance = tuple[float, float]


def assert_same(
    actual: Any,
    desired: Any,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    tolerances: Mapping[str, Tolerance] | None = None,
    name: str = "",
) -> None:
    """Assert that two results, or two fitted estimators attribute by attribute, are the same.

    Types, dtypes, shapes, memory order and writability have to be equal. Floating-point values may differ by
    ``atol + rtol * abs(desired)``, as in `numpy.testing.assert_allclose`; by default every bit has to be equal.

    Parameters
    ----------
    actual, desired : object
        Estimators, arrays, sparse matrices, data frames, or containers of these.
    rtol, atol : float, default=0
        Relative and absolute tolerance.
    tolerances : mapping of str to (float, float) or None, default=None
        Tolerances of their own for attributes of these names, and for what these hold.
    name : str, default=""
        What to call the object in the message.

    Raises
    ------
    AssertionError
        That names the first path that differs, such as ``KMeans.cluster_centers_``, and how.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn_wsl_gpu import offload
    >>> from sklearn_wsl_gpu.testing import assert_same
    >>> X, y = [[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0]
    >>> with offload():
    ...     remote = Ridge().fit(X, y)
    >>> assert_same(remote, Ridge().fit(X, y), tolerances={"coef_": (1e-6, 0)})
    """
    __tracebackhide__ = True  # pytest shows the test, not this
    difference = _Measure(rtol, atol, dict(tolerances or {})).difference(desired, actual, name or _class_name(desired))
    if difference is not None:
        raise AssertionError(difference)


def first_difference(desired: Any, actual: Any, name: str = "") -> str | None:
    """Return where two results or estimators first differ, to the bit, and how; None if they do not.

    See Also
    --------
    assert_same : What is compared, and with tolerances.
    """
    return _Measure().difference(desired, actual, name)


def _class_name(value: Any) -> str:
    return type(value).__name__ if isinstance(value, BaseEstimator) else ""


@dataclass(frozen=True, slots=True)
class _Measure:
    rtol: float = 0.0
    atol: float = 0.0
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    #: The ids of those that are being compared.
    entered: set[tuple[int, int]] = field(default_factory=set)

    def of_attribute(self, name: str) -> _Measure:
        if name not in self.tolerances:
            return self
        rtol, atol = self.tolerances[name]
        return replace(self, rtol=rtol, atol=atol)

    def difference(self, a: Any, b: Any, path: str = "") -> str | None:
        if type(a) is not type(b):
            return _tell(path, "type", _name_of(a), _name_of(b))
        if isinstance(a, np.ndarray):
            return self._arrays(a, b, path)
        if isinstance(a, np.generic):
            return self._arrays(np.asarray(a), np.asarray(b), path)
        if scipy.sparse.issparse(a):
            return self._sparse(a, b, path)
        if isinstance(a, Mapping):
            return self._mappings(a, b, path, "[{!r}]")
        if isinstance(a, (list, tuple)):
            return self._sequences(a, b, path)
        if isinstance(a, BaseEstimator):
            return self._objects(a, b, path)
        return self._others(a, b, path)

    def _objects(self, a: Any, b: Any, path: str) -> str | None:
        pair = id(a), id(b)
        if pair in self.entered:  # they hold themselves
            return None
        self.entered.add(pair)
        try:
            return self._mappings(_attributes(a), _attributes(b), path, ".{}")
        finally:
            self.entered.discard(pair)

    def _others(self, a: Any, b: Any, path: str) -> str | None:
        if type(a).__module__.partition(".")[0] in ("pandas", "polars") and hasattr(a, "to_numpy"):
            return self._frames(a, b, path)
        if isinstance(a, (Tree, CyLossFunction)):
            return self.difference(a.__reduce__()[1:], b.__reduce__()[1:], path)
        if isinstance(a, (KDTree, BallTree)):
            return self.difference(_contents(a), _contents(b), path)
        if isinstance(a, DistanceMetric):
            return self.difference(a.__getstate__(), b.__getstate__(), path)
        if isinstance(a, np.random.RandomState):
            return self.difference(a.get_state(legacy=False), b.get_state(legacy=False), path)
        if isinstance(a, float):
            return self._arrays(np.float64(a), np.float64(b), path)
        if type(a).__module__.startswith("sklearn.") and hasattr(a, "__dict__"):
            return self._objects(a, b, path)
        # What compares by identity (a function, say) is never equal to its copy: that is a difference as well.
        return None if a == b else _tell(path, "value", a, b)

    def _arrays(self, a: Any, b: Any, path: str) -> str | None:
        if a.dtype != b.dtype:
            return _tell(path, "dtype", a.dtype, b.dtype)
        if a.shape != b.shape:
            return _tell(path, "shape", a.shape, b.shape)
        if a.dtype.names:
            # By field: the bytes between the fields of a record are whatever was in memory.
            found = (self._arrays(a[name], b[name], f"{path}[{name!r}]") for name in a.dtype.names)
            return next(filter(None, found), None)
        if np.ma.isMaskedArray(a):
            return self._arrays(np.ma.getmaskarray(a), np.ma.getmaskarray(b), f"{path}.mask") or self._arrays(
                a.filled(0), b.filled(0), f"{path}.data"
            )
        if a.dtype.hasobject:
            return self._sequences(a.ravel().tolist(), b.ravel().tolist(), path)
        if a.tobytes() != b.tobytes() and not self._is_close(a, b):
            return _tell(path, "values", _some_difference(a, b), "")
        if _order(a) != _order(b) and "strided" not in (_order(a), _order(b)):
            return _tell(path, "memory order", _order(a), _order(b))
        if isinstance(a, np.ndarray) and a.flags.writeable != b.flags.writeable:
            return _tell(path, "writeable", a.flags.writeable, b.flags.writeable)
        return None

    def _is_close(self, a: Any, b: Any) -> bool:
        if a.dtype.kind not in "fc" or not (self.rtol or self.atol):
            return False
        return bool(np.allclose(b, a, self.rtol, self.atol, equal_nan=True))

    def _sparse(self, a: Any, b: Any, path: str) -> str | None:
        if a.shape != b.shape:
            return _tell(path, "shape", a.shape, b.shape)
        for part in _SPARSE_PARTS:
            if hasattr(a, part):
                found = self._arrays(getattr(a, part), getattr(b, part), f"{path}.{part}")
                if found:
                    return found
        return None

    def _frames(self, a: Any, b: Any, path: str) -> str | None:
        for name in ("columns", "dtypes", "name", "index"):
            if hasattr(a, name):
                here, there = (
                    list(value) if np.ndim(value) else value for value in (getattr(a, name), getattr(b, name))
                )
                if here != there:
                    return _tell(f"{path}.{name}", "value", here, there)
        return self._arrays(a.to_numpy(), b.to_numpy(), path)

    def _mappings(self, a: Mapping[Any, Any], b: Mapping[Any, Any], path: str, step: str) -> str | None:
        if a.keys() != b.keys():
            return _tell(path, "names", sorted(map(str, a.keys() - b.keys())), sorted(map(str, b.keys() - a.keys())))
        found = (
            (self.of_attribute(name) if step == ".{}" else self).difference(value, b[name], path + step.format(name))
            for name, value in a.items()
        )
        return next(filter(None, found), None)

    def _sequences(self, a: Sequence[Any], b: Sequence[Any], path: str) -> str | None:
        if len(a) != len(b):
            return _tell(path, "length", len(a), len(b))
        found = (self.difference(one, other, f"{path}[{at}]") for at, (one, other) in enumerate(zip(a, b, strict=True)))
        return next(filter(None, found), None)


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


def _name_of(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__} ({value!r:.60})"


def _tell(path: str, what: str, a: Any, b: Any) -> str:
    return f"{path or 'it'}: {what} {a} {'is not ' + str(b) if str(b) else ''}".rstrip()
