"""Range checks of everything that compiled scikit-learn code uses as an index, or as a size, without looking.

A forged tree, neighbors tree or support vector crashes the interpreter, or quietly reads other memory. So
each is checked on a private copy before it becomes reachable, on either side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse

from sklearn_wsl_gpu.errors import RemoteProtocolError
from sklearn_wsl_gpu.pool.placing import Array

_MAX_COUNT = 2**31
_MAX_THREADS = 1024


def _require(condition: Any, what: str) -> None:
    if not condition:
        raise RemoteProtocolError(f"A fitted state is inconsistent: {what}.")


def _is_count(value: Any, least: int = 0) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and least <= int(value) < _MAX_COUNT


def check_tree(
    n_features: int,
    n_classes: Array,
    n_outputs: int,
    max_depth: int,
    node_count: int,
    nodes: Array,
    values: Array,
    layout: np.dtype[Any],
) -> None:
    """Check the parts of a decision tree; `nodes` and `n_classes` are private copies."""
    _require(all(map(_is_count, (n_features, n_outputs, max_depth, node_count))), "tree counts")
    _require(n_features >= 1 and n_outputs >= 1 and node_count >= 1, "tree counts")
    _require(n_classes.dtype == np.intp and n_classes.shape == (n_outputs,) and n_classes.min() >= 1, "tree classes")
    _require(nodes.dtype == layout and nodes.shape == (node_count,), "tree nodes")
    _require(values.dtype == np.float64, "tree values")
    _require(values.shape == (node_count, n_outputs, int(n_classes.max())), "tree values")
    left, right = nodes["left_child"], nodes["right_child"]
    inner = left != -1
    _require(((right != -1) == inner).all(), "tree children")
    own = np.flatnonzero(inner)
    children = np.concatenate([left[inner], right[inner]])
    if len(own):
        _require((left[inner] > own).all() and (right[inner] > own).all() and children.max() < node_count, "children")
        _require((nodes["feature"][inner] >= 0).all() and nodes["feature"][inner].max() < n_features, "tree features")
    parents = np.bincount(children, minlength=node_count)
    _require(parents[0] == 0 and (parents[1:] == 1).all(), "tree shape")
    # decision_path allocates (depth + 1) cells a sample and trusts the depth.
    _require(_true_depth(left, right, inner) <= max_depth <= node_count, "tree depth")


def _true_depth(left: Array, right: Array, inner: Array) -> int:
    level, depth = np.zeros(1, dtype=np.intp), 0
    while True:
        level = level[inner[level]]
        if not len(level):
            return depth
        level = np.concatenate([left[level], right[level]])
        depth += 1


def check_neighbors_tree(
    data: Array,
    index: Array,
    nodes: Array,
    bounds: Array,
    numbers: Sequence[int],
    weights: Array | None,
    metric: tuple[str, Array, Array],
    is_kd_tree: bool,
    layout: np.dtype[Any],
) -> None:
    """Check the parts of a KDTree or BallTree; `index` and `nodes` are private copies."""
    _require(data.ndim == 2 and data.dtype == np.float64 and min(data.shape) >= 1, "tree data")
    n_samples, n_features = data.shape
    _require(len(numbers) == 7 and all(_is_count(int(number)) for number in numbers), "tree counts")
    leaf_size, n_levels, n_nodes = numbers[:3]
    _require(leaf_size >= 1 and 1 <= n_levels <= 40 and n_nodes == 2**n_levels - 1, "tree counts")
    _require(index.dtype == np.intp and index.shape == (n_samples,), "tree index")
    _require((np.sort(index) == np.arange(n_samples)).all(), "tree index")
    _require(nodes.dtype == layout and nodes.shape == (n_nodes,), "tree nodes")
    wanted = (2, n_nodes, n_features) if is_kd_tree else (1, n_nodes, n_features)
    _require(bounds.dtype == np.float64 and bounds.shape == wanted, "tree bounds")
    start, end, is_leaf = nodes["idx_start"], nodes["idx_end"], nodes["is_leaf"]
    _require((start >= 0).all() and (start <= end).all() and (end <= n_samples).all(), "tree nodes")
    level = np.zeros(1, dtype=np.intp)
    while len(level):  # at most n_levels times: children lie behind their parents
        level = level[is_leaf[level] == 0]
        _require(not len(level) or 2 * level.max() + 2 < n_nodes, "tree leaves")
        first, second = 2 * level + 1, 2 * level + 2
        _require((start[first] == start[level]).all() and (end[second] == end[level]).all(), "tree partition")
        _require((end[first] == start[second]).all(), "tree partition")
        level = np.concatenate([first, second])
    _require(start[0] == 0 and end[0] == n_samples, "tree root")
    _require(weights is None or (weights.shape == (n_samples,) and weights.dtype == np.float64), "tree weights")
    _check_metric(*metric, n_features)


def _check_metric(name: str, vector: Array, matrix: Array, n_features: int) -> None:
    if name.startswith("SEuclidean"):
        _require(vector.size == n_features, "variances of a metric")
    elif name.startswith("Minkowski"):
        _require(vector.size in (0, n_features), "weights of a metric")
    elif name.startswith("Mahalanobis"):
        _require(matrix.shape == (n_features, n_features), "covariance of a metric")
    elif name.startswith("Haversine"):
        _require(n_features == 2, "columns of a metric")


def check_estimator(name: str, estimator: Any) -> None:
    """Check what an estimator's methods use without looking; a state that is not fitted has nothing to check."""
    attributes = vars(estimator)
    features = attributes.get("n_features_in_")
    _require(features is None or _is_count(features), "n_features_in_")
    checker = _CHECKERS.get(name)
    if checker is not None:
        try:
            checker(attributes, features)
        except RemoteProtocolError:
            raise
        except Exception as error:  # an attribute of quite another kind than it should be
            raise RemoteProtocolError(f"A fitted state is inconsistent ({type(error).__name__}).") from None


def _check_decision_tree(attributes: dict[str, Any], features: Any) -> None:
    tree = attributes.get("tree_")
    if tree is not None:
        _require(type(tree).__name__ == "Tree" and tree.n_features == features, "features of a tree")
        _require(tree.n_outputs == attributes.get("n_outputs_"), "outputs of a tree")


def _check_forest(attributes: dict[str, Any], features: Any) -> None:
    subsets = attributes.get("estimators_features_")
    estimators = attributes.get("estimators_", ())
    _require(isinstance(estimators, (list, tuple)), "estimators of a forest")
    _require(subsets is None or len(subsets) == len(estimators), "feature subsets of a forest")
    for number, part in enumerate(estimators):
        _require(hasattr(part, "tree_"), "estimators of a forest")
        wanted = features
        if subsets is not None:
            subset = np.asarray(subsets[number])
            _require(subset.dtype.kind in "iu" and subset.ndim == 1 and len(subset), "feature subsets of a forest")
            _require(subset.min() >= 0 and subset.max() < features, "feature subsets of a forest")
            wanted = len(subset)
        _require(part.n_features_in_ == wanted, "features of a forest")
        _require(part.n_outputs_ == attributes.get("n_outputs_", part.n_outputs_), "outputs of a forest")


def _check_rows(*names: str) -> Callable[[dict[str, Any], Any], None]:
    def check(attributes: dict[str, Any], features: Any) -> None:
        for name in names:
            rows = attributes.get(name)
            if rows is not None:
                _require(getattr(rows, "ndim", 0) == 2 and rows.shape[1] == features, name)

    return check


def _check_k_means(attributes: dict[str, Any], features: Any) -> None:
    _check_rows("cluster_centers_")(attributes, features)
    threads = attributes.get("_n_threads", 1)  # where they cannot be started, OpenMP ends the process
    _require(_is_count(threads) and 1 <= threads <= _MAX_THREADS, "_n_threads")


def _check_coefficients(attributes: dict[str, Any], features: Any) -> None:
    coefficients = attributes.get("coef_")
    if coefficients is not None:
        _require(coefficients.ndim in (1, 2) and coefficients.shape[-1] == features, "coef_")


def _check_svc(attributes: dict[str, Any], features: Any) -> None:
    _require("support_vectors_" not in attributes or "classes_" in attributes, "classes of support vectors")
    _check_libsvm(attributes, features)


def _check_libsvm(attributes: dict[str, Any], features: Any) -> None:
    vectors = attributes.get("support_vectors_")
    if vectors is None:
        return
    support: Any = attributes.get("support_")
    coefficients: Any = attributes.get("_dual_coef_")
    intercept: Any = attributes.get("_intercept_")
    counts: Any = attributes.get("_n_support")
    for part in (support, counts, intercept):
        _require(isinstance(part, np.ndarray) and part.ndim == 1, "support vectors")
    _require(getattr(coefficients, "ndim", 0) == 2, "support vectors")
    rows = len(support)
    _require(support.dtype == np.int32 and counts.dtype == np.int32, "support vectors")
    _require(coefficients.shape[1] == rows, "support vectors")
    # libsvm reads the parts of sparse ones as those of rows, and coefficients as if none were left out.
    _require(all(part.format == "csr" for part in (vectors, coefficients) if scipy.sparse.issparse(part)), "rows")
    if scipy.sparse.issparse(coefficients):
        _require(coefficients.data.size == coefficients.shape[0] * rows, "support vectors")
    shape: Any = attributes.get("shape_fit_")
    _require(isinstance(shape, tuple) and len(shape) == 2 and all(map(_is_count, shape)), "support vectors")
    _require(not rows or (support.min() >= 0 and support.max() < shape[0]), "support vectors")
    _require(shape[1] == features or features is None, "support vectors")
    if attributes.get("kernel") != "precomputed" and not callable(attributes.get("kernel")):
        _require(vectors.ndim == 2 and vectors.shape[0] == rows and vectors.shape[1] == shape[1], "support vectors")
    classes = attributes.get("classes_")
    if classes is None:
        _require(len(counts) == 2 and coefficients.shape[0] == 1 and len(intercept) == 1, "SVR")
        # After a sparse regression scikit-learn leaves the counts as they were in memory, and nobody reads them.
        _require(scipy.sparse.issparse(coefficients) or (counts == rows).all(), "support vectors")
    else:
        size = len(classes)
        pairs = size * (size - 1) // 2
        _require(len(counts) == size and (counts >= 0).all() and counts.sum() == rows, "support vectors a class")
        _require(coefficients.shape[0] == size - 1 and len(intercept) == pairs, "support vectors a class")
        has_probability = attributes.get("_effective_probability", attributes.get("probability", False))
        lengths = (pairs,) if has_probability else (0, pairs)
        for name in ("_probA", "_probB"):
            part = attributes.get(name)
            _require(len(part) in lengths if isinstance(part, np.ndarray) else not has_probability, name)


def _check_neighbors(attributes: dict[str, Any], features: Any) -> None:
    rows = attributes.get("_fit_X")
    if rows is None:
        return
    count = rows.shape[0]
    # Fitted on a tree or another fitted estimator, it does not know its features; then each query is checked.
    _require(rows.ndim == 2 and features in (None, rows.shape[1]), "_fit_X")
    _require(attributes.get("n_samples_fit_") == count, "n_samples_fit_")
    tree = attributes.get("_tree")
    if tree is not None:
        _require(np.asarray(tree.data).shape == rows.shape, "_tree")
    for name in ("VI", "V", "w"):
        part = (attributes.get("effective_metric_params_") or {}).get(name)
        _require(part is None or np.shape(part)[-1:] == (features,), f"{name} of the metric")
    labels, classes = attributes.get("_y"), attributes.get("classes_")
    if labels is not None:
        _require(len(labels) == count, "_y")
        if classes is not None:
            columns = labels.reshape(count, -1)
            per_output = classes if isinstance(classes, list) else [classes]
            _require(columns.dtype.kind in "iu" and columns.shape[1] == len(per_output), "_y")
            for column, known in zip(columns.T, per_output, strict=True):
                _require(not count or (column.min() >= 0 and column.max() < len(known)), "_y")


def _check_density(attributes: dict[str, Any], features: Any) -> None:
    tree = attributes.get("tree_")
    if tree is not None:
        _require(np.asarray(tree.data).shape[1] == features, "tree_")


def _check_hierarchy(attributes: dict[str, Any], features: Any) -> None:
    merges = attributes.get("_single_linkage_tree_")
    if merges is not None:
        largest = 2 * len(merges)
        for side in ("left_node", "right_node"):
            _require((merges[side] >= 0).all() and (merges[side] <= largest).all(), "_single_linkage_tree_")


def _check_condensed(attributes: dict[str, Any], features: Any) -> None:
    labels = attributes.get("labels_")
    if labels is None:
        return
    _require(getattr(labels, "ndim", 0) == 1, "labels_")
    largest = 2 * len(labels)
    tree = attributes.get("_condensed_tree")
    if tree is not None:
        for name in ("parent", "child", "child_size"):
            _require(not len(tree) or (tree[name].min() >= 0 and tree[name].max() <= largest), "_condensed_tree")
    merges = attributes.get("_single_linkage_tree")
    if merges is not None:
        _require(merges.ndim == 2 and merges.shape[1] == 4, "_single_linkage_tree")
        _require(
            not len(merges) or (merges[:, :2].min() >= 0 and merges[:, :2].max() < largest), "_single_linkage_tree"
        )


def _check_embedding(attributes: dict[str, Any], features: Any) -> None:
    embedding = attributes.get("embedding_")
    if embedding is None:
        return
    rows = len(embedding)
    for name in ("_raw_data", "graph_", "_sigmas", "_rhos"):
        part = attributes.get(name)
        _require(part is None or part.shape[0] == rows, name)


def _check_kernel_ridge(attributes: dict[str, Any], features: Any) -> None:
    rows = attributes.get("X_fit_")
    if rows is not None and attributes.get("kernel") != "precomputed":
        _require((rows.ndim == 2 or scipy.sparse.issparse(rows)) and rows.shape[1] == features, "X_fit_")


def _check_pipeline(attributes: dict[str, Any], features: Any) -> None:
    # A cache on disk would be read and written where the message says, and unpickled.
    memory = attributes.get("memory")
    _require(memory is None or (hasattr(memory, "location") and memory.location is None), "memory")


def _check_function(attributes: dict[str, Any], features: Any) -> None:
    _require(attributes.get("func") is None and attributes.get("inverse_func") is None, "func")


_CHECKERS: dict[str, Callable[[dict[str, Any], Any], None]] = {
    **dict.fromkeys(("DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeRegressor"), _check_decision_tree),
    **dict.fromkeys(("RandomForestClassifier", "RandomForestRegressor", "IsolationForest"), _check_forest),
    **dict.fromkeys(("Lasso", "ElasticNet"), _check_coefficients),
    "SVC": _check_svc,
    "SVR": _check_libsvm,
    **dict.fromkeys(("NearestNeighbors", "KNeighborsClassifier", "KNeighborsRegressor"), _check_neighbors),
    "KMeans": _check_k_means,
    "PCA": _check_rows("components_"),
    "IncrementalPCA": _check_rows("components_"),
    "TruncatedSVD": _check_rows("components_"),
    "KernelDensity": _check_density,
    "KernelRidge": _check_kernel_ridge,
    "HDBSCAN": _check_hierarchy,
    "hdbscan.HDBSCAN": _check_condensed,
    "umap.UMAP": _check_embedding,
    "Pipeline": _check_pipeline,
    "FunctionTransformer": _check_function,
}
