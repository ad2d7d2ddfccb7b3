"""What cuML 26.10 computes, and with which parameters, data and methods.

Conditions on parameters are those of cuML's own hook ``_params_from_cpu``, held to it by tests against its wheel, and
some of our own where cuML would quietly compute something else. What scikit-learn itself computes by the array API,
StandardScaler, MinMaxScaler, MaxAbsScaler and PolynomialFeatures, is left to the engine ``array_api``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

import numpy as np

from sklearn_wsl_gpu.support.conditions import equal, named, no_function, none_of, off, start, value
from sklearn_wsl_gpu.support.entry import CallLimit, Entry, Limit, Release, only
from sklearn_wsl_gpu.support.request import Request

#: The release whose private hooks are called.
RELEASE = Release("cuML", (26, 10), alone=True)
#: Of a dense affinity every entry is numbered by 32 bits.
_MAX_DENSE_ROWS = 46340
_NEIGHBORS = (
    "canberra", "chebyshev", "cityblock", "correlation", "cosine", "euclidean", "haversine", "inner_product",
    "jensenshannon", "l1", "l2", "linf", "lp", "manhattan", "minkowski", "sqeuclidean", "taxicab",
)  # fmt: skip
_DENSITY = (
    "canberra", "chebyshev", "cityblock", "correlation", "cosine", "euclidean", "hamming", "hellinger",
    "jensenshannon", "kldivergence", "l1", "l2", "manhattan", "minkowski", "nan_euclidean", "russellrao",
    "sqeuclidean",
)  # fmt: skip
_TSNE = (
    "l2", "euclidean", "sqeuclidean", "cityblock", "l1", "manhattan", "minkowski", "chebyshev", "cosine",
    "correlation",
)  # fmt: skip
_UMAP = (
    "l2", "euclidean", "sqeuclidean", "cityblock", "l1", "manhattan", "taxicab", "minkowski", "chebyshev", "linf",
    "cosine", "correlation", "hellinger", "hamming", "canberra",
)  # fmt: skip


def _is_sparse(request: Request) -> bool:
    return "X" in request.facts and request.facts["X"].kind == "sparse"


def _rows(request: Request) -> int:
    return request.facts["X"].shape[0] if "X" in request.facts and request.facts["X"].shape else 0


def _one_output(request: Request) -> str | None:
    y = request.facts.get("y")
    is_wide = y is not None and len(y.shape) > 1 and y.shape[1] > 1
    return "y with several columns is not taken" if is_wide else None


def _no_weights(request: Request) -> str | None:
    return "sample_weight is not taken" if "sample_weight" in request.facts else None


def _pca(request: Request) -> str | None:
    solver, count = request.parameters["svd_solver"], request.parameters["n_components"]
    if _is_sparse(request) and solver not in ("auto", "arpack", "covariance_eigh"):
        return f"svd_solver={solver!r} takes no sparse X"
    if count is None and (solver == "arpack" or (_is_sparse(request) and solver == "auto")):
        return "with the solver 'arpack' n_components has to be given"
    X = request.facts.get("X")
    if count is not None and "fit" in request.method and X is not None and count > min(X.shape, default=0):
        return "more components than rows or columns are not computed"
    return None


def _ridge(request: Request) -> str | None:
    solver = request.parameters["solver"]
    if _is_sparse(request) and solver not in ("auto", "lsqr", "sparse_cg"):
        return f"sparse X is not taken with solver={solver!r}"
    return None


def _precomputed(request: Request) -> str | None:
    is_kernel = request.parameters["kernel"] == "precomputed"
    return "a precomputed kernel that is sparse is not taken" if is_kernel and _is_sparse(request) else None


def _tsne(request: Request) -> str | None:
    by_pca = request.parameters["init"] == "pca"
    return "sparse X is not taken with init='pca'" if by_pca and _is_sparse(request) else None


def _two_columns(request: Request) -> str | None:
    X = request.facts.get("X")
    is_narrow = X is not None and (len(X.shape) < 2 or X.shape[1] < 2)
    return "X with fewer than 2 columns is not taken" if is_narrow else None


def _dense_affinity(request: Request) -> str | None:
    if request.parameters["affinity"] == "rbf" and _rows(request) > _MAX_DENSE_ROWS:
        return f"an affinity of more than {_MAX_DENSE_ROWS} rows is not computed with affinity='rbf'"
    return None


def _hdbscan(request: Request) -> str | None:
    samples = request.parameters["min_samples"]
    samples = request.parameters["min_cluster_size"] if samples is None else samples
    if not 2 <= samples <= 1024:
        return f"min_samples={samples!r} is not supported"
    if "X" in request.facts and not samples <= _rows(request) >= 2:
        return "fewer rows than min_samples are not taken"
    return None


def _has_categories(value: Any) -> bool:
    if isinstance(value, str):
        return value == "auto"
    return all(isinstance(one, np.ndarray) and one.dtype.kind in "biufU" for one in value)


def _bytes(request: Request) -> str | None:
    is_bytes = "X" in request.facts and request.facts["X"].dtype[1] == "S"
    return "X of bytes is not taken" if is_bytes else None


def _array(value: Any) -> Any:
    return value if hasattr(value, "__cuda_array_interface__") else np.asarray(value)


def _finite(allow_infinity: bool) -> Callable[[str, Mapping[str, Any]], str | None]:
    def objection(method: str, given: Mapping[str, Any]) -> str | None:
        X = _array(given["X"]) if "X" in given else None
        if X is None or X.dtype.kind != "f":
            return None
        if not allow_infinity:
            return None if np.isfinite(X).all() else "X holds NaN or infinity"
        return "X holds NaN" if np.isnan(X).any() else None

    return objection


def _checks_finite(method: str, given: Mapping[str, Any]) -> str | None:
    for name in ("ensure_all_finite", "force_all_finite"):
        if given.get(name, True) is not True:
            return f"{name}={given[name]!r} is not supported"
    return None


def _radius_graph(method: str, given: Mapping[str, Any]) -> str | None:
    if method != "radius_neighbors_graph":
        return None
    if given.get("mode", "connectivity") != "connectivity" or given.get("sort_results"):
        return "only an unsorted graph of mode='connectivity' is computed"
    return None


def _target(method: str, given: Mapping[str, Any]) -> str | None:
    if "y" not in given:
        return None
    y = _array(given["y"])
    is_continuous = y.dtype.kind == "f" and bool(np.any(y != np.floor(y)))
    return None if is_continuous or len(np.unique(y)) <= 2 else "y with more than two classes is not taken"


_NO_NAN = CallLimit("no NaN in X", _finite(allow_infinity=True))
_FINITE = CallLimit("neither NaN nor infinity in X", _finite(allow_infinity=False))
_ONE_OUTPUT = Limit("y with one column", _one_output)
_COORDINATE_DESCENT = Entry((off("positive"), off("warm_start"), only(precompute=(False,)), _ONE_OUTPUT), sparse=True)
_FOREST = (
    no_function("oob_score"),
    off("warm_start"),
    equal("monotonic_cst", None),
    equal("ccp_alpha", 0),
    equal("min_weight_fraction_leaf", 0),
    named("criterion", "gini", "entropy", "squared_error", "poisson"),
    value("max_samples", "max_samples not a count", lambda given: not isinstance(given, Integral)),
    _ONE_OUTPUT,
)
_KNN = (named("metric", *_NEIGHBORS), no_function("weights"))
_AFFINITY = (
    named("affinity", "rbf", "nearest_neighbors", "precomputed"),
    Limit(f"affinity='rbf' of at most {_MAX_DENSE_ROWS} rows", _dense_affinity),
)

_TABLE: dict[str, Entry] = {
    "KMeans": Entry((start("k-means++", "random"),)),
    "DBSCAN": Entry(
        (named("metric", "l2", "euclidean", "cosine", "precomputed"), named("algorithm", "auto", "brute"))
    ),
    "SpectralClustering": Entry((*_AFFINITY, named("assign_labels", "kmeans"))),
    "HDBSCAN": Entry(
        (
            named("metric", "euclidean", "l2"),
            off("metric_params"),
            equal("store_centers", None),
            Limit("min_samples from 2 to 1024, and as many rows", _hdbscan),
        ),
        call_limits=(_FINITE,),
        single=True,
    ),
    "EmpiricalCovariance": Entry(),
    "LedoitWolf": Entry(),
    "PCA": Entry(
        (
            none_of("n_components", "mle", 0),
            value("n_components", "n_components a count", lambda given: given is None or isinstance(given, Integral)),
            Limit("sparse X with the solvers 'auto', 'arpack', 'covariance_eigh'; 'arpack' with n_components", _pca),
        ),
        without="score score_samples",
        sparse=True,
    ),
    "IncrementalPCA": Entry(sparse=True),
    "TruncatedSVD": Entry(),
    "RandomForestClassifier": Entry(
        (*_FOREST, none_of("class_weight", "balanced_subsample")),
        without="apply decision_path",
        text="y",
        call_limits=(_NO_NAN,),
        lost="estimators_samples_",
    ),
    "RandomForestRegressor": Entry(
        _FOREST, without="apply decision_path", call_limits=(_NO_NAN,), lost="estimators_samples_"
    ),
    "IsolationForest": Entry(
        (off("warm_start"), Limit("no sample_weight", _no_weights)),
        call_limits=(_FINITE,),
        lost="estimators_samples_",
    ),
    "KernelRidge": Entry((value("kernel", "kernel by its name", lambda given: isinstance(given, str)),)),
    "LinearRegression": Entry((off("positive"),), sparse=True),
    "LogisticRegression": Entry(
        (
            off("warm_start"),
            equal("intercept_scaling", 1),
            named("multi_class", "deprecated", "auto"),
            # It penalises the intercept, and fits each class against the rest.
            none_of("solver", "liblinear"),
        ),
        sparse=True,
        text="y",
    ),
    "Ridge": Entry(
        (
            off("positive"),
            none_of("solver", "lbfgs"),
            Limit("sparse X with the solvers 'auto', 'lsqr', 'sparse_cg'", _ridge),
        ),
        sparse=True,
    ),
    "ElasticNet": _COORDINATE_DESCENT,
    "Lasso": _COORDINATE_DESCENT,
    "TSNE": Entry(
        (
            equal("n_components", 2),
            named("method", "exact", "barnes_hut"),
            named("init", "random", "pca"),
            named("metric", *_TSNE),
            Limit("sparse X with init='random'", _tsne),
        ),
        sparse=True,
        single=True,
    ),
    # Not `single`: of a kernel the affinity is made in double precision.
    "SpectralEmbedding": Entry((*_AFFINITY, Limit("X with 2 columns at least", _two_columns))),
    "NearestNeighbors": Entry(
        _KNN[:1],
        without="radius_neighbors",
        sparse=True,
        call_limits=(CallLimit("radius_neighbors_graph unsorted, with mode='connectivity'", _radius_graph),),
        single=True,
    ),
    "KNeighborsClassifier": Entry(_KNN, sparse=True, text="y", single=True),
    "KNeighborsRegressor": Entry(_KNN, sparse=True, single=True),
    "KernelDensity": Entry((named("metric", *_DENSITY),)),
    "OneHotEncoder": Entry(
        (
            value("dtype", "dtype of floating point or bool", lambda given: np.dtype(given).kind in "fb"),
            none_of("drop", "if_binary"),
            named("handle_unknown", "error", "ignore"),
            equal("min_frequency", None),
            equal("max_categories", None),
            named("feature_name_combiner", "concat"),
            value("categories", "categories='auto', or arrays of numbers or text", _has_categories),
            Limit("X not of bytes", _bytes),
        ),
        text="X",
    ),
    "TargetEncoder": Entry(
        (named("categories", "auto"), named("target_type", "auto", "binary", "continuous"),
         value("cv", "cv a count", lambda given: isinstance(given, Integral))),
        text="X y",
        call_limits=(_NO_NAN, CallLimit("y continuous or of two classes", _target)),
    ),
    "LabelEncoder": Entry(text="y"),
    "LabelBinarizer": Entry(text="y"),
    "SVC": Entry(
        (
            no_function("kernel"),
            none_of("probability", True),
            Limit("a precomputed kernel that is dense", _precomputed),
        ),
        without="predict_proba predict_log_proba",
        sparse=True,
        text="y",
    ),
    "SVR": Entry((no_function("kernel"), Limit("a precomputed kernel that is dense", _precomputed)), sparse=True),
    "LinearSVC": Entry((equal("intercept_scaling", 1), named("multi_class", "ovr")), text="y"),
    "LinearSVR": Entry((equal("intercept_scaling", 1),)),
    "umap.UMAP": Entry(
        (
            start("random", "spectral"),
            value("metric", f"metric in {', '.join(map(repr, _UMAP))}",
                   lambda given: isinstance(given, str) and given.lower() in _UMAP),
            named("target_metric", "euclidean", "l2", "categorical"),
            off("unique"),
            off("densmap"),
            # cuML does not look at these.
            named("output_metric", "euclidean"),
            equal("disconnection_distance", None),
        ),
        sparse=True,
        text="y",
        call_limits=(CallLimit("ensure_all_finite=True", _checks_finite),),
        lost="_knn_search_index",
        single=True,
    ),
    "hdbscan.HDBSCAN": Entry(
        (
            named("metric", "l2", "euclidean"),
            value("memory", "memory without a place", lambda given: not isinstance(given, str)
                   and getattr(given, "location", None) is None),
            off("match_reference_implementation"),
            off("branch_detection_data"),
            # What a fit keeps for predictions does not travel.
            off("prediction_data"),
            # cuML does not look at these.
            equal("cluster_selection_persistence", 0.0),
            equal("cluster_selection_epsilon_max", float("inf")),
        ),
        call_limits=(_FINITE,),
        lost="exemplars_ outlier_scores_ relative_validity_",
        single=True,
    ),
}  # fmt: skip
TABLE = {name: entry._replace(releases=(RELEASE,)) for name, entry in _TABLE.items()}
