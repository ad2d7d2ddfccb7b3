"""cuML on an NVIDIA GPU, by the hooks that connect its estimators with scikit-learn's.

`sklearn_wsl_gpu.support.cuml` says what it computes. The hooks are private to cuML: its release is pinned, and tests
that need no GPU hold the table and the calls to the release. cuML and CuPy are imported when the engine is made.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module, metadata
from typing import Any

import numpy as np
import scipy.sparse

from sklearn_wsl_gpu import support
from sklearn_wsl_gpu.errors import ConfigurationError, Reason, Unsupported
from sklearn_wsl_gpu.estimators import Row, third_party
from sklearn_wsl_gpu.state import objects
from sklearn_wsl_gpu.support import Request
from sklearn_wsl_gpu.support.cuml import RELEASE, TABLE
from wsl_worker.engines import scores
from wsl_worker.engines.base import Engine
from wsl_worker.engines.devices import count_gpus
from wsl_worker.engines.staging import LEAST_BYTES, Ahead, to_cupy

#: Distributions that hold cuML: the wheels for a version of CUDA, and conda's.
_DISTRIBUTIONS = ("cuml-cu13", "cuml-cu12", "cuml")
#: Rows whose results are double precision, whatever the data are.
_DOUBLE = frozenset(
    {"RandomForestClassifier", "RandomForestRegressor", "IsolationForest", "SVC", "SVR", "KernelDensity", "LinearSVC",
     "LinearSVR", "TargetEncoder"}
)  # fmt: skip
#: Rows whose results stay on the device where the next estimator is computed there.
HANDED_ON = frozenset({"PCA", "IncrementalPCA", "TruncatedSVD"})
#: Rows whose results are single precision, whatever the data are.
_SINGLE = frozenset({"TSNE", "umap.UMAP"})


class _Model:
    """A model, and the attributes of its estimator that no fit changes."""

    def __init__(self, row: Row, attributes: Mapping[str, Any]) -> None:
        from wsl_worker.engines.cuml.kinds import KINDS, Plain

        self.row = row
        own = row.parameters | row.untouched
        self.before = {name: value for name, value in attributes.items() if name in own}
        self.kind = KINDS.get(row.name, Plain)(row, self.before)
        if any(name.endswith("_") and not name.startswith("__") for name in attributes.keys() - own):
            self.kind.load(attributes)


class CumlEngine(Engine):
    """Runs cuML's estimators.

    Parameters
    ----------
    device : str
        ``"auto"`` is the first GPU; ``"cuda:1"`` the second.
    """

    name = "cuml"

    def __init__(self, device: str = "auto") -> None:
        words = self.unavailable(device)
        if words is not None:
            raise ConfigurationError(f"The engine cuml cannot run: {words}")
        from wsl_worker.engines.cuml import memory

        memory.use_device(_number(device))
        import_module("cuml")  # it takes seconds, which the first call need not wait for

    @classmethod
    def devices(cls) -> list[str]:
        return [f"cuda:{number}" for number in range(count_gpus())]

    @property
    def arrays(self) -> str:
        return "cupy"

    def is_usable(self) -> bool:
        from wsl_worker.engines.cuml import memory

        return memory.is_usable()

    @classmethod
    def unavailable(cls, device: str) -> str | None:
        found = _installed_version()
        if found is None:
            return "cuML is not installed. Install sklearn-wsl-gpu[cuml-cu13]."
        outdated = support.outdated(cls.name, {RELEASE.package: found})
        if outdated.keys() == TABLE.keys():
            return next(iter(outdated.values()))
        if device == "cpu":
            return "it computes on a GPU only."
        count = count_gpus()
        if not count:
            return "CUDA shows no GPU here: there is no NVIDIA driver, or no GPU that this process may use."
        if count <= _number(device):
            return f"CUDA shows no GPU number {_number(device)} here."
        return None

    @property
    def ahead(self) -> Ahead:
        return to_cupy().ahead

    @property
    def estimators(self) -> frozenset[str]:
        # All hold for the same release, which `unavailable` has looked at.
        return frozenset(name for name in TABLE if "." not in name or name in third_party.installed())

    def support(self, request: Request) -> Reason | None:
        return support.reason(self.name, request)

    def load(self, row: Row, attributes: Mapping[str, Any]) -> Any:
        with translated(row.name):
            return _Model(row, attributes)

    def methods(self, row: Row) -> frozenset[str]:
        return frozenset(row.method_names) - set(TABLE[row.name].without.split())

    def put(self, array: Any) -> Any:
        from wsl_worker.engines.cuml import memory

        return memory.to_device(array)

    def get(self, array: Any) -> Any:
        from wsl_worker.engines.cuml import parts

        return array.get() if parts.is_native(array) else array

    def take(self, array: Any, index: Any, axis: int) -> Any:
        return import_module("cupy").take(array, self.put(index), axis=axis)

    def side_by_side(self, arrays: Sequence[Any]) -> Any:
        return import_module("cupy").hstack(list(arrays))

    def compute(self, model: Any, method: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        with model.kind.handing_on(model.row.name in HANDED_ON):
            return self.call(model, method, arguments, keywords)

    def call(self, model: Any, method: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        row = model.row
        if method == "score" and scores.is_of_predictions(row.cls):
            return scores.score(row.cls, lambda X: self.call(model, "predict", [X], {}), arguments, keywords)
        given = {name: _as_array(value) for name, value in bound(row, method, arguments, keywords).items()}
        if not model.kind.takes_native:
            given = {name: self.get(value) for name, value in given.items()}
        elif _is_large(given.get("X")):
            given["X"] = self.put(given["X"])
        self.ahead.forget()  # what was not asked for takes room on the device
        words = TABLE[row.name].objection_to_call(method, given)
        if words is not None:
            raise Unsupported(f"{row.name} by cuml: {words}.", "unsupported-by-engine")
        with translated(row.name):
            value = model.kind.call(method, given)
        if value is model.kind:
            return model
        return as_scikit_learn(row, method, value, next(iter(given.values()), None))

    def state(self, model: Any) -> Mapping[str, Any]:
        return {**model.kind.fitted, **model.before}


def _is_large(X: Any) -> bool:
    is_matrix = type(X) is np.ndarray and X.ndim == 2 and X.dtype in (np.float32, np.float64)
    return is_matrix and X.nbytes >= LEAST_BYTES


def bound(row: Row, method: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by the names that scikit-learn's method gives them."""
    signature = inspect.signature(getattr(row.cls, method))
    given = dict(signature.bind(None, *arguments, **keywords).arguments)
    del given[next(iter(signature.parameters))]
    extra = [name for name, one in signature.parameters.items() if one.kind is one.VAR_KEYWORD and name in given]
    for name in extra:
        given.update(given.pop(name))
    return given


def as_scikit_learn(row: Row, method: str, value: Any, X: Any) -> Any:
    """Return a result with the dtypes of scikit-learn's."""
    from wsl_worker.engines.cuml.fills import LABELS

    if isinstance(value, tuple):
        return tuple(as_scikit_learn(row, method, item, X) for item in value)
    if method in ("score", "error_norm"):
        return float(value) if row.name == "KMeans" else np.float64(value)
    dtype = getattr(value, "dtype", None)
    if row.name == "OneHotEncoder":
        is_text = getattr(dtype, "kind", "") == "O" and all(isinstance(item, str) for item in value.flat)
        return value.astype(str) if is_text else value
    if dtype is None:
        return value
    if row.name in ("LabelEncoder", "LabelBinarizer"):
        return value if method == "inverse_transform" else value.astype(np.int64, copy=False)
    if dtype.kind == "f":
        is_single = row.name in _SINGLE or (row.name not in _DOUBLE and getattr(X, "dtype", None) == np.float32)
        return value.astype(np.float32 if is_single else np.float64, copy=False)
    if method in ("predict", "fit_predict") and row.name in LABELS:
        return value.astype(LABELS[row.name], copy=False)
    return value.astype(np.int64, copy=False) if method == "kneighbors" else value


@contextlib.contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn what cuML does not take into this package's error."""
    from cuml.internals.interop import UnsupportedOnCPU, UnsupportedOnGPU

    try:
        yield
    except (UnsupportedOnGPU, UnsupportedOnCPU) as error:
        raise Unsupported(f"{name} by cuml: {error}.", "unsupported-by-engine") from error


def _as_array(value: Any) -> Any:
    if scipy.sparse.issparse(value) or not isinstance(value, (objects.Frame, list, tuple)):
        return value
    return np.asarray(value)


def _number(device: str) -> int:
    return int(device.partition(":")[2] or 0) if device != "auto" else 0


def _installed_version() -> str | None:
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None
