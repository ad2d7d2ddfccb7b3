"""The fitted attributes that cuML does not give, or gives in another form, by estimator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
import sklearn

from wsl_worker.engines.cuml import forests, memory, parts

#: What scipy counts ranks in: an int, or in newer releases a number of numpy.
_RANK: type[Any] = type(scipy.linalg.lstsq(np.ones((1, 1)), np.ones(1))[2])

Fill = Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]]

#: dtypes of what scikit-learn numbers, by estimator: its labels, at a fit and at a prediction.
LABELS = {
    "KMeans": np.int32,
    "SpectralClustering": np.int32,
    "DBSCAN": np.int64,
    "HDBSCAN": np.int64,
    "hdbscan.HDBSCAN": np.int64,
    "IsolationForest": np.int64,
}


def fill(
    name: str, parameters: Mapping[str, Any], given: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is to be added to the attributes that cuML gives after a fit.

    Parameters
    ----------
    name : str
        Of the estimator's row.
    parameters : mapping of str to object
        The user's.
    given : mapping of str to object
        The arguments of the fit, by name.
    found : mapping of str to object
        What cuML gives.
    """
    filled = dict(_FILLS[name](parameters, given, found)) if name in _FILLS else {}
    if "labels_" in found and name in LABELS:
        filled.setdefault("labels_", np.asarray(found["labels_"], dtype=LABELS[name]))
    if parameters.get("fit_intercept") and np.ndim(found.get("intercept_", [])) == 0:
        filled["intercept_"] = found["coef_"].dtype.type(found["intercept_"])
    return filled


def as_floats(X: Any) -> Any:
    """Return data as scikit-learn keeps them: of floating point, C order, in the precision that they came in."""
    if scipy.sparse.issparse(X):
        return X
    X = parts.to_host(X)
    X = np.asarray(X)
    return np.ascontiguousarray(X, dtype=X.dtype if X.dtype in (np.float32, np.float64) else np.float64)


def _floats_on_device(X: Any) -> Any:
    if not parts.is_native(X):
        return memory.to_device(as_floats(X))
    return X.astype(X.dtype if X.dtype in (np.float32, np.float64) else np.float64, copy=False)


def _kmeans(parameters: Mapping[str, Any], given: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    import cupy

    spread = parts.tolerance(cupy, _floats_on_device(given["X"]), parameters["tol"])
    return {"_tol": spread, **parts.kmeans_settings(parameters)}


def _dbscan(parameters: Mapping[str, Any], given: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    indices = found["core_sample_indices_"]
    if indices is None:
        X = as_floats(given["X"])
        return {"core_sample_indices_": np.empty(0, dtype=np.int64), "components_": np.empty((0, X.shape[1]), X.dtype)}
    return {"core_sample_indices_": indices.astype(np.int64)}


def _hdbscan(parameters: Mapping[str, Any], given: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    scores = {
        name: found[name].astype(np.float64) for name in ("probabilities_", "cluster_persistence_") if name in found
    }
    return {"_raw_data": as_floats(given["X"]).astype(np.float64, copy=False), **scores}


def _pca(parameters: Mapping[str, Any], given: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    X = given["X"]
    return {"_fit_svd_solver": parts.pca_solver(parameters, np.shape(X), scipy.sparse.issparse(X))}


def _linear(parameters: Mapping[str, Any], given: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    import cupy

    if scipy.sparse.issparse(given["X"]):
        return {}  # as scikit-learn
    X, weight = _floats_on_device(given["X"]), given.get("sample_weight")
    weight = None if weight is None else memory.to_device(np.asarray(weight, dtype=X.dtype))
    data = parts.centered(cupy, X, weight, parameters["fit_intercept"])
    singular = parts.to_host(parts.singular_values(cupy, data))
    release = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
    relative = parameters["tol"] if release >= (1, 9) else max(X.shape) * np.finfo(X.dtype).eps
    return {"singular_": singular, "rank_": _RANK(parts.rank(singular, relative))}


def _coordinate_descent(
    parameters: Mapping[str, Any], given: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, Any]:
    import cupy
    from cupyx.scipy import sparse

    X = given["X"]
    X = sparse.csr_matrix(X) if scipy.sparse.issparse(X) else _floats_on_device(X)
    weights = given.get("sample_weight")
    weights = np.ones(X.shape[0]) if weights is None else np.asarray(weights, dtype=np.float64)
    gap = parts.dual_gap(
        cupy,
        X,
        memory.to_device(np.asarray(given["y"], dtype=np.float64).ravel()),
        memory.to_device(np.ravel(found["coef_"]).astype(np.float64)),
        alpha=parameters["alpha"],
        l1_ratio=parameters.get("l1_ratio", 1.0),
        fit_intercept=parameters["fit_intercept"],
        weights=memory.to_device(weights / weights.mean()),
    )
    return {"dual_gap_": gap}


def _forest(parameters: Mapping[str, Any], given: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    return forests.complete(found, parameters)


def _isolation_forest(
    parameters: Mapping[str, Any], given: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, Any]:
    return {"_n_samples": np.shape(given["X"])[0]}


def _neighbors(parameters: Mapping[str, Any], given: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    # cuML keeps them in single precision.
    kept = {"_fit_X": as_floats(given["X"])}
    if "_y" in found:
        is_classes = found["_y"].dtype.kind == "i" and "classes_" in found
        kept["_y"] = found["_y"].astype(np.int64) if is_classes else np.asarray(given["y"])
    return kept


def _one_hot(parameters: Mapping[str, Any], given: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    dtype = np.dtype(getattr(given["X"], "dtype", None) or np.asarray(given["X"]).dtype)
    # cuML keeps text as objects.
    return {"categories_": [one.astype(dtype) if dtype.kind == "U" else one for one in found["categories_"]]}


def _svr(parameters: Mapping[str, Any], given: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    iterations = int(np.ravel(found["n_iter_"])[0])
    return {
        # scikit-learn counts them twice.
        "_n_support": np.full(2, len(found["support_"]), dtype=np.int32),
        "_num_iter": np.array([iterations], dtype=np.int32),
        "n_iter_": iterations,
    }


_FILLS: dict[str, Fill] = {
    "KMeans": _kmeans,
    "DBSCAN": _dbscan,
    "HDBSCAN": _hdbscan,
    "hdbscan.HDBSCAN": _hdbscan,
    "PCA": _pca,
    "LinearRegression": _linear,
    "ElasticNet": _coordinate_descent,
    "Lasso": _coordinate_descent,
    "RandomForestClassifier": _forest,
    "RandomForestRegressor": _forest,
    "IsolationForest": _isolation_forest,
    "NearestNeighbors": _neighbors,
    "KNeighborsClassifier": _neighbors,
    "KNeighborsRegressor": _neighbors,
    "OneHotEncoder": _one_hot,
    "SVR": _svr,
}
