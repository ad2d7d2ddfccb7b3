"""Arrays of other libraries than numpy: as numpy to the worker, and its results back as the kind that went in.

Without ``array_api_dispatch`` scikit-learn makes numpy arrays of them, and so do we. With it results, and fitted
attributes, are of the namespace and on the device of X.

References
----------
https://scikit-learn.org/stable/modules/array_api.html
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from sklearn_wsl_gpu import _compat
from sklearn_wsl_gpu.errors import Unsupported
from sklearn_wsl_gpu.state import objects

_PLAIN = frozenset({type(None), bool, int, float, str, np.ndarray, np.float64, np.int64})
_LIBRARIES = frozenset({"array_api_strict", "cupy", "dpnp", "jax", "jaxlib", "torch"})
#: Code of the reason why such an array stays where it is.
CODE = "array-api-input"


class Kind(NamedTuple):
    """What an array is of: its namespace, and the device that it is on."""

    namespace: Any
    device: Any

    def make(self, value: Any) -> Any:
        """Return a value with numpy's arrays and scalars of numbers in it as arrays of this kind."""
        return objects.convert(value, self._one)

    def _one(self, value: Any) -> Any:
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biuf":
            return self.namespace.asarray(np.array(value, order="K"), device=self.device)
        if _compat.HalfPoissonLoss is not None and type(value) is _compat.HalfPoissonLoss:
            return _compat.HalfPoissonLossArrayAPI(xp=self.namespace, device=self.device)
        return value


def is_foreign(value: Any) -> bool:
    """Tell whether a value is an array of another library."""
    if type(value) in _PLAIN:
        return False  # asked for every attribute of every call
    return type(value).__module__.partition(".")[0] in _LIBRARIES and hasattr(value, "__dlpack__")


def kind_of(value: Any) -> Kind | None:
    """Return what an array of another library is of, as scikit-learn sees it; None for anything else."""
    if not is_foreign(value) or _compat.get_namespace_and_device is None:
        return None
    namespace, is_compliant, device = _compat.get_namespace_and_device(value)
    return Kind(namespace, device) if is_compliant else None


def as_numpy(value: Any) -> Any:
    """Return an array of another library as numpy's.

    Raises
    ------
    Unsupported
        If it has no such form, such as a dtype that numpy does not have.
    """
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        if _compat.move_to is not None:
            with contextlib.suppress(TypeError, ValueError, RuntimeError, BufferError):
                return _compat.move_to(value, xp=np, device="cpu")  # it is on a device
        library = type(value).__module__.partition(".")[0]
        raise Unsupported(f"An array of {library} does not become one of numpy: {error}", CODE) from None


def attributes_as_numpy(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes with the arrays of other libraries in them as numpy's; a fit by dispatch leaves such."""
    if not _is_any_imported() or not any(
        is_foreign(item) or _is_foreign_loss(item) for value in attributes.values() for item in _flat(value)
    ):
        return dict(attributes)  # the very objects, whose identity tells of what is kept twice
    return {name: objects.convert(value, _as_local_fit) for name, value in attributes.items()}


def _is_foreign_loss(value: Any) -> bool:
    return _compat.HalfPoissonLoss is not None and type(value) is _compat.HalfPoissonLossArrayAPI


def _as_local_fit(value: Any) -> Any:
    if _is_foreign_loss(value):
        return _compat.HalfPoissonLoss()
    if not is_foreign(value):
        return value
    array = as_numpy(value)
    return array[()] if array.ndim == 0 else array


def check_same(kind: Kind | None, attributes: Mapping[str, Any]) -> None:
    """Check that a fitted estimator is of the kind of its data.

    Raises
    ------
    Unsupported
        If it is not; what that means scikit-learn has to say.
    """
    if kind is None and not _is_any_imported():
        return
    for name, value in attributes.items():
        if name[-1:] == "_" and any(one != kind for item in _flat(value) for one in _kinds(item, kind)):
            raise Unsupported(f"The attribute {name} and the data are arrays of different libraries or devices.", CODE)


def _is_any_imported() -> bool:
    return not sys.modules.keys().isdisjoint(_LIBRARIES)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        yield from value[:1]  # all are made by the same fit
    else:
        yield value


def _kinds(value: Any, kind: Kind | None) -> Iterator[Kind | None]:
    if is_foreign(value):
        yield kind_of(value)
    elif kind is not None and isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        yield None
