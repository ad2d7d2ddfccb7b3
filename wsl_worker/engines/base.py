"""The interface of an engine: four questions and four facts."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy.sparse

from sklearn_wsl_gpu.errors import Reason
from sklearn_wsl_gpu.estimators import Row
from sklearn_wsl_gpu.state.objects import Frame


class Fact(NamedTuple):
    """What is known of an array without looking into it.

    Attributes
    ----------
    kind : {"dense", "sparse"}
        A list of numbers, and a table, count as dense.
    shape : tuple of int
    dtype : str
        As ``numpy.dtype.str`` says it.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str


def facts_of(row: Row, method: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> dict[str, Fact]:
    """Return what is known of the arrays among the arguments of a call, by the names of the parameters."""
    names = list(inspect.signature(getattr(row.cls, method)).parameters)[1:]
    named = [*zip(names, arguments, strict=False), *keywords.items()]
    return {name: fact for name, value in named if (fact := _fact(value)) is not None}


def _fact(value: Any) -> Fact | None:
    if scipy.sparse.issparse(value):
        return Fact("sparse", tuple(value.shape), value.dtype.str)
    if isinstance(value, (list, tuple, Frame)):
        value = np.asarray(value)
    return Fact("dense", value.shape, value.dtype.str) if isinstance(value, np.ndarray) else None


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of an engine, without the data.

    Attributes
    ----------
    row : Row
        The estimator's row of the table.
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


class Engine(ABC):
    """Computes calls of estimators.

    An engine is found by its entry point in the group ``sklearn_wsl_gpu.engines``; it is constructed with the name
    of the device, in the executor process, where heavy libraries may be imported. Inherit
    `wsl_worker.testing.EngineSuite` to test one.
    """

    #: The name of its entry point.
    name: str
    #: Variables that have to be in the environment before numpy and scipy are imported.
    environment: ClassVar[Mapping[str, str]] = {}

    def __init__(self, device: str = "auto") -> None:
        return None

    @classmethod
    @abstractmethod
    def unavailable(cls, device: str) -> str | None:
        """Answer, in words, why it cannot run on a device of this machine, or None.

        Parameters
        ----------
        device : str
            ``"auto"``, ``"cpu"``, or ``"cuda:N"``.
        """

    @property
    @abstractmethod
    def estimators(self) -> frozenset[str]:
        """Names of the rows that this engine may take."""

    @abstractmethod
    def support(self, request: Request) -> Reason | None:
        """Answer whether it takes a request: None, or the reason why not. Looks at no data."""

    @abstractmethod
    def load(self, row: Row, attributes: Mapping[str, Any]) -> Any:
        """Return a model of the engine's own kind from an estimator's attributes, fitted or not."""

    @abstractmethod
    def call(self, model: Any, method: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Call a method of a model. Returns what scikit-learn's method returns; the model itself for ``fit``.

        Arguments are numpy arrays that must not be written to, scipy sparse matrices, plain values, and frames
        (`sklearn_wsl_gpu.state.objects.Frame`), which ``np.asarray`` makes arrays of.
        """

    @abstractmethod
    def state(self, model: Any) -> Mapping[str, Any]:
        """Return all attributes of a model as scikit-learn's estimator would have them, in numpy."""
