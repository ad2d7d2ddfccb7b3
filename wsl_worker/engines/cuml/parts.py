"""What cuML does not keep of a fit, computed from what it does keep. Pure functions over arrays of any namespace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse

Array = Any


def is_native(value: Any) -> bool:
    """Tell whether a value is a dense array of CuPy's."""
    return hasattr(value, "__cuda_array_interface__") and hasattr(value, "get")


def to_host(array: Array) -> Array:
    """Return an array in numpy."""
    return array.get() if hasattr(array, "get") else array


def tolerance(xp: Any, X: Array, tol: float) -> Any:
    """Return the tolerance that KMeans makes of its setting: relative to the mean variance of the columns."""
    return np.float64(to_host(xp.mean(xp.var(X, axis=0)))) * tol if tol else 0


def kmeans_settings(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return what KMeans chooses by itself, as scikit-learn names it."""
    starts, init, algorithm = parameters["n_init"], parameters["init"], parameters["algorithm"]
    if starts == "auto":
        starts = 10 if isinstance(init, str) and init == "random" else 1
    if not isinstance(init, str):
        starts = 1
    return {"_n_init": starts, "_algorithm": "lloyd" if parameters["n_clusters"] == 1 else algorithm}


def pca_solver(parameters: Mapping[str, Any], shape: tuple[int, ...], is_sparse: bool) -> str:
    """Return the solver that PCA chooses for data of a shape."""
    solver: str = parameters["svd_solver"]
    if solver != "auto":
        return solver
    if is_sparse:
        return "arpack"
    rows, columns = shape
    components = parameters["n_components"]
    count = min(rows, columns) if components is None else components
    if columns <= 1000 and rows >= 10 * columns:
        return "covariance_eigh"
    is_small = max(rows, columns) <= 500
    return "full" if is_small or not 1 <= count < 0.8 * min(rows, columns) else "randomized"


def centered(xp: Any, X: Array, sample_weight: Array | None, fit_intercept: bool) -> Array:
    """Return the data as least squares solve them: without their mean, rows scaled by the root of their weight."""
    if fit_intercept:
        X = X - xp.average(X, axis=0, weights=sample_weight)
    return X if sample_weight is None else X * xp.sqrt(sample_weight)[:, None]


def singular_values(xp: Any, X: Array) -> Array:
    """Return the singular values of a matrix; of a tall one those of its triangular factor."""
    if X.shape[0] > X.shape[1]:
        X = xp.linalg.qr(X, mode="r")
    return xp.linalg.svd(X, compute_uv=False)


def rank(singular: Array, relative: float) -> int:
    """Return how many singular values are larger than a part of the largest, as LAPACK's least squares counts."""
    return int((singular > relative * singular[0]).sum()) if singular.size else 0


def dual_gap(
    xp: Any, X: Array, y: Array, coef: Array, *, alpha: float, l1_ratio: float, fit_intercept: bool, weights: Array
) -> Any:
    """Return the duality gap of the elastic net, divided by the number of rows.

    Parameters
    ----------
    xp : module
        numpy, or a namespace like it.
    X : array or sparse matrix
    y, coef : array
    alpha, l1_ratio, fit_intercept
        As the estimator has them.
    weights : array
        Of the samples; their mean is 1.

    References
    ----------
    Massias, Vaiter, Gramfort, Salmon: Dual extrapolation for sparse generalized linear models, JMLR 21 (2020), eq. 5.
    """
    rows = X.shape[0]
    l1, l2 = alpha * l1_ratio * rows, alpha * (1 - l1_ratio) * rows
    mean = X.T @ weights / rows if fit_intercept else xp.zeros_like(coef)
    target = y - weights @ y / rows if fit_intercept else y
    residual = target - (X @ coef - mean @ coef)
    weighted = weights * residual
    gradient = X.T @ weighted - mean * weighted.sum()
    norm2, product, coef2 = float(weighted @ residual), float(weighted @ target), float(coef @ coef)
    if not l1:
        return np.float64((norm2 + 0.5 * l2 * coef2 - product + float(gradient @ gradient) / (2 * l2)) / rows)
    dual_norm = float(xp.max(xp.abs(gradient - l2 * coef)))
    scale = l1 / dual_norm if dual_norm > l1 else 1.0
    primal = 0.5 * norm2 + l1 * float(xp.sum(xp.abs(coef))) + 0.5 * l2 * coef2
    dual = -0.5 * scale**2 * (norm2 + l2 * coef2) + scale * product
    return np.float64((primal - dual) / rows)


def rbf_affinity(xp: Any, X: Array, gamma: float) -> Array:
    """Return exp(-gamma |x - y|²) of all pairs of rows."""
    squares = xp.sum(X * X, axis=1)
    distances = xp.maximum(squares[:, None] + squares[None, :] - 2 * (X @ X.T), 0)
    xp.fill_diagonal(distances, 0)
    return xp.exp(-gamma * distances)


def neighbors_affinity(indices: np.ndarray[Any, Any]) -> scipy.sparse.csr_matrix:
    """Return the symmetric affinity of each row's nearest neighbors, itself among them."""
    rows, count = indices.shape
    pointers = np.arange(0, rows * count + 1, count)
    graph = scipy.sparse.csr_matrix((np.ones(rows * count), indices.ravel(), pointers), shape=(rows, rows))
    return 0.5 * (graph + graph.T)
