"""The interface of an engine: four questions and two facts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sklearn_wsl_gpu.errors import Reason
from sklearn_wsl_gpu.estimators import Row


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
    shapes, dtypes : tuple
        Of the arrays among the arguments.
    """

    row: Row
    method: str
    parameters: Mapping[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]


class Engine(ABC):
    """Computes calls of estimators.

    An engine is found by its entry point in the group ``sklearn_wsl_gpu.engines``; it is constructed without
    arguments, in the executor process, where heavy libraries may be imported. Inherit
    `wsl_worker.testing.EngineSuite` to test one.
    """

    #: The name of its entry point.
    name: str

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
