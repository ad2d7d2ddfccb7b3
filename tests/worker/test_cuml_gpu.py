"""cuML on a GPU: every estimator against scikit-learn at three sizes, within the tolerances of cuML's own tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.sparse
from sklearn.cluster import DBSCAN, HDBSCAN, KMeans, SpectralClustering
from sklearn.covariance import EmpiricalCovariance, LedoitWolf
from sklearn.datasets import make_blobs, make_classification, make_regression
from sklearn.decomposition import PCA, IncrementalPCA, TruncatedSVD
from sklearn.ensemble import IsolationForest, RandomForestClassifier, RandomForestRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, LogisticRegression, Ridge
from sklearn.manifold import TSNE, SpectralEmbedding
from sklearn.neighbors import KernelDensity, KNeighborsClassifier, KNeighborsRegressor, NearestNeighbors
from sklearn.preprocessing import LabelBinarizer, LabelEncoder, OneHotEncoder, TargetEncoder
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR

import sklearn_wsl_gpu
from sklearn_wsl_gpu import offload
from sklearn_wsl_gpu.estimators import ROWS, find, third_party
from sklearn_wsl_gpu.state import objects
from sklearn_wsl_gpu.support.cuml import TABLE
from tests.benchmarks.programs import load
from wsl_worker.engines.base import Engine
from wsl_worker.engines.cuml import CumlEngine, memory
from wsl_worker.testing import EngineSuite

_MISSING = CumlEngine.unavailable("auto")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(_MISSING is not None, reason=f"the engine cuml cannot run here: {_MISSING}"),
    pytest.mark.filterwarnings("ignore"),
]

judge = load("parity").judge

SIZES = (600, 2_000, 4_000)


@cache
def _data_of(rows: int) -> dict[str, tuple[Any, ...]]:
    """Return what can be fitted on, by the names that the cases have for it."""
    X, y = make_classification(rows, 12, n_informative=8, n_classes=3, class_sep=2.0, random_state=0)
    points, _ = make_blobs(rows, 5, centers=4, cluster_std=0.6, random_state=3)
    numbers = make_regression(rows, 12, noise=5.0, random_state=0)
    categories = np.random.default_rng(0).integers(0, 6, size=(rows, 3)).astype(float)
    names = np.array(["red", "green", "blue"])[y]
    return {
        "columns": (X,),
        "points": (points,),
        "classes": (X, names),
        "two classes": (X, y == 1),
        "numbers": numbers,
        "categories": (categories,),
        "means": (categories, numbers[1]),
        "names": (names,),
    }


X, NAMES = _data_of(600)["classes"]
XR, Z = _data_of(600)["numbers"]


class TestCumlEngine(EngineSuite):
    rtol: ClassVar[float] = 1e-3
    lost: ClassVar[Mapping[str, str]] = {
        "RandomForestClassifier": "_sample_weight _n_samples_bootstrap",
        "RandomForestRegressor": "_sample_weight _n_samples_bootstrap",
        "IsolationForest": "_seeds",
        # It searches by brute force.
        "NearestNeighbors": "_tree",
        "KNeighborsClassifier": "_tree",
        "KNeighborsRegressor": "_tree",
    }

    def make_engine(self) -> Engine:
        return CumlEngine()

    def check_equal(self, found: Any, expected: Any) -> None:
        if isinstance(expected, np.ndarray) and expected.dtype.kind in "iu":
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            assert np.mean(found == expected) > 0.97
        elif isinstance(expected, np.ndarray) and expected.dtype.kind == "f":
            assert found.dtype == expected.dtype
            np.testing.assert_allclose(found, expected, rtol=self.rtol, atol=1e-3)
        else:
            super().check_equal(found, expected)


@pytest.fixture(scope="module")
def engine() -> CumlEngine:
    return CumlEngine()


def _fitted(engine: CumlEngine, name: str, estimator: Any, *data: Any, **keywords: Any) -> tuple[Any, Any]:
    """Return the estimator fitted on the GPU, as the client would have it, and the engine's model."""
    row = find(name)
    assert row is not None
    if row.package != "sklearn":
        objects.register(row)
    model = engine.load(row, objects.carried_attributes(estimator))
    assert engine.call(model, "fit", list(data), keywords) is model
    return objects.build_estimator(type(estimator), engine.state(model)), model


def _assert_worth(name: str, remote: Any, local: Any, data: Any, target: Any = None) -> None:
    judgement = judge(name, remote, local, data, target)
    assert judgement["within"], judgement


def _close(attribute: str, tolerance: float = 1e-2) -> Callable[[Any, Any], None]:
    def check(remote: Any, local: Any) -> None:
        found, expected = np.asarray(getattr(remote, attribute)), np.asarray(getattr(local, attribute))
        np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=tolerance, atol=tolerance)

    return check


CASES: list[tuple[Any, str, Callable[[Any, Any], None] | None]] = [
    (KMeans(4, n_init=5, random_state=0), "points", None),
    (DBSCAN(eps=1.0), "points", None),
    (HDBSCAN(min_cluster_size=20, copy=True), "points", None),
    (SpectralClustering(4, gamma=0.1, random_state=0), "points", _close("affinity_matrix_", 1e-6)),
    (SpectralClustering(4, affinity="nearest_neighbors", random_state=0), "points", None),
    (EmpiricalCovariance(), "columns", _close("covariance_", 1e-6)),
    (LedoitWolf(), "columns", _close("covariance_", 1e-6)),
    (PCA(5), "columns", _close("components_", 1e-3)),
    (IncrementalPCA(5), "columns", _close("components_", 1e-3)),
    (TruncatedSVD(3, n_iter=15), "columns", _close("singular_values_", 1e-2)),
    (RandomForestClassifier(random_state=0), "classes", _close("feature_importances_", 0.08)),
    (RandomForestRegressor(random_state=0), "numbers", None),
    (IsolationForest(random_state=0), "columns", None),
    (KernelRidge(alpha=0.1), "numbers", None),
    (LinearRegression(), "numbers", _close("coef_", 1e-6)),
    (LinearRegression(), "numbers", _close("singular_", 1e-6)),
    (LogisticRegression(max_iter=500), "classes", None),
    (Ridge(), "numbers", _close("coef_", 1e-4)),
    (ElasticNet(0.1), "numbers", _close("coef_", 0.05)),
    (Lasso(0.1), "numbers", _close("coef_", 0.05)),
    (TSNE(random_state=0), "points", None),
    (SpectralEmbedding(random_state=0), "points", None),
    (NearestNeighbors(), "points", None),
    (KNeighborsClassifier(), "classes", None),
    (KNeighborsRegressor(), "numbers", None),
    (KernelDensity(), "points", None),
    (OneHotEncoder(), "categories", None),
    (TargetEncoder(), "means", None),
    (LabelEncoder(), "names", None),
    (LabelBinarizer(), "names", None),
    (SVC(), "classes", None),
    (SVC(class_weight="balanced"), "two classes", None),
    (SVR(C=100.0), "numbers", None),
    (LinearSVC(), "classes", None),
    (LinearSVR(C=10.0, max_iter=10000), "numbers", None),
]


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize(("estimator", "kind", "check"), CASES, ids=[str(case[0])[:60] for case in CASES])
def test_a_fit_there_is_worth_a_fit_here(
    engine: CumlEngine, estimator: Any, kind: str, check: Callable[[Any, Any], None] | None, rows: int
) -> None:
    name, data = type(estimator).__name__, _data_of(rows)[kind]
    remote, _ = _fitted(engine, name, estimator, *data)
    assert remote.get_params() == estimator.get_params()

    local = type(estimator)(**estimator.get_params()).fit(*data)
    _assert_worth(name, remote, local, *data)
    if check is not None:
        check(remote, local)


def test_every_row_of_the_table_is_compared() -> None:
    assert {type(case[0]).__name__ for case in CASES} == {name for name in TABLE if "." not in name}


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("name", ["umap.UMAP", "hdbscan.HDBSCAN"])
def test_estimators_of_other_packages_are_worth_theirs(engine: CumlEngine, name: str, rows: int) -> None:
    if name not in third_party.installed():
        pytest.skip(f"{name} is not installed")
    row = find(name)
    assert row is not None
    assert row.cls is not None
    (points,) = _data_of(rows)["points"]
    settings = {"random_state": 0} if name == "umap.UMAP" else {"min_cluster_size": 20}
    remote, model = _fitted(engine, name, row.cls(**settings), points)

    _assert_worth(name, remote, row.cls(**settings).fit(points), points)
    if name == "umap.UMAP":
        assert engine.call(model, "transform", [points[:20]], {}).shape == (20, 2)


def test_importances_are_those_that_cuml_counted_while_it_grew_the_trees(engine: CumlEngine) -> None:
    remote, model = _fitted(engine, "RandomForestClassifier", RandomForestClassifier(random_state=0), X, NAMES)

    np.testing.assert_allclose(
        remote.feature_importances_, np.asarray(model.kind._device.feature_importances_), atol=1e-3
    )


@pytest.mark.parametrize("is_sparse", [False, True], ids=["dense", "sparse"])
def test_an_svc_of_three_classes_decides_as_here(engine: CumlEngine, is_sparse: bool) -> None:
    data = scipy.sparse.csr_matrix(X) if is_sparse else X
    local = SVC().fit(data, NAMES)
    remote, model = _fitted(engine, "SVC", SVC(), data, NAMES)

    assert np.abs(remote.n_support_ - local.n_support_).max() <= 5
    for found in (remote.decision_function(data), engine.call(model, "decision_function", [data], {})):
        np.testing.assert_allclose(found, local.decision_function(data), atol=0.05)


def test_results_keep_the_precision_of_the_data(engine: CumlEngine) -> None:
    for dtype in (np.float32, np.float64):
        _, model = _fitted(engine, "PCA", PCA(3), X.astype(dtype))

        assert engine.call(model, "transform", [X.astype(dtype)], {}).dtype == dtype


def test_a_call_that_does_not_fit_into_memory_leaves_a_working_engine(engine: CumlEngine) -> None:
    model = engine.load(ROWS["KernelRidge"], objects.carried_attributes(KernelRidge()))
    rows = np.zeros((400_000, 1), dtype=np.float32)

    with pytest.raises(MemoryError):
        engine.call(model, "fit", [rows, rows[:, 0]], {})
    assert memory.is_usable()
    _fitted(engine, "Ridge", Ridge(), XR, Z)


def test_a_script_runs_on_the_gpu_and_its_report_says_so() -> None:
    with offload(engine="cuml", fallback="raise") as session:
        model = RandomForestClassifier(20, random_state=0).fit(X, NAMES)
        score = model.score(X, NAMES)
    sklearn_wsl_gpu.shutdown()

    assert score > 0.95
    assert {(call.where, call.engine) for call in session.report().calls} == {("worker", "cuml")}
