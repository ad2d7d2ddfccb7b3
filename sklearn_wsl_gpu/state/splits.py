"""Splits of a cross-validation as few bytes: rows in ascending order are a bit each, and the rest of a split none."""

from __future__ import annotations

from typing import Any

import numpy as np

from sklearn_wsl_gpu.errors import RemoteProtocolError, Unsupported
from sklearn_wsl_gpu.pool.placing import Array

#: Dtypes of row numbers in any order, the smallest that holds them all.
_WIDTHS = (np.uint8, np.uint16, np.uint32, np.int64)


class Rows:
    """Row numbers that travel in the shortest form that gives them back as they are.

    Parameters
    ----------
    numbers : ndarray of int64, or of NumPy's default integers, which are int32 in NumPy 1 on Windows
    count : int
        How many rows there are.
    complement : Rows or None
        Rows that may be all others.
    is_sorted : bool
        Whether they may be in ascending order.
    """

    def __init__(self, numbers: Any, count: int, complement: Rows | None = None, *, is_sorted: bool = True) -> None:
        if type(numbers) is not np.ndarray or numbers.dtype not in (np.int64, np.int_) or numbers.ndim != 1:
            raise Unsupported("A split that is not given by arrays of row numbers stays local.")
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < count:
            raise Unsupported("A split with rows that are not there is for scikit-learn to refuse.")
        self.count = count
        self.numbers = numbers
        self.mask: Array | None = None
        self.bits: Array | None = None
        if is_sorted and (len(numbers) < 2 or (np.diff(numbers) > 0).all()):
            self.mask = np.zeros(count, dtype=bool)
            self.mask[numbers] = True
            self.bits = np.packbits(self.mask)
        self.complement = complement if self._is_rest_of(complement) else None

    def _is_rest_of(self, other: Rows | None) -> bool:
        if other is None or self.mask is None or other.mask is None:
            return False
        return bool((self.mask != other.mask).all())


def take_apart(rows: Rows) -> tuple[Any, ...]:
    """Return what makes the rows: their complement, or a bit for each row, or their numbers."""
    if rows.complement is not None:
        return rows.count, "rest", rows.complement
    if rows.bits is not None:
        return rows.count, "bits", rows.bits
    width = next(kind for kind in _WIDTHS if not len(rows.numbers) or rows.numbers.max() <= np.iinfo(kind).max)
    return rows.count, "numbers", rows.numbers.astype(width)


def put_together(count: Any, how: Any, parts: Any) -> Rows:
    """Return the rows again."""
    if type(count) is not int or not 0 <= count < 2**48:
        raise RemoteProtocolError("A split is malformed.")
    if how == "rest" and isinstance(parts, Rows) and parts.mask is not None and parts.count == count:
        return Rows(np.flatnonzero(~parts.mask), count, parts)
    if type(parts) is np.ndarray and parts.ndim == 1 and parts.dtype.kind in "ui":
        if how == "bits" and parts.dtype == np.uint8 and len(parts) == (count + 7) // 8:
            return Rows(np.flatnonzero(np.unpackbits(parts, count=count)), count)
        if how == "numbers":
            return Rows(parts.astype(np.int64), count, is_sorted=False)  # no memory is had by a number alone
    raise RemoteProtocolError("A split is malformed.")
