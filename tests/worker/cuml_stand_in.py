"""scikit-learn in the place of cuML, and numpy in that of CuPy. The stand-in loses what cuML loses."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.sparse
from sklearn.neighbors import NearestNeighbors

from sklearn_wsl_gpu.estimators import Row
from wsl_worker.engines.cuml import CumlEngine, kinds, memory

#: What cuML's hooks do not give, by the name of the attribute.
LOST = {
    "_tol", "_n_init", "_algorithm", "_fit_svd_solver", "rank_", "singular_", "dual_gap_", "affinity_matrix_", "gamma_",
    "_num_iter", "_sample_weight", "_seeds",
}  # fmt: skip


class _UnsupportedOnGPU(ValueError):
    pass


class _UnsupportedOnCPU(ValueError):
    pass


class StandIn:
    """An estimator of scikit-learn with the hooks of cuML's."""

    failure: ClassVar[Exception | None] = None

    def __init__(self, row: Row, parameters: Mapping[str, Any]) -> None:
        assert row.cls is not None
        self._row = row
        names = row.parameters & parameters.keys()
        self._model = row.cls(**{name: parameters[name] for name in names})

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._model, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            if StandIn.failure is not None:
                raise StandIn.failure
            value = method(*arguments, **keywords)
            return self if value is self._model else value

        return call

    def _sync_attrs_to_cpu(self, target: Any) -> None:
        own = self._row.initial_names
        found = {name: value for name, value in vars(self._model).items() if name not in {*own, *LOST}}
        if self._row.name == "IsolationForest":
            del found["_n_samples"]
            found["_sample_weight"] = None
        if self._row.name == "SVR":
            found.update(_n_support=np.array([3, 0]), n_iter_=[self._model.n_iter_])
        vars(target).update(found)

    def _sync_attrs_from_cpu(self, model: Any) -> None:
        if self._row.name == "IsolationForest":
            raise _UnsupportedOnGPU("Conversion is not supported")
        vars(self._model).update(vars(model))
        if self._row.name == "SVC":  # see test_cuml_parts for classifiers that go both ways
            raise _UnsupportedOnGPU("the stand-in takes no classifier")


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine find the stand-in where it looks for cuML."""

    def make(row: Row, parameters: Mapping[str, Any], **changes: Any) -> Any:
        return StandIn(row, {**parameters, **changes})

    interop = types.ModuleType("cuml.internals.interop")
    vars(interop).update(UnsupportedOnGPU=_UnsupportedOnGPU, UnsupportedOnCPU=_UnsupportedOnCPU)
    neighbors = types.ModuleType("cuml.neighbors")
    vars(neighbors).update(NearestNeighbors=lambda output_type, **keywords: NearestNeighbors(**keywords))
    cupyx = types.ModuleType("cupyx")
    sparse = types.ModuleType("cupyx.scipy")
    vars(sparse).update(sparse=scipy.sparse)
    stubs = {
        "cuml": types.ModuleType("cuml"),
        "cuml.internals": types.ModuleType("cuml.internals"),
        "cuml.internals.interop": interop,
        "cuml.neighbors": neighbors,
        "cupy": np,
        "cupyx": cupyx,
        "cupyx.scipy": sparse,
    }
    for name, module in stubs.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(StandIn, "failure", None)
    monkeypatch.setattr(kinds, "make", make)
    monkeypatch.setattr(memory, "use_device", lambda number: None)
    monkeypatch.setattr(memory, "is_usable", lambda: True)
    monkeypatch.setattr(CumlEngine, "unavailable", classmethod(lambda cls, device: None))
