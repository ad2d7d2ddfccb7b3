"""scikit-learn's own array-API path, on a GPU by CuPy or PyTorch, or on the CPU by PyTorch.

scikit-learn's documentation lists what has such a path (https://scikit-learn.org/1.9/modules/array_api.html);
`sklearn_wsl_gpu.support.array_api` says under which parameters.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
import scipy.sparse
import sklearn

from sklearn_wsl_gpu import support
from sklearn_wsl_gpu.errors import ConfigurationError, Reason, Unsupported
from sklearn_wsl_gpu.estimators import METHODS, Row
from sklearn_wsl_gpu.estimators.functions import FUNCTIONS
from sklearn_wsl_gpu.state import objects
from sklearn_wsl_gpu.support import Request
from sklearn_wsl_gpu.support.array_api import DTYPES, TABLE
from sklearn_wsl_gpu.support.entry import TEXT
from wsl_worker.engines import scores
from wsl_worker.engines.base import Engine
from wsl_worker.engines.devices import answers, count_gpus
from wsl_worker.engines.staging import Ahead, ToCupy, to_cupy

Array = Any

#: What scikit-learn computes with on a device, and what it computes with in numpy.
_HOST_CLASSES = {"HalfPoissonLossArrayAPI": "HalfPoissonLoss"}
#: With the solver "auto" these warn that it will be "svd" by the array API.
_BY_SVD = frozenset({"Ridge", "RidgeClassifier"})


class _Model:
    """An estimator with its fitted attributes on the device, and what is known of them here."""

    def __init__(self, row: Row, estimator: Any, host: Mapping[str, Any]) -> None:
        self.row = row
        self.estimator = estimator
        self.parameters = {name: value for name, value in host.items() if name in row.parameters}
        self.host: Mapping[str, Any] | None = host


class ArrayApiEngine(Engine):
    """Runs scikit-learn's own methods on arrays of another namespace.

    Parameters
    ----------
    device : str
        ``"auto"`` is the first GPU; ``"cuda:1"`` the second; ``"cpu"`` is PyTorch on the CPU.
    """

    name = "array_api"
    #: How arrays get to the device, if not by the namespace.
    _send: ToCupy | None = None
    #: scipy reads it when it is imported.
    environment: ClassVar[Mapping[str, str]] = {"SCIPY_ARRAY_API": "1"}

    def __init__(self, device: str = "auto") -> None:
        words = self.unavailable(device)
        if words is not None:
            raise ConfigurationError(f"The engine array_api cannot run: {words}")
        self._namespace, self._device = _open(device)
        if self.arrays == "cupy":
            self._send = to_cupy()

    @classmethod
    def devices(cls) -> list[str]:
        return [f"cuda:{number}" for number in range(count_gpus())]

    @property
    def arrays(self) -> str:
        return str(self._namespace.__name__.rpartition(".")[2])

    def is_usable(self) -> bool:
        if self.arrays == "cupy":
            return answers(importlib.import_module("cupy"))
        if self._device.type == "cuda":
            try:
                importlib.import_module("torch").cuda.synchronize(self._device)
            except RuntimeError:
                return False
        return True

    def free(self) -> None:
        if self.arrays == "cupy":
            importlib.import_module("cupy").get_default_memory_pool().free_all_blocks()
        elif self._device.type == "cuda":
            importlib.import_module("torch").cuda.empty_cache()

    @classmethod
    def unavailable(cls, device: str) -> str | None:
        outdated = _outdated()
        if outdated.keys() == TABLE.keys():
            return next(iter(outdated.values()))
        if device == "cpu":
            return None if find_spec("torch") else "on the CPU it needs PyTorch. Install torch."
        found = [name for name in ("cupy", "torch") if find_spec(name)]
        if not found:
            return "it needs CuPy or PyTorch. Install cupy-cuda13x or torch, or take device='cpu' with torch."
        if count_gpus() <= _number(device):
            which = "" if device == "auto" else f" number {_number(device)}"
            return f"CUDA shows no GPU{which} here. With torch and device='cpu' it computes on the CPU."
        return None

    @property
    def ahead(self) -> Ahead | None:
        return None if self._send is None else self._send.ahead

    @property
    def estimators(self) -> frozenset[str]:
        return frozenset(TABLE).difference(_outdated())

    def support(self, request: Request) -> Reason | None:
        return support.reason(self.name, request)

    def load(self, row: Row, attributes: Mapping[str, Any]) -> Any:
        estimator = objects.build_estimator(objects.estimator_class(row.name), attributes)
        classes = attributes.get("classes_")
        if isinstance(classes, np.ndarray) and classes.dtype.kind in TEXT and not TABLE[row.name].text:
            raise Unsupported(
                f"{row.name}: its array-API path takes no classes that are text.", "unsupported-by-engine"
            )
        model = _Model(row, estimator, dict(attributes))
        if attributes.get("solver") == "auto" and row.name in _BY_SVD:
            vars(estimator)["solver"] = "svd"
        fitted = {name: value for name, value in attributes.items() if name not in row.parameters}
        vars(estimator).update({name: objects.convert(value, self._to_device) for name, value in fitted.items()})
        return model

    def call(self, model: Any, method: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        if method == "score" and scores.is_of_predictions(type(model.estimator)):
            # Some namespaces count in single precision.
            return scores.score(
                type(model.estimator), lambda X: self.call(model, "predict", [X], {}), arguments, keywords
            )
        value = self.compute(model, method, arguments, keywords)
        return model if value is model else self.get(value)

    def compute(self, model: Any, method: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        given, named = self._arguments(arguments, keywords)
        if METHODS[method].fits:
            model.host = None
        with sklearn.config_context(array_api_dispatch=True):
            value = getattr(model.estimator, method)(*given, **named)
        return model if value is model.estimator else value

    @property
    def functions(self) -> frozenset[str]:
        return frozenset(name for name, function in FUNCTIONS.items() if function.function is not None)

    def call_function(self, name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        function = FUNCTIONS[name]
        words = function.objection(arguments, keywords)
        if words is not None:
            raise Unsupported(f"{name} by array_api: {words}.", "unsupported-by-engine")
        if function.doubles:
            arguments = [_as_double(value) for value in arguments]
            keywords = {key: _as_double(value) for key, value in keywords.items()}
        given, named = self._arguments(arguments, keywords)
        with sklearn.config_context(array_api_dispatch=True):
            return self.get(function.function(*given, **named))

    def methods(self, row: Row) -> frozenset[str]:
        return frozenset(row.method_names) - set(TABLE[row.name].without.split())

    def put(self, array: Any) -> Any:
        return self._to_device(array)

    def get(self, array: Any) -> Any:
        return objects.convert(array, self._to_host)

    def take(self, array: Any, index: Any, axis: int) -> Any:
        return self._namespace.take(array, self.put(index.astype(np.int64)), axis=axis)

    def side_by_side(self, arrays: Sequence[Any]) -> Any:
        return self._namespace.concat(list(arrays), axis=1)

    def state(self, model: Any) -> Mapping[str, Any]:
        if model.host is None:
            fitted = objects.carried_attributes(model.estimator).items()
            model.host = {name: objects.convert(value, self._to_host) for name, value in fitted} | model.parameters
        return dict(model.host)

    def _arguments(self, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        found = (
            [self._argument(value) for value in arguments],
            {name: self._argument(value) for name, value in keywords.items()},
        )
        if self.ahead is not None:
            self.ahead.forget()  # what was not asked for takes room on the device
        return found

    def _argument(self, value: Any) -> Any:
        if scipy.sparse.issparse(value):
            raise Unsupported("scikit-learn's array-API path takes no sparse matrices.", "unsupported-by-engine")
        if isinstance(value, (objects.Frame, list)):
            value = np.asarray(value)
        return self._to_device(value)

    def _to_device(self, value: Any) -> Any:
        if not isinstance(value, (np.ndarray, np.generic)) or value.dtype.name not in DTYPES:
            return value
        if self._send is not None and value.dtype.isnative:
            return self._send(value)
        # A private copy: the memory that it came in is used again while the device still may read it.
        private = np.array(value, dtype=value.dtype.newbyteorder("="), order="K")
        return self._namespace.asarray(private, device=self._device)

    def _to_host(self, value: Any) -> Any:
        if type(value).__name__ in _HOST_CLASSES:
            return objects.put_together("loss", [_HOST_CLASSES[type(value).__name__]])
        if isinstance(value, (np.ndarray, np.generic)) or not hasattr(value, "__dlpack__"):
            return value
        array = _as_numpy(value)
        return array[()] if array.ndim == 0 else array


def _as_double(value: Any) -> Any:
    return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype == np.float32 else value


def _as_numpy(value: Any) -> Array:
    from sklearn.utils._array_api import move_to

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = move_to(value, xp=np, device="cpu")
    # What PyTorch lends is gone with its tensor, and may be read-only.
    return np.array(array, order="K")


def _number(device: str) -> int:
    return int(device.partition(":")[2] or 0) if device != "auto" else 0


def _outdated() -> dict[str, str]:
    return support.outdated("array_api", {"scikit-learn": sklearn.__version__})


def _open(device: str) -> tuple[Any, Any]:
    """Return namespace and device."""
    compat = importlib.import_module("sklearn.externals.array_api_compat")
    if device != "cpu" and find_spec("cupy"):
        cupy = importlib.import_module("cupy")
        cupy.cuda.Device(_number(device)).use()
        return importlib.import_module(f"{compat.__name__}.cupy"), cupy.cuda.Device(_number(device))
    torch = importlib.import_module(f"{compat.__name__}.torch")
    torch.set_default_dtype(torch.float64)  # as numpy has it: scores of integers are else of single precision
    return torch, torch.device("cpu" if device == "cpu" else f"cuda:{_number(device)}")
