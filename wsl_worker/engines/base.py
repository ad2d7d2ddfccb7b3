"""The interface of an engine: its questions and facts, how data stay on its device, and what its errors mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from sklearn_wsl_gpu.errors import EngineError, OffloadError, Reason, Unsupported
from sklearn_wsl_gpu.estimators import Row
from sklearn_wsl_gpu.support import Request
from wsl_worker.engines.staging import Ahead


class DeviceLost(EngineError):
    """The device does not answer any more: no call will succeed in this process, which is to be replaced."""

    code = "device-lost"


#: In the words of libraries of a device, and of PyTorch on the CPU.
_EXHAUSTED = (
    "out_of_memory", "out of memory", "cudaErrorMemoryAllocation", "bad_alloc", "can't allocate memory",
)  # fmt: skip


def is_exhausted(error: BaseException) -> bool:
    """Tell whether an error says that there is no memory left."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _EXHAUSTED)


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

    @classmethod
    def devices(cls) -> list[str]:
        """Return the names of this machine's devices that it could compute on, that of ``"auto"`` first."""
        return ["cpu"]

    def is_usable(self) -> bool:
        """Answer whether its device still answers: after some errors none does any more in the same process."""
        return True

    def free(self) -> None:
        """Give back what memory its libraries keep for later."""
        return None

    def meaning(self, error: Exception) -> Exception:
        """Return a `DeviceLost` or a `MemoryError` where that is what an exception of a call means; else itself."""
        if isinstance(error, OffloadError):
            return error
        if not self.is_usable():
            return DeviceLost(f"The device no longer answers: {error}")
        if not is_exhausted(error):
            return error
        self.free()
        return error if isinstance(error, MemoryError) else MemoryError(str(error))

    @property
    def arrays(self) -> str:
        """Kind of array that it computes with on a device, such as ``"cupy"``; empty if that is numpy's.

        Engines of one kind share their arrays.
        """
        return ""

    @property
    def ahead(self) -> Ahead | None:
        """What brings spans to its device before the calls that they belong to; None if nothing does."""
        return None

    @property
    @abstractmethod
    def estimators(self) -> frozenset[str]:
        """Names of the rows that this engine may take."""

    @abstractmethod
    def support(self, request: Request) -> Reason | None:
        """Answer whether it takes a request: None, or the reason why not. Looks at no data."""

    @abstractmethod
    def load(self, row: Row, attributes: Mapping[str, Any]) -> Any:
        """Return a model of the engine's own kind from an estimator's attributes, fitted or not.

        Raises `Unsupported`, with the reason, where a fitted state cannot be taken over.
        """

    @abstractmethod
    def call(self, model: Any, method: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Call a method of a model. Returns what scikit-learn's method returns; the model itself for ``fit``.

        Raises ``MemoryError`` when the device is full: it is asked once more after kept models have been dropped.
        Raises `DeviceLost` when this process can no longer compute.

        Arguments are numpy arrays that must not be written to, scipy sparse matrices, plain values, and frames
        (`sklearn_wsl_gpu.state.objects.Frame`), which ``np.asarray`` makes arrays of.
        """

    @abstractmethod
    def state(self, model: Any) -> Mapping[str, Any]:
        """Return all attributes of a model as scikit-learn's estimator would have them, in numpy."""

    @property
    def functions(self) -> frozenset[str]:
        """Names of the functions that this engine may take, see `sklearn_wsl_gpu.estimators.functions`."""
        return frozenset()

    def call_function(self, name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Call one of its functions. Returns what scikit-learn's returns."""
        raise Unsupported(f"The engine {self.name} has no function {name}.", "unsupported-by-engine")

    def methods(self, row: Row) -> frozenset[str]:
        """Return the methods of a row that it computes under some condition."""
        return frozenset(row.method_names)

    def compute(self, model: Any, method: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Do as `call`, with arrays of its own kind among the arguments, and maybe as the result."""
        return self.call(model, method, arguments, keywords)

    def put(self, array: Any) -> Any:
        """Return a numpy array as one of its own kind."""
        return array

    def get(self, array: Any) -> Any:
        """Return an array of its own kind in numpy; anything else as it is."""
        return array

    def take(self, array: Any, index: Any, axis: int) -> Any:
        """Return rows (axis 0) or columns (axis 1) of a matrix of its own kind, by their numbers in numpy."""
        return np.take(array, index, axis=axis)

    def side_by_side(self, arrays: Sequence[Any]) -> Any:
        """Return matrices of its own kind as one, column after column."""
        return np.hstack(arrays)
