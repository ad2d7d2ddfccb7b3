"""Tables of pandas that go to the worker as tables: for estimators that look at columns, or hand tables on to others.

pandas is imported by nobody but the caller, and by a worker that is sent a table.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np

from sklearn_wsl_gpu.errors import RemoteProtocolError, Unsupported


class Table:
    """What a DataFrame is made of.

    Attributes
    ----------
    names : list
        Of the columns.
    parts : list
        Of all columns a single array, if they are of one block; or of each column its array, or for text a list of the
        kind of text, the distinct texts, and the number of each row's.
    """

    def __init__(self, names: list[Any], parts: list[Any]) -> None:
        self.names = names
        self.parts = parts


def is_table(value: Any) -> bool:
    """Tell whether a value is a DataFrame of pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and type(value) is pandas.DataFrame


def of(frame: Any) -> Table:
    """Return what a DataFrame is made of.

    Raises
    ------
    Unsupported
        If it holds columns that would not be the same ones on the other side.
    """
    names = frame.columns.tolist()
    if frame.columns.nlevels > 1 or {type(name) for name in names} - {str, int} or not frame.columns.is_unique:
        raise Unsupported("A DataFrame whose columns have not a text or a number each as their name stays here.")
    dtypes = set(frame.dtypes)
    if len(dtypes) == 1 and _is_numeric(next(iter(dtypes))):
        return Table(names, [frame.to_numpy()])
    return Table(names, [_column(frame.iloc[:, number]) for number in range(len(names))])


def _is_numeric(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind in "iufb"


def _column(column: Any) -> Any:
    if _is_numeric(column.dtype):
        return column.to_numpy()
    kind = str(column.dtype)
    if kind not in ("object", "str"):
        raise Unsupported(f"A DataFrame with a column of dtype {kind} stays here; its parts are offloaded singly.")
    known: dict[Any, int] = {}
    values = column.tolist()
    if any(type(value) is not str for value in values):
        raise Unsupported("A DataFrame with a column of text that misses values, or of objects, stays here.")
    numbers = np.fromiter((known.setdefault(value, len(known)) for value in values), np.int32, len(values))
    return [kind, list(known), numbers]


def take_apart(table: Table) -> tuple[Any, ...]:
    """Return what a table travels as."""
    return table.names, table.parts


def put_together(names: Any, parts: Any) -> Any:
    """Return the DataFrame."""
    if not isinstance(names, list) or not isinstance(parts, list) or not parts:
        raise RemoteProtocolError("A table is malformed.")
    pandas = importlib.import_module("pandas")
    if len(parts) == 1 and isinstance(parts[0], np.ndarray) and parts[0].ndim == 2:
        return pandas.DataFrame(parts[0], columns=names)
    if len(parts) != len(names):
        raise RemoteProtocolError("A table has not as many columns as names.")
    columns = {number: _series(pandas, part) for number, part in enumerate(parts)}
    return pandas.DataFrame(columns).set_axis(names, axis=1)


def _series(pandas: Any, part: Any) -> Any:
    if isinstance(part, np.ndarray) and part.ndim == 1:
        return part
    kind, texts, numbers = part
    is_right = kind in ("object", "str") and all(type(text) is str for text in texts)
    if not is_right or numbers.ndim != 1 or numbers.dtype != np.int32:
        raise RemoteProtocolError("A column of text is malformed.")
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(texts):
        raise RemoteProtocolError("A column of text names a text that is not there.")
    return pandas.Series(np.array([*texts, ""], dtype=object)[numbers], dtype=kind)
