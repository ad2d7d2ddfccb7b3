"""cuML on a GPU: every estimator against scikit-learn, within the tolerance of its algorithm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from sklearn.manifold import TSNE, SpectralEmbedding, trustworthiness
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KernelDensity, KNeighborsClassifier, KNeighborsRegressor, NearestNeighbors
from sklearn.preprocessing import LabelBinarizer, LabelEncoder, OneHotEncoder, TargetEncoder
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR

import sklearn_wsl_gpu
from sklearn_wsl_gpu import offload
from sklearn_wsl_gpu.estimators import ROWS, find, third_party
from sklearn_wsl_gpu.state import objects
from sklearn_wsl_gpu.support.cuml import TABLE
from wsl_worker.engines.base import Engine
from wsl_worker.engines.cuml import CumlEngine, memory
from wsl_worker.testing import EngineSuite

_MISSING = CumlEngine.unavailable("auto")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(_MISSING is not None, reason=f"the engine cuml cannot run here: {_MISSING}"),
    pytest.mark.filterwarnings("ignore"),
]

X, Y = make_classification(600, 12, n_informative=8, n_classes=3, class_sep=2.0, random_state=0)
XR, Z = make_regression(600, 12, noise=5.0, random_state=0)
POINTS, BLOBS = make_blobs(600, 5, centers=4, cluster_std=0.6, random_state=3)
CATEGORIES = np.random.default_rng(0).integers(0, 6, size=(600, 3)).astype(float)
NAMES = np.array(["red", "green", "blue"])[Y]


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


def _close(attribute: str, tolerance: float = 1e-2) -> Callable[[Any, Any], None]:
    def check(remote: Any, local: Any) -> None:
        found, expected = np.asarray(getattr(remote, attribute)), np.asarray(getattr(local, attribute))
        np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=tolerance, atol=tolerance)

    return check


def _predicts(data: Any, share: float = 0.97) -> Callable[[Any, Any], None]:
    def check(remote: Any, local: Any) -> None:
        assert np.mean(remote.predict(data) == local.predict(data)) >= share

    return check


def _regresses(data: Any) -> Callable[[Any, Any], None]:
    def check(remote: Any, local: Any) -> None:
        found, expected = remote.predict(data), local.predict(data)
        assert 1 - np.mean((found - expected) ** 2) / np.var(expected) > 0.97

    return check


def _clusters(remote: Any, local: Any) -> None:
    assert remote.labels_.dtype == local.labels_.dtype
    assert adjusted_rand_score(remote.labels_, local.labels_) > 0.95


def _embeds(data: Any) -> Callable[[Any, Any], None]:
    def check(remote: Any, local: Any) -> None:
        there, here = (trustworthiness(data, one.embedding_) for one in (remote, local))
        assert there > here - 0.05

    return check


def _transforms(data: Any) -> Callable[[Any, Any], None]:
    def check(remote: Any, local: Any) -> None:
        found, expected = remote.transform(data), local.transform(data)
        if scipy.sparse.issparse(expected):
            found, expected = found.toarray(), expected.toarray()
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)

    return check


def _finds(remote: Any, local: Any) -> None:
    found, expected = (one.kneighbors(POINTS[:50], return_distance=False) for one in (remote, local))
    assert np.mean(found == expected) > 0.98


_CASES: list[tuple[Any, tuple[Any, ...], Callable[[Any, Any], None]]] = [
    (KMeans(4, n_init=5, random_state=0), (POINTS,), _clusters),
    (DBSCAN(eps=1.0), (POINTS,), _clusters),
    (HDBSCAN(min_cluster_size=20, copy=True), (POINTS,), _clusters),
    (SpectralClustering(4, gamma=0.1, random_state=0), (POINTS,), _clusters),
    (SpectralClustering(4, affinity="nearest_neighbors", random_state=0), (POINTS,), _clusters),
    (SpectralClustering(4, gamma=0.1, random_state=0), (POINTS,), _close("affinity_matrix_", 1e-6)),
    (EmpiricalCovariance(), (X,), _close("covariance_", 1e-6)),
    (LedoitWolf(), (X,), _close("covariance_", 1e-6)),
    (PCA(5), (X,), _close("components_", 1e-3)),
    (IncrementalPCA(5), (X,), _close("components_", 1e-3)),
    (TruncatedSVD(3, n_iter=15), (X,), _close("singular_values_", 1e-2)),
    (RandomForestClassifier(random_state=0), (X, NAMES), _predicts(X)),
    (RandomForestRegressor(random_state=0), (XR, Z), _regresses(XR)),
    (RandomForestClassifier(random_state=0), (X, Y), _close("feature_importances_", 0.08)),
    (IsolationForest(random_state=0), (X,), _predicts(X, 0.85)),
    (KernelRidge(alpha=0.1), (XR, Z), _regresses(XR)),
    (LinearRegression(), (XR, Z), _close("coef_", 1e-6)),
    (LinearRegression(), (XR, Z), _close("singular_", 1e-6)),
    (LogisticRegression(max_iter=500), (X, NAMES), _predicts(X, 0.99)),
    (Ridge(), (XR, Z), _close("coef_", 1e-4)),
    (ElasticNet(0.1), (XR, Z), _close("coef_", 0.05)),
    (Lasso(0.1), (XR, Z), _close("coef_", 0.05)),
    (TSNE(random_state=0), (POINTS,), _embeds(POINTS)),
    (SpectralEmbedding(random_state=0), (POINTS,), _embeds(POINTS)),
    (NearestNeighbors(), (POINTS,), _finds),
    (KNeighborsClassifier(), (X, NAMES), _predicts(X, 0.98)),
    (KNeighborsRegressor(), (XR, Z), _regresses(XR)),
    (KernelDensity(), (POINTS,), lambda remote, local: np.testing.assert_allclose(
        remote.score_samples(POINTS), local.score_samples(POINTS), rtol=1e-6)),
    (OneHotEncoder(), (CATEGORIES,), _transforms(CATEGORIES)),
    (TargetEncoder(), (CATEGORIES, Z), _transforms(CATEGORIES)),
    (LabelEncoder(), (NAMES,), _transforms(NAMES)),
    (LabelBinarizer(), (NAMES,), _transforms(NAMES)),
    (SVC(), (X, NAMES), _predicts(X, 0.99)),
    (SVC(class_weight="balanced"), (X, Y == 1), _predicts(X, 0.99)),
    (SVR(C=100.0), (XR, Z), _regresses(XR)),
    (LinearSVC(), (X, NAMES), _predicts(X, 0.95)),
    (LinearSVR(C=10.0, max_iter=10000), (XR, Z), _regresses(XR)),
]  # fmt: skip


@pytest.mark.parametrize(("estimator", "data", "check"), _CASES, ids=[str(case[0])[:60] for case in _CASES])
def test_a_fit_there_is_worth_a_fit_here(
    engine: CumlEngine, estimator: Any, data: tuple[Any, ...], check: Callable[[Any, Any], None]
) -> None:
    name = type(estimator).__name__
    remote, _ = _fitted(engine, name, estimator, *data)
    assert remote.get_params() == estimator.get_params()

    check(remote, type(estimator)(**estimator.get_params()).fit(*data))


def test_every_row_of_the_table_is_compared() -> None:
    assert {type(case[0]).__name__ for case in _CASES} == {name for name in TABLE if "." not in name}


@pytest.mark.parametrize("name", ["umap.UMAP", "hdbscan.HDBSCAN"])
def test_estimators_of_other_packages_are_worth_theirs(engine: CumlEngine, name: str) -> None:
    if name not in third_party.installed():
        pytest.skip(f"{name} is not installed")
    row = find(name)
    assert row is not None
    assert row.cls is not None
    estimator = row.cls(random_state=0) if name == "umap.UMAP" else row.cls(min_cluster_size=20)
    remote, model = _fitted(engine, name, estimator, POINTS)

    if name == "umap.UMAP":
        assert trustworthiness(POINTS, remote.embedding_) > 0.9
        assert engine.call(model, "transform", [POINTS[:20]], {}).shape == (20, 2)
    else:
        assert adjusted_rand_score(remote.labels_, BLOBS) > 0.95


def test_importances_are_those_that_cuml_counted_while_it_grew_the_trees(engine: CumlEngine) -> None:
    remote, model = _fitted(engine, "RandomForestClassifier", RandomForestClassifier(random_state=0), X, Y)

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
