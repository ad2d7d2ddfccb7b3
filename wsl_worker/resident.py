"""Arrays that stay on a device while scikit-learn's own code hands them from one estimator to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from wsl_worker.engines.base import Engine


class Resident:
    """A two-dimensional array on a device, as code for numpy sees it.

    Rows and columns are taken on the device, and so are such arrays put side by side. Whatever else numpy does with
    one is done with a copy in numpy.

    Parameters
    ----------
    engine : Engine
        Whose array it is.
    array : object
        The engine's own.
    """

    ndim = 2

    def __init__(self, engine: Engine, array: Any) -> None:
        self.engine = engine
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(extent) for extent in self.array.shape)

    @property
    def dtype(self) -> Any:
        return np.dtype(str(self.array.dtype).rpartition(".")[2])  # PyTorch's are torch.float64 and so on

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        keys = [one for one in (key if isinstance(key, tuple) else (key,)) if one is not Ellipsis]
        array = self.array
        for axis in reversed(range(len(keys))):
            array = self._along(array, keys[axis], axis)
        return Resident(self.engine, array) if len(array.shape) == 2 else self.engine.get(array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self.engine.get(self.array), dtype=dtype)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        axis = args[1] if len(args) > 1 else kwargs.get("axis", 0)
        if function is np.hstack or (function is np.concatenate and axis == 1):
            return _side_by_side(self.engine, args[0])
        return function(*_as_numpy(args), **{name: _as_numpy(value) for name, value in kwargs.items()})

    def on(self, engine: Engine) -> Any:
        """Return it as another engine's own array, by way of numpy where the two have not the same kind."""
        return self.array if engine.arrays == self.engine.arrays else engine.put(self.engine.get(self.array))

    def _along(self, array: Any, key: Any, axis: int) -> Any:
        if isinstance(key, (list, np.ndarray)):
            index = np.ravel(key)  # np.ix_ has it in several dimensions
            index = np.flatnonzero(index) if index.dtype.kind == "b" else index
            return self.engine.take(array, np.where(index < 0, index + self.shape[axis], index), axis)
        if key == slice(None):
            return array
        return array[(slice(None),) * axis + (key,) + (slice(None),) * (len(array.shape) - axis - 1)]


def _side_by_side(engine: Engine, parts: Any) -> Any:
    found = [part.on(engine) if isinstance(part, Resident) else engine.put(np.asarray(part)) for part in parts]
    return Resident(engine, engine.side_by_side(found))


def _as_numpy(value: Any) -> Any:
    if isinstance(value, Resident):
        return np.asarray(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_as_numpy(item) for item in value)
    return value


def take_along(engine: Engine, value: Any) -> Any:
    """Return data on an engine's device, if they are an array of numbers in two dimensions; else as they are."""
    is_matrix = type(value) is np.ndarray and value.ndim == 2 and value.dtype.kind in "fiu" and engine.arrays
    return Resident(engine, engine.put(value)) if is_matrix else value


def give_back(value: Any) -> Any:
    """Return a result in numpy."""
    return np.asarray(value) if isinstance(value, Resident) else value
