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

from sklearn_wsl_gpu.support.entry import CallLimit, Entry, Limit, only
from sklearn_wsl_gpu.support.request import Request

#: The release whose private hooks are called.
RELEASE = (26, 10)
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


def _value(name: str, words: str, fits: Callable[[Any], bool]) -> Limit:
    def objection(request: Request) -> str | None:
        # An older scikit-learn lacks some parameters.
        is_fit = name not in request.parameters or fits(request.parameters[name])
        return None if is_fit else f"{name}={request.parameters[name]!r:.60} is not supported"

    return Limit(words, objection)


def _off(name: str) -> Limit:
    return _value(name, f"{name} not set", lambda value: not value)


def _is(name: str, wanted: Any) -> Limit:
    return _value(name, f"{name}={wanted!r}", lambda value: type(value) is not np.ndarray and value == wanted)


def _not(name: str, *others: Any) -> Limit:
    words = f"{name} not {', '.join(map(repr, others))}"
    return _value(name, words, lambda value: not any(type(value) is type(other) and value == other for other in others))


def _named(name: str, *allowed: str) -> Limit:
    words = f"{name}={allowed[0]!r}" if len(allowed) == 1 else f"{name} in {', '.join(map(repr, allowed))}"
    return _value(name, words, lambda value: isinstance(value, str) and value in allowed)


def _no_function(name: str) -> Limit:
    return _value(name, f"{name} not a function", lambda value: not callable(value))


def _start(*names: str) -> Limit:
    def fits(value: Any) -> bool:
        return value in names if isinstance(value, str) else not callable(value)

    return _value("init", f"init {', '.join(map(repr, names))} or an array", fits)


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


def _array(value: Any) -> np.ndarray[Any, Any]:
    return np.asarray(value)


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
_COORDINATE_DESCENT = Entry((_off("positive"), _off("warm_start"), only(precompute=(False,)), _ONE_OUTPUT), sparse=True)
_FOREST = (
    _no_function("oob_score"),
    _off("warm_start"),
    _is("monotonic_cst", None),
    _is("ccp_alpha", 0),
    _is("min_weight_fraction_leaf", 0),
    _named("criterion", "gini", "entropy", "squared_error", "poisson"),
    _value("max_samples", "max_samples not a count", lambda value: not isinstance(value, Integral)),
    _ONE_OUTPUT,
)
_KNN = (_named("metric", *_NEIGHBORS), _no_function("weights"))
_AFFINITY = (
    _named("affinity", "rbf", "nearest_neighbors", "precomputed"),
    Limit(f"affinity='rbf' of at most {_MAX_DENSE_ROWS} rows", _dense_affinity),
)

TABLE: dict[str, Entry] = {
    "KMeans": Entry((_start("k-means++", "random"),)),
    "DBSCAN": Entry(
        (_named("metric", "l2", "euclidean", "cosine", "precomputed"), _named("algorithm", "auto", "brute"))
    ),
    "SpectralClustering": Entry((*_AFFINITY, _named("assign_labels", "kmeans"))),
    "HDBSCAN": Entry(
        (
            _named("metric", "euclidean", "l2"),
            _off("metric_params"),
            _is("store_centers", None),
            Limit("min_samples from 2 to 1024, and as many rows", _hdbscan),
        ),
        call_limits=(_FINITE,),
    ),
    "EmpiricalCovariance": Entry(),
    "LedoitWolf": Entry(),
    "PCA": Entry(
        (
            _not("n_components", "mle", 0),
            _value("n_components", "n_components a count", lambda value: value is None or isinstance(value, Integral)),
            Limit("sparse X with the solvers 'auto', 'arpack', 'covariance_eigh'; 'arpack' with n_components", _pca),
        ),
        without="score score_samples",
        sparse=True,
    ),
    "IncrementalPCA": Entry(sparse=True),
    "TruncatedSVD": Entry(),
    "RandomForestClassifier": Entry(
        (*_FOREST, _not("class_weight", "balanced_subsample")),
        without="apply decision_path",
        text="y",
        call_limits=(_NO_NAN,),
        lost="estimators_samples_",
    ),
    "RandomForestRegressor": Entry(
        _FOREST, without="apply decision_path", call_limits=(_NO_NAN,), lost="estimators_samples_"
    ),
    "IsolationForest": Entry(
        (_off("warm_start"), Limit("no sample_weight", _no_weights)),
        call_limits=(_FINITE,),
        lost="estimators_samples_",
    ),
    "KernelRidge": Entry((_value("kernel", "kernel by its name", lambda value: isinstance(value, str)),)),
    "LinearRegression": Entry((_off("positive"),), sparse=True),
    "LogisticRegression": Entry(
        (
            _off("warm_start"),
            _is("intercept_scaling", 1),
            _named("multi_class", "deprecated", "auto"),
            # It penalises the intercept, and fits each class against the rest.
            _not("solver", "liblinear"),
        ),
        sparse=True,
        text="y",
    ),
    "Ridge": Entry(
        (
            _off("positive"),
            _not("solver", "lbfgs"),
            Limit("sparse X with the solvers 'auto', 'lsqr', 'sparse_cg'", _ridge),
        ),
        sparse=True,
    ),
    "ElasticNet": _COORDINATE_DESCENT,
    "Lasso": _COORDINATE_DESCENT,
    "TSNE": Entry(
        (
            _is("n_components", 2),
            _named("method", "exact", "barnes_hut"),
            _named("init", "random", "pca"),
            _named("metric", *_TSNE),
            Limit("sparse X with init='random'", _tsne),
        ),
        sparse=True,
    ),
    "SpectralEmbedding": Entry((*_AFFINITY, Limit("X with 2 columns at least", _two_columns))),
    "NearestNeighbors": Entry(
        _KNN[:1],
        without="radius_neighbors",
        sparse=True,
        call_limits=(CallLimit("radius_neighbors_graph unsorted, with mode='connectivity'", _radius_graph),),
    ),
    "KNeighborsClassifier": Entry(_KNN, sparse=True, text="y"),
    "KNeighborsRegressor": Entry(_KNN, sparse=True),
    "KernelDensity": Entry((_named("metric", *_DENSITY),)),
    "OneHotEncoder": Entry(
        (
            _value("dtype", "dtype of floating point or bool", lambda value: np.dtype(value).kind in "fb"),
            _not("drop", "if_binary"),
            _named("handle_unknown", "error", "ignore"),
            _is("min_frequency", None),
            _is("max_categories", None),
            _named("feature_name_combiner", "concat"),
            _value("categories", "categories='auto', or arrays of numbers or text", _has_categories),
            Limit("X not of bytes", _bytes),
        ),
        text="X",
    ),
    "TargetEncoder": Entry(
        (_named("categories", "auto"), _named("target_type", "auto", "binary", "continuous"),
         _value("cv", "cv a count", lambda value: isinstance(value, Integral))),
        text="X y",
        call_limits=(_NO_NAN, CallLimit("y continuous or of two classes", _target)),
    ),
    "LabelEncoder": Entry(text="y"),
    "LabelBinarizer": Entry(text="y"),
    "SVC": Entry(
        (
            _no_function("kernel"),
            _not("probability", True),
            Limit("a precomputed kernel that is dense", _precomputed),
        ),
        without="predict_proba predict_log_proba",
        sparse=True,
        text="y",
    ),
    "SVR": Entry((_no_function("kernel"), Limit("a precomputed kernel that is dense", _precomputed)), sparse=True),
    "LinearSVC": Entry((_is("intercept_scaling", 1), _named("multi_class", "ovr")), text="y"),
    "LinearSVR": Entry((_is("intercept_scaling", 1),)),
    "umap.UMAP": Entry(
        (
            _start("random", "spectral"),
            _value("metric", f"metric in {', '.join(map(repr, _UMAP))}",
                   lambda value: isinstance(value, str) and value.lower() in _UMAP),
            _named("target_metric", "euclidean", "l2", "categorical"),
            _off("unique"),
            _off("densmap"),
            # cuML does not look at these.
            _named("output_metric", "euclidean"),
            _is("disconnection_distance", None),
        ),
        sparse=True,
        text="y",
        call_limits=(CallLimit("ensure_all_finite=True", _checks_finite),),
        lost="_knn_search_index",
    ),
    "hdbscan.HDBSCAN": Entry(
        (
            _named("metric", "l2", "euclidean"),
            _value("memory", "memory without a place", lambda value: not isinstance(value, str)
                   and getattr(value, "location", None) is None),
            _off("match_reference_implementation"),
            _off("branch_detection_data"),
            # What a fit keeps for predictions does not travel.
            _off("prediction_data"),
            # cuML does not look at these.
            _is("cluster_selection_persistence", 0.0),
            _is("cluster_selection_epsilon_max", float("inf")),
        ),
        call_limits=(_FINITE,),
        lost="exemplars_ outlier_scores_ relative_validity_",
    ),
}  # fmt: skip
