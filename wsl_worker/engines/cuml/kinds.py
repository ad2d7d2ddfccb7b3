"""Kinds of models: one that wraps an estimator of cuML, and those that need more than one.

Every kind has ``fitted``, the fitted attributes as scikit-learn's estimator would have them, and ``load`` and ``call``.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from sklearn_wsl_gpu.errors import Unsupported
from sklearn_wsl_gpu.estimators import METHODS, Row
from sklearn_wsl_gpu.state import objects
from wsl_worker.engines.cuml import fills, forests, parts
from wsl_worker.engines.cuml.svc import PairwiseSVC
from wsl_worker.engines.cuml.target import TargetEncoder

#: Where cuML's class is, if not at the path of scikit-learn's.
_ELSEWHERE = {
    "HDBSCAN": "cuml.accel._overrides.sklearn.cluster._SklearnHDBSCAN",
    "hdbscan.HDBSCAN": "cuml.cluster.HDBSCAN",
    "umap.UMAP": "cuml.manifold.UMAP",
}
#: Arguments that cuML does not have; the table's limits see to it that they say nothing.
_DROPPED = frozenset({"ensure_all_finite", "force_all_finite", "check_input"})
#: What cuML may call by another name: the first argument, where it is given.
_DATA = frozenset({"X", "X_test", "y", "Y"})


def device_class(row: Row) -> Any:
    """Import and return cuML's class for an estimator."""
    path = _ELSEWHERE.get(row.name, row.path.replace("sklearn.", "cuml.", 1))
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def make(row: Row, parameters: Mapping[str, Any], **changes: Any) -> Any:
    """Return an unfitted estimator of cuML.

    Parameters
    ----------
    row : Row
    parameters : mapping of str to object
        The user's, which stay as they are.
    **changes
        Parameters that are to be others than the user's.
    """
    estimator = SimpleNamespace(**{**parameters, **changes})
    cls = device_class(row)
    return cls(**cls._params_from_cpu(estimator), output_type="numpy")


class _Kind:
    #: Whether its methods take arrays of CuPy.
    takes_native = False

    @contextlib.contextmanager
    def handing_on(self, wanted: bool) -> Iterator[None]:
        """Have results stay on the device in a ``with`` block, if that is possible."""
        yield


class Plain(_Kind):
    """One estimator of cuML."""

    takes_native = True

    @contextlib.contextmanager
    def handing_on(self, wanted: bool) -> Iterator[None]:
        self._output = "cupy" if wanted else "numpy"
        try:
            yield
        finally:
            self._output = "numpy"

    def __init__(self, row: Row, parameters: Mapping[str, Any]) -> None:
        self._row = row
        self._parameters = parameters
        self._device = make(row, parameters)
        self._output = "numpy"
        self.fitted: dict[str, Any] = {}

    def load(self, attributes: Mapping[str, Any]) -> None:
        """Take over what an estimator of scikit-learn has found."""
        if self._row.name in ("RandomForestClassifier", "RandomForestRegressor"):
            attributes = forests.with_samples(attributes)
        estimator = objects.build_estimator(objects.estimator_class(self._row.name), attributes)
        if getattr(estimator, "kernel", None) == "precomputed" and self._row.name == "SVR":
            # scikit-learn keeps no support vectors then, which cuML counts.
            raise Unsupported(
                "SVR by cuml: a model fitted on a precomputed kernel is not taken over.", "unsupported-by-engine"
            )
        self._device._sync_attrs_from_cpu(estimator)
        self.fitted = {name: value for name, value in attributes.items() if name not in self._parameters}

    def call(self, method: str, given: Mapping[str, Any]) -> Any:
        """Call a method; the model itself is returned for cuML's."""
        data = [value for name, value in given.items() if name in _DATA][:1]
        named = {name: value for name, value in given.items() if name not in _DROPPED}
        if data:
            del named[next(iter(named))]
        if method == "radius_neighbors_graph":
            named = {name: value for name, value in named.items() if name == "radius"}
        self._device.output_type = self._output
        try:
            value = getattr(self._device, method)(*data, **named)
        finally:
            self._device.output_type = "numpy"
        if METHODS[method].fits:
            self.fitted = self._harvest(given)
        return self if value is self._device else value

    def _harvest(self, given: Mapping[str, Any]) -> dict[str, Any]:
        target = objects.blank(self._row.cls)
        vars(target).update(self._parameters)
        self._device._sync_attrs_to_cpu(target)
        found = {name: value for name, value in vars(target).items() if name not in self._parameters}
        return {**found, **fills.fill(self._row.name, self._parameters, given, found)}


class Pairwise(_Kind):
    """SVC."""

    def __init__(self, row: Row, parameters: Mapping[str, Any]) -> None:
        make(row, parameters)  # cuML's own word on the parameters
        self._model = PairwiseSVC(lambda **changes: make(row, parameters, **changes), parameters)

    @property
    def fitted(self) -> dict[str, Any]:
        return self._model.fitted

    def load(self, attributes: Mapping[str, Any]) -> None:
        self._model.load(attributes)

    def call(self, method: str, given: Mapping[str, Any]) -> Any:
        value = getattr(self._model, method)(**given)
        return self if value is self._model else value


class Target(_Kind):
    """TargetEncoder."""

    def __init__(self, row: Row, parameters: Mapping[str, Any]) -> None:
        import cupy

        self._model = TargetEncoder(cupy, parameters)

    @property
    def fitted(self) -> dict[str, Any]:
        return self._model.fitted

    def load(self, attributes: Mapping[str, Any]) -> None:
        self._model.fitted = dict(attributes)

    def call(self, method: str, given: Mapping[str, Any]) -> Any:
        value = getattr(self._model, method)(**given)
        return self if value is self._model else value


class Spectral(_Kind):
    """SpectralClustering and SpectralEmbedding: cuML takes an affinity of a kernel as a precomputed one."""

    def __init__(self, row: Row, parameters: Mapping[str, Any]) -> None:
        self._row = row
        self._parameters = parameters
        is_kernel = parameters["affinity"] == "rbf"
        self._device = make(row, parameters, **({"affinity": "precomputed"} if is_kernel else {}))
        self.fitted: dict[str, Any] = {}

    def load(self, attributes: Mapping[str, Any]) -> None:
        self.fitted = {name: value for name, value in attributes.items() if name not in self._parameters}

    def call(self, method: str, given: Mapping[str, Any]) -> Any:
        X = given["X"]
        kernel = {}
        if self._parameters["affinity"] == "rbf":
            kernel = self._fit_kernel(np.asarray(X))
        else:
            self._device.fit(X)
        state = SimpleNamespace()
        self._device._sync_attrs_to_cpu(state)
        found = {
            name: value.astype(np.float64) if name == "embedding_" else value for name, value in vars(state).items()
        }
        self.fitted = {**found, "n_features_in_": np.shape(X)[1], **(kernel or self._affinity(X))}
        if method == "fit":
            return self
        return self.fitted["labels_" if method == "fit_predict" else "embedding_"]

    def _fit_kernel(self, X: Any) -> dict[str, Any]:
        import cupy

        gamma = self._parameters["gamma"]
        gamma = 1.0 / X.shape[1] if gamma is None else gamma
        affinity = parts.rbf_affinity(cupy, cupy.asarray(X, dtype=np.float64), gamma)
        self._device.fit(affinity.astype(np.float32))
        found = {"affinity_matrix_": parts.to_host(affinity)}
        return found if self._row.name == "SpectralClustering" else {**found, "gamma_": gamma}

    def _affinity(self, X: Any) -> dict[str, Any]:
        if self._parameters["affinity"] == "precomputed":
            return {"affinity_matrix_": np.asarray(X)}
        from cuml.neighbors import NearestNeighbors

        count = self._parameters["n_neighbors"] or max(len(X) // 10, 1)
        neighbors = NearestNeighbors(n_neighbors=count, output_type="numpy").fit(X)
        indices = neighbors.kneighbors(X, return_distance=False)
        return {"affinity_matrix_": parts.neighbors_affinity(np.asarray(indices, dtype=np.int32))}


KINDS: dict[str, Any] = {
    "SVC": Pairwise,
    "TargetEncoder": Target,
    "SpectralClustering": Spectral,
    "SpectralEmbedding": Spectral,
}
