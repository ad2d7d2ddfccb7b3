"""cuML's own word, against the table of what it computes and the calls that the engine makes. No test needs a GPU."""

from __future__ import annotations

import importlib
import inspect
import itertools
from types import SimpleNamespace
from typing import Any

import joblib
import numpy as np
import pytest

pytest.importorskip("cuml", reason="cuML is not installed: these tests are about its wheel")

from cuml.internals.interop import UnsupportedOnGPU
from cuml.manifold.umap import umap as umap_source
from cuml.neighbors import VALID_METRICS
from cuml.neighbors.kernel_density import SUPPORTED_METRICS

from sklearn_wsl_gpu.errors import Unsupported
from sklearn_wsl_gpu.estimators import METHODS, ROWS, Row, find, third_party
from sklearn_wsl_gpu.support import TABLES, Fact, Request
from sklearn_wsl_gpu.support.cuml import RELEASE, TABLE
from tests.benchmarks.programs import load
from wsl_worker.engines.cuml import CumlEngine, translated
from wsl_worker.engines.cuml.kinds import _DROPPED, KINDS, device_class, make

gpu = load("gpu")

pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = [name for name in TABLE if "." not in name or name in third_party.installed()]
_METRICS = sorted({*VALID_METRICS["brute"], *SUPPORTED_METRICS, *umap_source._METRICS, "precomputed", "dice", "yule"})


def _function(*arguments: Any) -> Any:
    return arguments


#: Values of each parameter, whatever estimator has it.
_GRID: dict[str, list[Any]] = {
    "affinity": ["rbf", "nearest_neighbors", "precomputed", "poly", "precomputed_nearest_neighbors", _function],
    "algorithm": ["auto", "brute", "ball_tree", "kd_tree", "lloyd", "elkan", "arpack", "randomized"],
    "assign_labels": ["kmeans", "discretize", "cluster_qr"],
    "batch_size": [None, 10],
    "bootstrap": [True, False],
    "branch_detection_data": [True, False],
    "categories": ["auto", [np.array([0.0, 1.0])], [np.array([b"a", b"b"])]],
    "ccp_alpha": [0, 0.0, 0.1, np.float64(0), np.float64(0.1)],
    "class_weight": [None, "balanced", "balanced_subsample", {0: 2.0}],
    "cluster_selection_epsilon": [0.0, 0.5],
    "cluster_selection_method": ["eom", "leaf"],
    "criterion": [
        "gini", "entropy", "log_loss", "squared_error", "absolute_error", "friedman_mse", "poisson",
    ],
    "densmap": [True, False],
    "drop": [None, "first", "if_binary"],
    "dtype": [np.float32, np.float64, np.bool_, np.int32, "f8", "i4"],
    "feature_name_combiner": ["concat", _function],
    "fit_intercept": [True, False],
    "gamma": ["scale", "auto", 0.1, None],
    "handle_unknown": ["error", "ignore", "infrequent_if_exist", "warn"],
    "init": ["k-means++", "random", "pca", "spectral", "tswspectral", np.eye(8), _function],
    "intercept_scaling": [1, 1.0, 2.0, np.float64(1)],
    "kernel": ["linear", "rbf", "poly", "precomputed", "gaussian", _function],
    "l1_ratio": [0.0, 0.3, 1.0, None],
    "loss": ["hinge", "squared_hinge", "epsilon_insensitive", "squared_epsilon_insensitive"],
    "match_reference_implementation": [True, False],
    "max_categories": [None, 3],
    "max_features": ["sqrt", 0.5, None, 1.0],
    "max_leaf_nodes": [None, 10],
    "max_samples": [None, 0.5, 10],
    "memory": ["here", joblib.Memory(None), joblib.Memory("/nowhere", verbose=0)],
    "method": ["exact", "barnes_hut", "other"],
    "metric": [*_METRICS, _function],
    "metric_params": [None, {}, {"p": 3}],
    "min_frequency": [None, 2],
    "min_samples": [None, 1, 2, 5, 1024, 1025],
    "min_cluster_size": [2, 5, 1025],
    "min_weight_fraction_leaf": [0, 0.0, 0.1],
    "monotonic_cst": [None, [0, 1]],
    "multi_class": ["ovr", "crammer_singer", "auto", "deprecated", "multinomial"],
    "n_components": [None, 2, 3, 0, "mle", 0.5],
    "oob_score": [True, False, _function],
    "penalty": ["l1", "l2", "elasticnet", None, "deprecated"],
    "positive": [True, False],
    "precompute": [True, False, np.eye(2)],
    "probability": [True, False],
    "random_state": [None, 3],
    "selection": ["cyclic", "random"],
    "smooth": ["auto", 1.0],
    "solver": ["auto", "svd", "lsqr", "lbfgs", "cholesky", "sparse_cg", "sag", "saga", "newton-cg"],
    "sparse_output": [True, False],
    "store_centers": [None, "centroid"],
    "svd_solver": ["auto", "full", "covariance_eigh", "randomized"],
    "target_metric": ["categorical", "euclidean", "l2", "l1"],
    "unique": [True, False],
    "warm_start": [True, False, np.bool_(True), np.bool_(False)],
    "weights": ["uniform", "distance", _function],
    "whiten": [True, False],
}  # fmt: skip
#: Where the engine computes more than the hook lets through: with which values, which it does not pass on to cuML.
_BROADER: dict[str, dict[str, list[Any]]] = {
    "SpectralClustering": {"affinity": ["rbf"]},
    "SpectralEmbedding": {"affinity": ["rbf"]},
    "TargetEncoder": {"random_state": ["deprecated"]},
}
#: Where cuML would compute something else than asked, and the hook lets it.
_STRICTER: dict[str, dict[str, list[Any]]] = {
    "LogisticRegression": {"solver": ["liblinear"]},
    "PCA": {"n_components": [0.5], "svd_solver": ["arpack"]},
    "hdbscan.HDBSCAN": {"prediction_data": [True], "cluster_selection_persistence": [0.1]},
    "umap.UMAP": {"output_metric": ["haversine"], "disconnection_distance": [2.0], "init": [_function]},
}


def _attributes(row: Row, **changes: Any) -> dict[str, Any]:
    assert row.cls is not None
    attributes = {**vars(row.cls()), **changes}
    return {name: attributes[name] for name in row.parameters | row.untouched if name in attributes}


def _hook(row: Row, attributes: dict[str, Any]) -> str | None:
    try:
        device_class(row)._params_from_cpu(SimpleNamespace(**attributes))
    except UnsupportedOnGPU as error:
        return str(error)
    return None


def _table(row: Row, attributes: dict[str, Any]) -> str | None:
    parameters = {name: attributes[name] for name in row.parameters}
    return TABLE[row.name].objection(Request(row, "fit", parameters, {}))


def _among(value: Any, values: list[Any]) -> bool:
    return any(type(value) is type(one) and np.array_equal(value, one) for one in values)


def _row(name: str) -> Row:
    row = find(name)
    assert row is not None
    return row


def _combinations(row: Row) -> list[dict[str, Any]]:
    grid = {name: _GRID[name] for name in sorted(row.parameters & _GRID.keys())}
    single = [{name: value} for name, values in grid.items() for value in values]
    pairs = [
        {one: first, other: second}
        for one, other in itertools.combinations(grid, 2)
        for first in grid[one][:6]
        for second in grid[other][:6]
    ]
    return [{}, *single, *pairs]


@pytest.mark.parametrize("name", NAMES)
def test_the_table_takes_the_parameters_that_cuml_takes_and_no_others(name: str) -> None:
    row = _row(name)
    disagreed = []
    for changes in _combinations(row):
        attributes = _attributes(row, **changes)
        if any(_among(attributes[key], values) for key, values in _BROADER.get(name, {}).items()):
            continue
        if any(_among(attributes[key], values) for key, values in _STRICTER.get(name, {}).items()):
            continue
        words = _hook(row, attributes), _table(row, attributes)
        if (words[0] is None) != (words[1] is None):
            disagreed.append((changes, *words))

    assert disagreed == []


@pytest.mark.parametrize("name", _BROADER)
def test_more_than_cuml_takes_is_computed_without_telling_it(name: str) -> None:
    row = _row(name)
    for parameter, values in _BROADER[name].items():
        for value in values:
            attributes = _attributes(row, **{parameter: value})

            assert _table(row, attributes) is None
            assert _hook(row, attributes) is not None
            assert name in KINDS


@pytest.mark.parametrize("name", _STRICTER)
def test_what_cuml_would_compute_otherwise_is_declined_in_words(name: str) -> None:
    row = _row(name)
    for parameter, values in _STRICTER[name].items():
        for value in values:
            attributes = _attributes(row, **{parameter: value})

            assert _hook(row, attributes) is None
            words = _table(row, attributes)
            assert words is not None
            assert "is not supported" in words or "has to be given" in words


def test_all_estimators_that_cuml_accelerates_are_in_a_table() -> None:
    found = set()
    for module in importlib.import_module("cuml.accel.core")._OVERRIDES:
        names = importlib.import_module(f"cuml.accel._overrides.{module}").__all__
        found |= {name if module.startswith("sklearn") else f"{module}.{name}" for name in names}

    assert len(found) == 38
    assert found <= TABLE.keys() | TABLES["array_api"].keys()
    assert found >= TABLE.keys()


@pytest.mark.parametrize("name", NAMES)
def test_sparse_data_are_taken_where_cuml_takes_them(name: str) -> None:
    row = _row(name)
    changes: dict[str, Any] = {"random_state": None} if name == "TargetEncoder" else {}
    model = make(row, _attributes(row, **changes), **({"affinity": "precomputed"} if "Spectral" in name else {}))

    assert TABLE[name].sparse == ("sparse" in model.__sklearn_tags__().X_types_gpu)
    assert model.output_type == "numpy"


@pytest.mark.parametrize("name", NAMES)
def test_a_method_is_without_where_cuml_has_none(name: str) -> None:
    row, cls = _row(name), device_class(_row(name))
    missing = {method for method in row.method_names if not hasattr(cls, method)}

    assert set(TABLE[name].without.split()) == missing


@pytest.mark.parametrize("name", [name for name in NAMES if name not in KINDS])
def test_cuml_knows_the_arguments_that_it_is_called_with(name: str) -> None:
    row, cls = _row(name), device_class(_row(name))
    for method in set(row.method_names) - set(TABLE[name].without.split()):
        if method in ("score", "radius_neighbors_graph") or (METHODS[method].fits and name == "IsolationForest"):
            continue
        here = list(inspect.signature(getattr(row.cls, method)).parameters.values())[1:]
        there = inspect.signature(getattr(cls, method)).parameters
        plain = {one.name for one in here[1:] if one.kind is not one.VAR_KEYWORD} - _DROPPED

        assert plain <= there.keys(), method
    if "radius_neighbors_graph" in row.method_names:
        assert list(inspect.signature(cls.radius_neighbors_graph).parameters)[1:] == ["X", "radius"]


@pytest.mark.parametrize("name", NAMES)
def test_cuml_has_the_hooks_that_the_engine_calls(name: str) -> None:
    cls = device_class(_row(name))

    assert list(inspect.signature(cls._params_from_cpu).parameters) == ["model"]
    for hook in (cls._sync_attrs_to_cpu, cls._sync_attrs_from_cpu):
        assert list(inspect.signature(hook).parameters) == ["self", "model"]
    assert issubclass(UnsupportedOnGPU, ValueError)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_unsupported_is_said_without_data_and_without_a_gpu(name: str) -> None:
    row = _row(name)
    for method in row.method_names:
        reason = CumlEngine.support(
            object.__new__(CumlEngine), Request(row, method, row.cls().get_params(deep=False), {})
        )

        assert (reason is None) == (method not in TABLE[name].without.split())
        assert reason is None or reason.words == f"{name} by cuml: {method} is not computed there."


@pytest.mark.parametrize("name", NAMES)
def test_the_benchmark_calls_cuml_itself_for_the_same_computation(name: str) -> None:
    model = gpu.cuml_model(name)
    asked = {key: value for key, value in gpu.PARAMETERS.get(name, {}).items() if key != "gamma"}

    assert type(model) is device_class(_row(name))
    assert asked.items() <= model.get_params().items()
    for method in gpu.methods_of(name, "cuml"):
        assert callable(getattr(model, method))


def test_the_benchmark_hands_cuml_a_kernel_where_it_takes_none_by_name() -> None:
    from cuml.metrics import pairwise_kernels

    assert gpu.cuml_model("SpectralClustering").affinity == "precomputed"
    assert "rbf" in importlib.import_module("cuml.metrics.pairwise_kernels").PAIRWISE_KERNEL_FUNCTIONS
    assert list(inspect.signature(pairwise_kernels).parameters)[:3] == ["X", "Y", "metric"]


def test_without_a_gpu_the_engine_says_so() -> None:
    words = CumlEngine.unavailable("cuda:99")

    assert words is not None
    assert "CUDA shows no GPU" in words


def test_another_release_is_refused_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsl_worker.engines.cuml.metadata.version", lambda name: "26.12.0")

    assert CumlEngine.unavailable("auto") == "it needs cuML 26.10, and this is 26.12.0."


def test_the_release_under_test_is_the_one_of_the_table() -> None:
    assert RELEASE.objection(importlib.import_module("cuml").__version__) is None


def test_what_cuml_refuses_is_unsupported_in_its_words() -> None:
    with pytest.raises(Unsupported, match="IsolationForest by cuml: Conversion of a fitted") as caught:
        with translated("IsolationForest"):
            device_class(ROWS["IsolationForest"])()._attrs_from_cpu(None)

    assert caught.value.code == "unsupported-by-engine"


@pytest.mark.parametrize(
    ("name", "X", "changes", "words"),
    [
        ("Ridge", "sparse", {"solver": "svd"}, "sparse X is not taken with solver='svd'"),
        ("TSNE", "sparse", {}, "sparse X is not taken with init='pca'"),
        ("SVC", "sparse", {"kernel": "precomputed"}, "a precomputed kernel that is sparse is not taken"),
        ("PCA", "sparse", {"n_components": 2, "svd_solver": "full"}, "svd_solver='full' takes no sparse X"),
        ("PCA", "sparse", {}, "with the solver 'arpack' n_components has to be given"),
        ("PCA", "dense", {"n_components": 9}, "more components than rows or columns are not computed"),
        ("KMeans", "sparse", {}, "sparse X is not taken"),
        ("SpectralEmbedding", "narrow", {}, "X with fewer than 2 columns is not taken"),
        ("SpectralClustering", "long", {}, "an affinity of more than 46340 rows is not computed with affinity='rbf'"),
        ("HDBSCAN", "short", {}, "fewer rows than min_samples are not taken"),
        ("RandomForestClassifier", "two outputs", {}, "y with several columns is not taken"),
        ("Lasso", "two outputs", {}, "y with several columns is not taken"),
        ("IsolationForest", "weighted", {}, "sample_weight is not taken"),
        ("OneHotEncoder", "bytes", {}, "X of bytes is not taken"),
        ("KMeans", "text", {}, "X that is text or objects is not taken"),
    ],
)
def test_data_that_are_not_taken_are_known_by_their_shape(name: str, X: str, changes: Any, words: str) -> None:
    shape = {"narrow": (50, 1), "long": (46341, 4), "short": (4, 4)}.get(X, (50, 4))
    dtype = {"text": "<U3", "bytes": "|S3"}.get(X, "<f8")
    facts = {"X": Fact("sparse" if X == "sparse" else "dense", shape, dtype)}
    if X == "two outputs":
        facts["y"] = Fact("dense", (50, 2), "<f8")
    if X == "weighted":
        facts["sample_weight"] = Fact("dense", (50,), "<f8")
    row = ROWS[name]

    assert TABLE[name].objection(Request(row, "fit", row.cls(**changes).get_params(deep=False), facts)) == words
