"""Arguments as a worker can take them: data frames become the array that scikit-learn would make of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sklearn_wsl_gpu import lending, namespaces
from sklearn_wsl_gpu.errors import Unsupported
from sklearn_wsl_gpu.state import tables
from sklearn_wsl_gpu.state.objects import Frame


def count_elements(value: Any) -> int | None:
    """Return the number of elements of an argument, or None if it has no shape; of lists by their first row."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        try:
            return math.prod(map(int, shape))
        except (TypeError, ValueError):
            return None
    if not isinstance(value, (list, tuple)):
        return None
    columns = len(value[0]) if value and isinstance(value[0], (list, tuple)) else 1
    return len(value) * columns


def convert(value: Any, array_api_dispatch: bool = False, checked: bool = True, by_column: bool = False) -> Any:
    """Return what to encode for an argument.

    Parameters
    ----------
    value : object
        What the caller passed.
    array_api_dispatch : bool
        scikit-learn's setting of that name.
    checked : bool
        Whether the method makes an array of it first, as nearly all do.
    by_column : bool
        Whether it does so column by column.

    Raises
    ------
    Unsupported
        If scikit-learn would treat it in a way that its array form does not show.
    """
    if type(value) is np.ndarray:
        if 0 in value.strides and value.size and _is_repeated(value):
            raise Unsupported(
                "An array that repeats its elements in memory (np.broadcast_to) is summed in another order."
            )
        return value
    module = type(value).__module__.partition(".")[0]
    if not checked and module in ("pandas", "polars", "pyarrow") and hasattr(type(value), "columns"):
        raise Unsupported("This method computes with the table itself, with these parameters and this scikit-learn.")
    if module == "pandas":
        return _from_pandas(value, by_column)
    if module in ("polars", "pyarrow"):
        if array_api_dispatch:
            raise Unsupported(f"Tables of {module} stay local while array_api_dispatch is on.", "array-api-input")
        return _from_columns(value)
    if namespaces.is_foreign(value):
        array = namespaces.as_numpy(value)
        # Without dispatch scikit-learn sees a dtype only where it is numpy's.
        return array if array_api_dispatch or isinstance(value.dtype, np.dtype) else Frame(_plain(array, value))
    return value


def _is_repeated(array: np.ndarray[Any, Any]) -> bool:
    return any(extent > 1 and not stride for extent, stride in zip(array.shape, array.strides, strict=True))


def convert_table(value: Any, array_api_dispatch: bool = False) -> Any:
    """Return what to encode for an argument of a call whose estimators hand on a table as such; as `convert` else."""
    return lending.once(value, tables.of) if tables.is_table(value) else convert(value, array_api_dispatch)


def widen(value: Any) -> Any:
    """Return a DataFrame of pandas in double precision if it is in another one; else what there is."""
    if not tables.is_table(value):
        return value
    kinds = set(value.dtypes)
    is_float = all(isinstance(kind, np.dtype) and kind.kind == "f" for kind in kinds)
    # Before pandas 3 even one that is in double precision already would be copied, in another order.
    return value.astype(np.float64) if is_float and kinds - {np.dtype(np.float64)} else value


def _from_pandas(value: Any, by_column: bool) -> Any:
    # By its class: a Series shows its labels as attributes, too.
    has_columns = hasattr(type(value), "columns")
    if not has_columns and not hasattr(value, "dtype"):
        raise Unsupported(f"A pandas {type(value).__name__} stays local.")
    dtypes = list(value.dtypes) if has_columns else [value.dtype]
    if not dtypes:
        raise Unsupported("A pandas DataFrame without columns stays local.")
    if has_columns and not value.columns.is_unique:
        raise Unsupported("A pandas DataFrame with two columns of one name stays local.")  # some methods refuse it
    if all(isinstance(dtype, np.dtype) and dtype.kind in "biuf" for dtype in dtypes):
        # Where there is a bool, scikit-learn converts first, which may change the order in memory.
        early = any(dtype.kind == "b" for dtype in dtypes)
        array = (value.astype(np.result_type(*dtypes)) if early else value).to_numpy()
        if array.dtype == np.result_type(*dtypes) and not (by_column and len(set(dtypes)) > 1):
            return array
    # Before pandas 3 scikit-learn leaves "string" as it is where it makes numbers of "object".
    texts = ("object", "str", "string") if not has_columns or by_column else ("object", "str")
    if all(str(dtype) in texts for dtype in dtypes):
        return _plain(np.asarray(value), value)
    raise Unsupported(
        f"A pandas {type(value).__name__} with columns of {', '.join(sorted({str(dtype) for dtype in dtypes}))} is "
        "converted column by column; such a call stays local. If its values are numbers, pass .astype(float)."
    )


def _from_columns(value: Any) -> Frame:
    array = _plain(np.asarray(value), value)
    types = {str(kind) for kind in getattr(getattr(value, "schema", None), "types", ())}
    if len(types) > 1 and types & {"int64", "uint64"} and array.dtype.kind == "f" and (np.abs(array) >= 2**53).any():
        raise Unsupported("A pyarrow table with integers beyond 2**53 beside other columns is rounded in another way.")
    return Frame(array)


def _plain(array: Any, value: Any) -> Any:
    if type(array) is not np.ndarray:
        raise Unsupported(f"A {type(value).__name__} that does not become a numpy array stays local.")
    return array
