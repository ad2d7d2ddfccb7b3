"""What an engine is asked about a call: parameters and facts about arrays, without the arrays."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from sklearn_wsl_gpu.estimators import Row


class Fact(NamedTuple):
    """What is known of an array without looking into it.

    Attributes
    ----------
    kind : {"dense", "sparse"}
        A list of numbers, and a table, count as dense.
    shape : tuple of int
    dtype : str
        As ``numpy.dtype.str`` says it; of a table that of the array that it becomes.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Request:
    """A call, as far as an engine has to know it to say whether it can do it.

    Attributes
    ----------
    row : Row
        The estimator.
    method : str
        One of the row's methods.
    parameters : mapping of str to object
        The estimator's parameters.
    facts : mapping of str to Fact
        Of the arrays among the arguments, by the names of the method's parameters.
    """

    row: Row
    method: str
    parameters: Mapping[str, Any]
    facts: Mapping[str, Fact]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the arrays among the arguments."""
        return tuple(fact.shape for fact in self.facts.values())


def request_of(row: Row, method: str, attributes: Mapping[str, Any], facts: Mapping[str, Fact]) -> Request:
    """Return what an engine is asked about a call, given the attributes of the estimator."""
    parameters = {name: attributes[name] for name in row.parameters if name in attributes}
    return Request(row, method, parameters, facts)


def facts_of(row: Row, method: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> dict[str, Fact]:
    """Return what is known of the arrays among the arguments of a call, by the names of the parameters."""
    arguments, keywords = without_target(row, method, arguments, keywords)
    named = [*zip(names_of(row, method), arguments, strict=False), *keywords.items()]
    return {name: fact for name, value in named if (fact := _fact(value)) is not None}


def without_target(
    row: Row, method: str, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return the arguments of a call, with None for a target that the method does not look at."""
    if not row.targetless or (len(arguments) < 2 and keywords.get("y") is None):
        return arguments, keywords
    named = names_of(row, method)
    arguments = [None if name == "y" else value for name, value in zip(named, arguments, strict=False)] + list(
        arguments[len(named) :]
    )
    return arguments, {name: None if name == "y" else value for name, value in keywords.items()}


def facts_of_data(X: Any, y: Any) -> dict[str, Fact]:
    """Return what is known of data and target by themselves."""
    return {name: fact for name, value in (("X", X), ("y", y)) if (fact := _fact(value)) is not None}


@cache
def names_of(row: Row, method: str) -> tuple[str, ...]:
    """Return the names of a method's parameters."""
    return tuple(inspect.signature(getattr(row.cls, method)).parameters)[1:]


def _fact(value: Any) -> Fact | None:
    if type(value) is np.ndarray:
        return Fact("dense", value.shape, value.dtype.str)
    if value is None or isinstance(value, (str, bytes, int, float)):
        return None
    if scipy.sparse.issparse(value):
        return Fact("sparse", tuple(value.shape), value.dtype.str)
    if not isinstance(value, (list, tuple)) and not hasattr(value, "__array__"):
        return None
    if isinstance(getattr(value, "dtype", None), np.dtype) and isinstance(getattr(value, "shape", None), tuple):
        return Fact("dense", value.shape, value.dtype.str)
    try:
        # The first rows of a table tell its dtype; all of them would have to be copied.
        is_table = hasattr(value, "shape") and hasattr(value, "__getitem__")
        array = np.asarray(value[:0] if is_table else value)
        return Fact("dense", tuple(value.shape) if is_table else array.shape, array.dtype.str)
    except (TypeError, ValueError, IndexError):
        return None
