"""Forged states are refused with one kind of error before compiled code can use them: never a crash, never a guess."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Lasso
from sklearn.neighbors import BallTree, KDTree, KernelDensity, KNeighborsClassifier
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import SVC, SVR
from sklearn.tree import DecisionTreeClassifier

from sklearn_wsl_gpu import offload
from sklearn_wsl_gpu.errors import RemoteProtocolError
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.protocol import codec
from sklearn_wsl_gpu.state import Decoder, Encoder, objects

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)


class Forgery:
    def __init__(self, value: Any) -> None:
        encoder = Encoder()
        self.node: Any = codec.unpack(codec.pack(encoder.encode(value)))
        self.arrays: list[Array] = [np.array(array) for array in encoder.arrays]

    def copy(self) -> Forgery:
        return copy.deepcopy(self)

    def attribute(self, name: str) -> Any:
        return self.node[3 + 2 * self.node[2::2].index(name)]

    def add(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        self.arrays.append(value)
        return ["a", len(self.arrays) - 1]

    def set(self, name: str, value: Any) -> Forgery:
        if name in self.node[2::2]:
            self.node[3 + 2 * self.node[2::2].index(name)] = self.add(value)
        else:
            self.node += [name, self.add(value)]
        return self

    def drop(self, name: str) -> Forgery:
        at = 2 + 2 * self.node[2::2].index(name)
        del self.node[at : at + 2]
        return self

    def array(self, node: Any) -> Array:
        found: Array = self.arrays[node[1]]
        return found

    def records(self, node: Any) -> Array:
        return self.array(node[3]).view(objects._LAYOUTS[node[2]])

    def decode(self) -> Any:
        return Decoder(self.arrays).decode(self.node)


def accepted(forgery: Forgery) -> bool:
    try:
        forgery.decode()
    except RemoteProtocolError:
        return False
    return True


def refused_each(original: Forgery, changes: dict[str, Callable[[Forgery], object]]) -> None:
    assert accepted(original.copy()), "what is not changed is taken"
    taken = []
    for what, change in changes.items():
        forgery = original.copy()
        change(forgery)
        if accepted(forgery):
            taken.append(what)
    assert not taken, f"accepted: {taken}"


def _run(tmp_path: Path, values: list[Any], code: str) -> None:
    """Use values in another process: an exception is harmless, a signal is not."""
    (tmp_path / "values").write_bytes(pickle.dumps((values, X)))
    program = f"""
import contextlib, pickle, sys, warnings
warnings.simplefilter("ignore")
with open(sys.argv[1], "rb") as file:
    values, X = pickle.load(file)
for value in values:
    with contextlib.suppress(Exception):
        {code}
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(tmp_path / "values")], capture_output=True, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])


TREE = Forgery(DecisionTreeClassifier(random_state=0).fit(X, Y))
LAST = len(TREE.records(TREE.attribute("tree_")[7])) - 1


def _nodes(field: str, at: int, value: int) -> Callable[[Forgery], object]:
    def change(forgery: Forgery) -> None:
        forgery.records(forgery.attribute("tree_")[7])[field][at] = value

    return change


def _part(number: int, value: Any) -> Callable[[Forgery], object]:
    return lambda forgery: forgery.attribute("tree_").__setitem__(number, forgery.add(value))


def test_a_decision_tree_with_parts_that_do_not_fit_is_refused() -> None:
    depth, count = TREE.attribute("tree_")[5:7]
    values = TREE.array(TREE.attribute("tree_")[8])
    refused_each(TREE, {
        "child beyond the nodes": _nodes("left_child", 0, LAST + 1),
        "far child": _nodes("right_child", 0, 2**40),
        "negative child": _nodes("left_child", 0, -2),
        "child that is its own parent": _nodes("left_child", 0, 0),
        "only one child": _nodes("right_child", 0, -1),
        "child of two parents": _nodes("left_child", 0, 2),
        "leaf that is a node of nobody": _nodes("left_child", LAST, LAST),
        "feature beyond the columns": _nodes("feature", 0, 3),
        "negative feature": _nodes("feature", 0, -1),
        "depth that is too small": _part(5, depth - 1),
        "depth that no memory is enough for": _part(5, 2**31 - 1),
        "negative depth": _part(5, -1),
        "depth that is no number": _part(5, True),
        "more nodes than there are": _part(6, count + 1),
        "fewer nodes than there are": _part(6, count - 1),
        "no nodes": _part(6, 0),
        "fewer features": _part(2, 1),
        "more features than the estimator": _part(2, 4),
        "no features": _part(2, 0),
        "many features": _part(2, 2**31),
        "two outputs": _part(4, 2),
        "no classes": _part(3, np.zeros(1, np.intp)),
        "many classes": _part(3, np.full(1, 2**40)),
        "classes of another width": _part(3, np.full(1, 3, np.int32)),
        "values of another shape": _part(8, values[:-1]),
        "values of fewer classes": _part(8, values[:, :, :1]),
        "values of another width": _part(8, values.astype(np.float32)),
        "nodes that are no nodes": _part(7, np.zeros((count, 8))),
        "nodes of another kind": lambda forgery: forgery.attribute("tree_")[7].__setitem__(2, "neighbors"),
        "nodes that are cut": lambda forgery: forgery.array(forgery.attribute("tree_")[7][3]).resize(7, refcheck=False),
        "estimator with fewer features": lambda forgery: forgery.set("n_features_in_", 2),
        "estimator without features": lambda forgery: forgery.drop("n_features_in_"),
        "estimator with other outputs": lambda forgery: forgery.set("n_outputs_", 2),
        "tree of another kind": lambda forgery: forgery.set("tree_", 1),
    })  # fmt: skip


def test_a_tree_whose_nodes_lead_back_to_themselves_is_refused() -> None:
    forgery = TREE.copy()
    nodes = np.repeat(forgery.records(forgery.attribute("tree_")[7])[:1], 7)
    nodes["left_child"], nodes["right_child"] = [5, 2, 1, -1, -1, -1, -1], [6, 3, 4, -1, -1, -1, -1]
    forgery.attribute("tree_")[7][3] = forgery.add(nodes.view(np.uint8))
    _part(6, 7)(forgery)
    _part(8, np.zeros((7, 1, 3)))(forgery)

    assert not accepted(forgery)


def test_a_tree_with_random_indices_is_refused_or_harmless(tmp_path: Path) -> None:
    taken: list[Any] = []
    numbers = st.one_of(st.integers(-3, LAST + 2), st.sampled_from([-(2**63), 2**31, 2**63 - 1]))
    change = st.tuples(st.sampled_from(["left_child", "right_child", "feature"]), st.integers(0, LAST), numbers)

    @settings(deadline=None, max_examples=500, database=None)
    @given(st.lists(change, min_size=1, max_size=3), st.integers(-1, 3))
    def mutate(changes: list[tuple[str, int, int]], deeper: int) -> None:
        forgery = TREE.copy()
        forgery.attribute("tree_")[5] += deeper
        for field, at, value in changes:
            _nodes(field, at, value)(forgery)
        try:
            taken.append(forgery.decode())
        except RemoteProtocolError:
            return

    mutate()

    assert taken, "a leaf's feature is not used"
    _run(tmp_path, taken, "value.predict(X), value.decision_path(X), value.apply(X), value.feature_importances_")


def test_a_forest_of_trees_that_do_not_fit_is_refused() -> None:
    narrow = Forgery(DecisionTreeClassifier().fit(X[:, :2], Y))
    forest = Forgery(RandomForestClassifier(2, random_state=0).fit(X, Y))
    isolation = Forgery(IsolationForest(n_estimators=2, max_features=2, random_state=0).fit(X))

    def other_tree(forgery: Forgery) -> None:
        count = len(forgery.arrays)
        forgery.arrays += narrow.arrays
        forgery.attribute("estimators_")[1] = _renumbered(narrow.node, count)

    def subset(*columns: int) -> Callable[[Forgery], object]:
        return lambda forgery: forgery.attribute("estimators_features_").__setitem__(1, forgery.add(np.array(columns)))

    refused_each(forest, {
        "tree of fewer features": other_tree,
        "forest of fewer features": lambda forgery: forgery.set("n_features_in_", 2),
        "part that is no tree": lambda forgery: forgery.attribute("estimators_").__setitem__(1, ["l"]),
        "trees that are no list": lambda forgery: forgery.set("estimators_", 1),
        "forest of other outputs": lambda forgery: forgery.set("n_outputs_", 2),
    })  # fmt: skip
    refused_each(isolation, {
        "column beyond the features": subset(0, 3),
        "negative column": subset(-1, 0),
        "fewer columns than the tree": subset(0),
        "no columns": subset(),
        "fewer subsets than trees": lambda forgery: forgery.attribute("estimators_features_").pop(),
        "columns that are no numbers": lambda forgery: forgery.attribute("estimators_features_").__setitem__(1, "ab"),
    })  # fmt: skip


def _renumbered(node: Any, count: int) -> Any:
    if not isinstance(node, list):
        return node
    return ["a", node[1] + count] if node[:1] == ["a"] else [_renumbered(inner, count) for inner in node]


KIND, DATA, INDEX, NODES, BOUNDS, LEAF_SIZE, LEVELS, COUNT, METRIC, WEIGHTS = 1, 2, 3, 4, 5, 6, 7, 8, -2, -1


def _neighbors(part: int, value: Any) -> Callable[[Forgery], object]:
    return lambda forgery: forgery.node.__setitem__(part, forgery.add(value))


def _node(at: int, **fields: int) -> Callable[[Forgery], object]:
    def change(forgery: Forgery) -> None:
        for field, value in fields.items():
            forgery.records(forgery.node[NODES])[field][at] = value

    return change


def _empty_inner_child(forgery: Forgery) -> None:
    """Let the last node be empty, and no leaf: its children would lie beyond the array."""
    _node(1, idx_end=40)(forgery)
    _node(2, idx_start=40, idx_end=40, is_leaf=0)(forgery)


@pytest.mark.parametrize("cls", [KDTree, BallTree])
def test_a_neighbors_tree_with_parts_that_do_not_fit_is_refused(cls: Any) -> None:
    original = Forgery(cls(X, leaf_size=15))
    assert original.node[LEVELS : COUNT + 1] == [2, 3]
    index = original.array(original.node[INDEX])
    refused_each(original, {
        "index beyond the rows": _neighbors(INDEX, np.where(index == 0, 40, index)),
        "negative index": _neighbors(INDEX, index - 1),
        "row that occurs twice": _neighbors(INDEX, np.where(index == 0, 1, index)),
        "index of fewer rows": _neighbors(INDEX, index[:-1]),
        "index of another width": _neighbors(INDEX, index.astype(np.int32)),
        "node beyond the rows": _node(2, idx_end=41),
        "node before the rows": _node(1, idx_start=-1),
        "node that ends before it starts": _node(2, idx_end=0),
        "node that leaves a gap": _node(1, idx_end=3),
        "root that leaves rows out": _node(0, idx_start=1),
        "inner node without children": _node(2, is_leaf=0),
        "inner node without rows or children": _empty_inner_child,
        "other number of levels": _neighbors(LEVELS, 3),
        "other number of nodes": _neighbors(COUNT, 7),
        "no leaf size": _neighbors(LEAF_SIZE, 0),
        "leaf size that is no number": _neighbors(LEAF_SIZE, "15"),
        "fewer rows": _neighbors(DATA, X[:-1]),
        "data of another width": _neighbors(DATA, X.astype(np.float32)),
        "data of another memory order": _neighbors(DATA, np.asfortranarray(X)),
        "bounds of fewer columns": _neighbors(BOUNDS, np.zeros((2 if cls is KDTree else 1, 3, 2))),
        "fewer weights": _neighbors(WEIGHTS, np.ones(39)),
        "no metric": _neighbors(METRIC, None),
        "metric that is none": _neighbors(METRIC, ["h", "metric", "Tree", 2.0, ["a", 0], ["a", 0]]),
    })  # fmt: skip


@pytest.mark.parametrize(
    ("name", "vector", "matrix"),
    [("Mahalanobis", 1, 1), ("Mahalanobis", 3, 2), ("SEuclidean", 1, 1), ("SEuclidean", 4, 1), ("Minkowski", 2, 1),
     ("Haversine", 1, 1)],
)  # fmt: skip
def test_a_metric_that_does_not_fit_the_columns_of_its_tree_is_refused(name: str, vector: int, matrix: int) -> None:
    forgery = Forgery(BallTree(X, leaf_size=15))
    forgery.node[METRIC][2:] = [f"{name}Distance64", 2.0, forgery.add(np.ones(vector)), forgery.add(np.eye(matrix))]

    assert not accepted(forgery)


SUPPORT: dict[str, Callable[[Forgery], object]] = {
    "support vector beyond the rows": lambda f: f.set("support_", f.array(f.attribute("support_")) + 40),
    "negative support vector": lambda f: f.set("support_", f.array(f.attribute("support_")) - 40),
    "support of another width": lambda f: f.set("support_", f.array(f.attribute("support_")).astype(np.int64)),
    "fewer vectors": lambda f: f.set("support_vectors_", f.array(f.attribute("support_vectors_"))[:-1]),
    "vectors of fewer columns": lambda f: f.set("support_vectors_", f.array(f.attribute("support_vectors_"))[:, :2]),
    "fewer coefficients": lambda f: f.set("_dual_coef_", f.array(f.attribute("_dual_coef_"))[:, :-1]),
    "fewer rows of coefficients": lambda f: f.set("_dual_coef_", f.array(f.attribute("_dual_coef_"))[:0]),
    "fewer intercepts": lambda f: f.set("_intercept_", np.zeros(0)),
    "counts that add up to more": lambda f: f.set("_n_support", f.array(f.attribute("_n_support")) + 1),
    "negative counts": lambda f: f.set("_n_support", -f.array(f.attribute("_n_support"))),
    "many counts": lambda f: f.set("_n_support", np.r_[len(f.array(f.attribute("support_"))), [0] * 999].astype("i4")),
    "shape that is none": lambda f: f.set("shape_fit_", 3),
    "shape of fewer rows": lambda f: f.set("shape_fit_", ["t", 1, 3]),
    "other features": lambda f: f.set("n_features_in_", 2),
    **{f"no {part}": lambda f, part=part: f.drop(part)  # type: ignore[misc]
       for part in ("support_", "_dual_coef_", "_intercept_", "_n_support", "shape_fit_")},
}  # fmt: skip


def test_support_vectors_of_a_classifier_that_do_not_fit_are_refused() -> None:
    refused_each(Forgery(SVC().fit(X, Y)), {
        **SUPPORT,
        "fewer classes": lambda forgery: forgery.set("classes_", np.arange(2)),
        "probabilities of fewer pairs": lambda forgery: forgery.set("_probA", np.zeros(1)),
        "no classes": lambda forgery: forgery.drop("classes_"),
        "probabilities of no pairs": lambda forgery: forgery.set("_effective_probability", True),
        "probabilities asked for": lambda forgery: forgery.set("_effective_probability", True).drop("_probA"),
    })  # fmt: skip


def test_support_vectors_of_a_regressor_that_do_not_fit_are_refused() -> None:
    refused_each(Forgery(SVR().fit(X, X[:, 0])), {
        **SUPPORT,
        "one count": lambda f: f.set("_n_support", f.array(f.attribute("_n_support"))[:1].copy()),
    })  # fmt: skip
    classifier = Forgery(SVC().fit(X, Y > 0)).drop("classes_")
    SUPPORT["many counts"](classifier)
    assert not accepted(classifier), "without its classes, a classifier of two looks like a regressor"


@pytest.mark.usefixtures("running_worker")
def test_a_fit_with_a_precomputed_kernel_is_not_taken_for_a_forgery() -> None:
    """Its support vectors are empty, and only the kernel, which a reply does not repeat, tells why."""
    kernel = X @ X.T

    with offload(fallback="raise"):
        remote = SVC(kernel="precomputed").fit(kernel, Y)

    np.testing.assert_array_equal(remote.predict(kernel), SVC(kernel="precomputed").fit(kernel, Y).predict(kernel))


def test_sparse_support_vectors_with_fewer_coefficients_than_vectors_are_refused() -> None:
    forgery = Forgery(SVC().fit(scipy.sparse.csr_matrix(X), Y))
    forgery.copy().decode()
    rows = forgery.attribute("_dual_coef_")[2][0]
    for part, empty in zip((3, 4, 5), (np.zeros(0), np.zeros(0, "i4"), np.zeros(rows + 1, "i4")), strict=True):
        forgery.attribute("_dual_coef_")[part] = forgery.add(empty)

    assert not accepted(forgery)


def test_sparse_support_vectors_by_columns_are_refused() -> None:
    fitted = SVC().fit(scipy.sparse.csr_matrix(X), Y)
    fitted.support_vectors_ = fitted.support_vectors_.tocsc()

    assert not accepted(Forgery(fitted))


def _merge(forgery: Forgery, left: int, right: int) -> None:
    forgery.records(forgery.attribute("_single_linkage_tree_"))[0] = (left, right, 1.0, 2)


OTHERS: dict[str, tuple[Any, dict[str, Callable[[Forgery], object]]]] = {
    "KNeighborsClassifier": (KNeighborsClassifier(algorithm="kd_tree").fit(X, Y), {
        "rows of fewer columns": lambda f: f.set("_fit_X", X[:, :2]),
        "fewer rows than its tree": lambda f: f.set("_fit_X", X[:-1]).set("n_samples_fit_", 39).set("_y", Y[:-1]),
        "other number of rows": lambda f: f.set("n_samples_fit_", 41),
        "fewer labels": lambda f: f.set("_y", Y[:-1]),
        "label beyond the classes": lambda f: f.set("_y", Y + 1),
        "negative label": lambda f: f.set("_y", Y - 1),
        "labels that are no numbers": lambda f: f.set("_y", Y.astype(float)),
    }),
    "KernelDensity": (KernelDensity().fit(X), {"other features": lambda f: f.set("n_features_in_", 2)}),
    "KMeans": (KMeans(2, n_init=1).fit(X), {
        "fewer columns": lambda f: f.set("cluster_centers_", np.ones((2, 2))),
        "threads that cannot be started": lambda f: f.set("_n_threads", 60_000),
        "no thread": lambda f: f.set("_n_threads", 0),
    }),
    "PCA": (PCA(2).fit(X), {"fewer columns": lambda f: f.set("components_", np.ones((2, 2)))}),
    "KernelRidge": (KernelRidge().fit(X, Y), {"fewer columns": lambda f: f.set("X_fit_", np.ones((2, 2)))}),
    "HDBSCAN": (HDBSCAN(copy=True).fit(X), {
        "merge of what is not there": lambda f: _merge(f, 99, 0),
        "negative merge": lambda f: _merge(f, 0, -1),
    }),
    "Lasso": (Lasso(warm_start=True).fit(X, Y), {"coefficients to start from": lambda f: f.set("coef_", np.zeros(1))}),
    "OneHotEncoder": (OneHotEncoder().fit(Y.reshape(-1, 1)), {
        "features that are no count": lambda f: f.set("n_features_in_", -1),
        "attribute that hides a method": lambda f: f.set("transform", 1),
        "attribute of Python": lambda f: f.set("__class__", 1),
        "class that is not in the table": lambda f: f.node.__setitem__(1, "GridSearchCV"),
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_fitted_states_that_do_not_fit_are_refused(name: str) -> None:
    estimator, changes = OTHERS[name]

    refused_each(Forgery(estimator), changes)
