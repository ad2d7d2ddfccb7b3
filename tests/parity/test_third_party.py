"""Estimators of other packages are offloaded by the entry points that name them."""

from __future__ import annotations

import pickle
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import make_blobs

import sklearn_wsl_gpu
from sklearn_wsl_gpu.estimators import find
from sklearn_wsl_gpu.state import objects
from sklearn_wsl_gpu.testing import assert_same, first_difference
from tests.integration.tools import run_python
from tests.parity.cases import on_the_worker
from tests.worker import cuml_stand_in
from wsl_worker.engines.cuml import CumlEngine

pytestmark = [
    pytest.mark.skipif(
        find_spec("umap") is None or find_spec("hdbscan") is None, reason="umap-learn or hdbscan is not installed"
    ),
    pytest.mark.usefixtures("shared_worker"),
    pytest.mark.filterwarnings("ignore:n_jobs value"),
    pytest.mark.filterwarnings("ignore::FutureWarning:hdbscan"),
]

X, GROUPS = make_blobs(n_samples=120, n_features=5, centers=3, random_state=0)


def _imported(name: str) -> Any:
    with warnings.catch_warnings(action="ignore"):
        return import_module(name)


@pytest.fixture(scope="module")
def umap() -> Any:
    """Import it: by the process that runs these tests only, for the first time numba compiles for twenty seconds."""
    return _imported("umap")


@pytest.fixture(scope="module")
def hdbscan() -> Any:
    return _imported("hdbscan")


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"metric": "manhattan", "n_components": 3},
        {"init": "random", "n_neighbors": 5},
        {"output_metric": "haversine"},
    ],
    ids=str,
)
def test_a_umap_fitted_on_the_worker_is_as_one_fitted_here(parameters: dict[str, Any], umap: Any) -> None:
    local = umap.UMAP(random_state=0, n_epochs=20, **parameters).fit(X)
    remote = umap.UMAP(random_state=0, n_epochs=20, **parameters)
    with on_the_worker():
        remote.fit(X)

    assert_same(remote, local)
    assert_same(pickle.loads(pickle.dumps(remote)), local)
    assert first_difference(remote.transform(X[:7] + 0.1), local.transform(X[:7] + 0.1)) is None
    assert clone(remote).get_params() == clone(local).get_params()


def test_a_umap_transforms_on_the_worker_and_back(umap: Any) -> None:
    model = umap.UMAP(random_state=0, n_epochs=20).fit(X, GROUPS)
    new = pd.DataFrame(X[:7] + 0.1)
    local = model.transform(new), model.inverse_transform(model.embedding_[:3])
    with on_the_worker():
        remote = model.transform(new), model.inverse_transform(model.embedding_[:3])
        many = model.transform(np.repeat(X, 35, axis=0))
        supervised = umap.UMAP(random_state=0, n_epochs=20).fit_transform(X, GROUPS)

    assert first_difference(remote, local) is None
    assert many.shape == (4200, 2)
    assert first_difference(supervised, model.embedding_) is None


def test_a_umap_that_searches_approximately_says_why_it_is_not_offloaded(umap: Any) -> None:
    model = umap.UMAP(random_state=0, n_epochs=2, force_approximation_algorithm=True)
    with sklearn_wsl_gpu.offload(fallback="raise"), pytest.raises(sklearn_wsl_gpu.Unsupported, match="search index"):
        model.fit(X)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"min_cluster_size": 3, "metric": "manhattan"},
        {"gen_min_span_tree": True, "cluster_selection_method": "leaf"},
    ],
    ids=str,
)
def test_an_hdbscan_fitted_on_the_worker_is_as_one_fitted_here(parameters: dict[str, Any], hdbscan: Any) -> None:
    local, remote = hdbscan.HDBSCAN(**parameters), hdbscan.HDBSCAN(**parameters)
    labels = local.fit_predict(X)
    with on_the_worker():
        found = remote.fit_predict(X)

    assert first_difference(found, labels) is None
    assert_same(remote, local)
    # A joblib.Memory is equal to itself only.
    assert_same(pickle.loads(pickle.dumps(remote)).set_params(memory=local.memory), local)
    assert first_difference(remote.outlier_scores_, local.outlier_scores_) is None
    assert first_difference(remote.condensed_tree_.to_numpy(), local.condensed_tree_.to_numpy()) is None
    assert first_difference(remote.exemplars_, local.exemplars_) is None


@pytest.mark.falls_back
def test_an_hdbscan_that_keeps_prediction_data_says_why_it_is_fitted_here(hdbscan: Any) -> None:
    model = hdbscan.HDBSCAN(prediction_data=True)
    with sklearn_wsl_gpu.offload(), pytest.warns(sklearn_wsl_gpu.FallbackWarning, match="prediction_data"):
        model.fit(X)

    assert hdbscan.approximate_predict(model, X[:2])[0].shape == (2,)


def test_its_name_is_its_path_and_not_that_of_scikit_learns_estimator(hdbscan: Any) -> None:
    from sklearn.cluster import HDBSCAN

    with sklearn_wsl_gpu.offload(fallback="raise", exclude=["hdbscan.HDBSCAN"]) as session:
        hdbscan.HDBSCAN().fit(X)
        HDBSCAN(copy=True).fit(X)
    with sklearn_wsl_gpu.offload(fallback="raise", include=[hdbscan.HDBSCAN]) as other:
        hdbscan.HDBSCAN().fit(X)
        HDBSCAN(copy=True).fit(X)

    assert [call.where for call in session.report().calls] == ["local", "worker"]
    assert [call.where for call in other.report().calls] == ["worker", "local"]


@pytest.mark.parametrize(("name", "attribute"), [("umap.UMAP", "embedding_"), ("hdbscan.HDBSCAN", "labels_")])
def test_the_engine_cuml_keeps_their_parameters(
    name: str, attribute: str, umap: Any, hdbscan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuml_stand_in.install(monkeypatch)
    row = find(name)
    assert row is not None
    assert row.cls is not None
    objects.register(row)
    local = row.cls(min_cluster_size=8) if name == "hdbscan.HDBSCAN" else row.cls(random_state=0, n_epochs=5)
    engine = CumlEngine()
    model = engine.load(row, objects.carried_attributes(local))
    engine.call(model, "fit", [X], {})
    state = engine.state(model)

    assert {key: state[key] for key in row.parameters} == local.get_params()
    assert getattr(objects.build_estimator(row.cls, state), attribute).shape[0] == len(X)


_LATE = """
import sys, warnings
import numpy as np
from sklearn_wsl_gpu import offload, report
X = np.random.default_rng(0).normal(size=(60, 3))
with offload(fallback="raise"):
    assert "hdbscan" not in sys.modules
    import hdbscan
    hdbscan.HDBSCAN().fit(X)
print(*[(call.estimator, call.where) for call in report().calls])
assert not hasattr(hdbscan.HDBSCAN.fit, "__sklearn_wsl_gpu__")
with offload(fallback="raise") as session:
    hdbscan.HDBSCAN().fit(X)
print(session.report().offloaded)
"""


def test_a_package_that_is_imported_inside_the_block_is_offloaded() -> None:
    ran = run_python(_LATE)

    assert ran.stdout.split("\n")[:2] == ["('HDBSCAN', 'worker')", "1"], ran.stderr


@pytest.mark.parametrize("first", ["import hdbscan", "import json, sklearn"])
def test_the_environment_variable_works_whichever_is_imported_first(first: str) -> None:
    code = (
        f"{first}\nimport hdbscan, numpy as np\nhdbscan.HDBSCAN().fit(np.random.default_rng(0).normal(size=(60, 3)))\n"
    )
    code += "import sklearn_wsl_gpu\nprint(*[(call.estimator, call.where) for call in sklearn_wsl_gpu.report().calls])"
    ran = run_python(code, SKLEARN_WSL_GPU="1")

    assert ran.stdout.strip() == "('HDBSCAN', 'worker')", ran.stderr


_PLUGIN = """
import numpy as np
from sklearn.base import BaseEstimator

class Doubler(BaseEstimator):
    def __init__(self, by=2.0):
        self.by = by
    def fit(self, X, y=None):
        import os
        self.where_ = os.getpid()
        self.mean_ = np.asarray(X).mean(axis=0)
        return self
    def transform(self, X):
        return np.asarray(X) * self.by
"""
_ROW = """
from sklearn_wsl_gpu.estimators import Row
DOUBLER = Row("doubling.Doubler", "fit transform", named=False)
BROKEN = 3
"""
_ENTRIES = """[sklearn_wsl_gpu.estimators]
doubling.Doubler = doubling_rows:DOUBLER
doubling.Broken = doubling_rows:BROKEN
"""


def test_a_package_registers_its_own_estimators(tmp_path: Path) -> None:
    (tmp_path / "doubling.py").write_text(_PLUGIN)
    (tmp_path / "doubling_rows.py").write_text(_ROW)
    metadata = tmp_path / "doubling-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: doubling\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(_ENTRIES)
    code = """
import os, warnings
import numpy as np, doubling
from sklearn_wsl_gpu import offload
X = np.ones((4, 2))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with offload(fallback="raise") as session:
        model = doubling.Doubler().fit(X)
        assert model.where_ != os.getpid()
        assert (model.transform(X) == 2 * X).all()
    with offload(fallback="raise"):
        pass
print(session.report().offloaded, len(caught))
print(caught[0].message)
"""
    ran = run_python(code, PYTHONPATH=str(tmp_path))

    assert ran.stdout.splitlines()[:1] == ["2 1"], ran.stderr
    assert "doubling.Broken is not offloaded: the entry point that doubling has for it" in ran.stdout


def test_nothing_of_another_package_is_imported_for_it() -> None:
    code = "import sklearn_wsl_gpu, sys\nfrom sklearn.preprocessing import StandardScaler\n"
    code += "with sklearn_wsl_gpu.offload(fallback='raise'):\n    StandardScaler().fit([[1.0], [2.0]])\n"
    code += "print([name for name in ('umap', 'hdbscan', 'numba') if name in sys.modules])"

    assert run_python(code).stdout.strip() == "[]"


def test_the_same_version_is_wanted_on_both_sides(monkeypatch: pytest.MonkeyPatch, hdbscan: Any) -> None:
    from sklearn_wsl_gpu.estimators import third_party

    monkeypatch.setattr(third_party, "installed_version", lambda package: "0.0.1")
    with (
        sklearn_wsl_gpu.offload(fallback="raise"),
        pytest.raises(sklearn_wsl_gpu.Unsupported, match=r"hdbscan is 0.0.1 here and [0-9.]+ at the worker"),
    ):
        hdbscan.HDBSCAN().fit(X)


def test_a_forged_hdbscan_is_refused(hdbscan: Any) -> None:
    from sklearn_wsl_gpu.errors import RemoteProtocolError
    from sklearn_wsl_gpu.state import objects

    model = hdbscan.HDBSCAN().fit(X)
    with sklearn_wsl_gpu.offload():
        attributes = objects.carried_attributes(model)
    for name, value in (("_single_linkage_tree", 1e6), ("_condensed_tree", 10**6)):
        forged = np.array(attributes[name])
        forged[0] = tuple([int(value)] * 4) if forged.dtype.names else value
        with pytest.raises(RemoteProtocolError, match=name):
            objects.build_estimator(hdbscan.HDBSCAN, attributes | {name: forged})
