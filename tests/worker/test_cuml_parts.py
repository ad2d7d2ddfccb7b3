"""What the cuml engine computes beside cuML is what scikit-learn computes; none of it needs a GPU."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression
from sklearn.manifold import SpectralEmbedding
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import TargetEncoder
from sklearn.svm import SVC
from sklearn.tree._tree import Tree

from sklearn_wsl_gpu.state import objects
from sklearn_wsl_gpu.testing import assert_same
from wsl_worker.engines.cuml import forests, parts
from wsl_worker.engines.cuml.svc import PairwiseSVC
from wsl_worker.engines.cuml.target import TargetEncoder as DeviceTargetEncoder

random = np.random.default_rng(11)
X = random.normal(size=(120, 6)) * [1.0, 2.0, 3.0, 1.0, 0.5, 1.0]
CLASSES = (X[:, 0] + random.normal(size=120) > 0).astype(int) + (X[:, 1] > 1)
NAMES = np.array(["red", "green", "blue"])[CLASSES]
Z = X @ [1.0, 0.0, -2.0, 0.5, 0.0, 3.0] + random.normal(size=120)
WEIGHTS = random.uniform(0.2, 3.0, size=120)


class BinarySVC:
    """Stands in for cuML's: the same hooks, the same sign, support vectors in another order."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        allowed = SVC().get_params()
        self.model = SVC(**{name: value for name, value in parameters.items() if name in allowed})
        self.state: dict[str, Any] = {}

    def fit(self, X: Any, y: Any, sample_weight: Any) -> None:
        self.model.fit(X, y, sample_weight=sample_weight)
        coef = self.model.dual_coef_
        coef = coef.toarray() if scipy.sparse.issparse(coef) else coef
        order = np.argsort(self.model.support_)
        self.state = {
            "support_": self.model.support_[order],
            "dual_coef_": coef[:, order],
            "intercept_": self.model.intercept_,
            "n_iter_": self.model.n_iter_,
            "fit_status_": self.model.fit_status_,
        }

    def _sync_attrs_to_cpu(self, target: Any) -> None:
        vars(target).update(self.state)

    def _sync_attrs_from_cpu(self, part: SimpleNamespace) -> None:
        coef = part.dual_coef_
        assert part._sparse == scipy.sparse.issparse(coef)
        count = coef.shape[1]
        self.model = SVC(**self.model.get_params())
        # scikit-learn wants what belongs to the first class in front, and its sign to be libsvm's.
        dense = coef.toarray().ravel() if part._sparse else coef.ravel()
        order = np.argsort(dense > 0, kind="stable")
        kernel = -dense[np.newaxis, order]
        vars(self.model).update(
            {**vars(part), "support_vectors_": part.support_vectors_[order], "support_": part.support_[order]},
            _n_support=np.array([(dense < 0).sum(), (dense > 0).sum()], dtype=np.int32),
            dual_coef_=coef,
            _dual_coef_=scipy.sparse.csr_matrix(kernel) if part._sparse else kernel,
            _intercept_=-part.intercept_,
            _probA=np.empty(0),
            _probB=np.empty(0),
            _effective_probability=False,
        )
        assert count == len(part.support_)

    def decision_function(self, X: Any) -> Any:
        return self.model.decision_function(X)


def _dense(value: Any) -> Any:
    return value.toarray() if scipy.sparse.issparse(value) else value


def _pairwise(estimator: SVC) -> PairwiseSVC:
    parameters = estimator.get_params()
    return PairwiseSVC(lambda **changes: BinarySVC({**parameters, **changes}), parameters)


_SVCS = [
    SVC(tol=1e-9),
    SVC(kernel="linear", C=0.3, tol=1e-9),
    SVC(kernel="poly", gamma="auto", decision_function_shape="ovo", tol=1e-9),
    SVC(class_weight="balanced", break_ties=True, tol=1e-9),
    SVC(class_weight={0: 3.0, 1: 0.5}, gamma=0.2, tol=1e-9),
]


@pytest.mark.parametrize("labels", [CLASSES, np.minimum(CLASSES, 1)], ids=["three classes", "two classes"])
@pytest.mark.parametrize("is_sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("estimator", _SVCS, ids=str)
def test_pairs_of_binary_classifiers_become_the_svc_that_scikit_learn_fits(
    estimator: SVC, is_sparse: bool, labels: Any
) -> None:
    data = scipy.sparse.csr_matrix(X) if is_sparse else X
    local = SVC(**estimator.get_params()).fit(data, labels, sample_weight=WEIGHTS)
    model = _pairwise(estimator).fit(data, labels, sample_weight=WEIGHTS)
    remote = objects.build_estimator(SVC, {**vars(SVC(**estimator.get_params())), **model.fitted})

    assert vars(remote).keys() >= vars(local).keys()
    assert_same(remote.n_support_, local.n_support_)
    for name in ("support_", "support_vectors_", "dual_coef_", "intercept_", "class_weight_", "_gamma"):
        pair = [getattr(one, name) for one in (remote, local)]
        assert type(pair[0]) is type(pair[1])
        assert_same(*(_dense(one) for one in pair), rtol=1e-5, atol=1e-6)
    assert_same(remote.predict(data), local.predict(data))
    assert_same(remote.decision_function(data), local.decision_function(data), rtol=1e-5, atol=1e-6)
    assert_same(model.predict(data), local.predict(data))
    assert_same(model.decision_function(data), local.decision_function(data), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("is_sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("labels", [NAMES, NAMES == "red"], ids=["three classes", "two classes"])
def test_a_fitted_svc_is_split_into_pairs_that_predict_the_same(labels: Any, is_sparse: bool) -> None:
    data = scipy.sparse.csr_matrix(X) if is_sparse else X
    local = SVC(C=2.0).fit(data, labels)
    model = _pairwise(SVC(C=2.0))
    model.load(objects.carried_attributes(local))

    assert_same(model.predict(data), local.predict(data))
    assert_same(model.decision_function(data), local.decision_function(data), rtol=1e-10, atol=1e-12)


def _emptied(tree: Any) -> Any:
    """Return a tree as cuML's come: values in leaves only, no impurities, no weighted counts."""
    state = tree.__getstate__()
    nodes, values = state["nodes"].copy(), state["values"].copy()
    nodes["impurity"] = nodes["weighted_n_node_samples"] = np.nan
    nodes["n_node_samples"] = state["nodes"]["weighted_n_node_samples"]  # cuML counts what was drawn
    values[nodes["left_child"] >= 0] = 0
    empty = Tree(*tree.__reduce__()[1])
    empty.__setstate__({**state, "nodes": nodes, "values": values})
    return empty


@pytest.mark.parametrize(
    ("forest", "target"),
    [
        (RandomForestClassifier(8, random_state=0), NAMES),
        (RandomForestClassifier(8, random_state=0, criterion="entropy", max_depth=4), CLASSES),
        (RandomForestRegressor(8, random_state=0, max_features=0.5), Z),
        (RandomForestRegressor(8, random_state=0, min_samples_leaf=5, bootstrap=False), Z),
        (RandomForestRegressor(8, random_state=0, criterion="poisson", max_depth=5), np.abs(Z)),
    ],
    ids=["gini", "entropy", "squared error", "large leaves", "poisson"],
)
def test_a_forest_without_impurities_regains_its_importances(forest: Any, target: Any) -> None:
    local = forest.fit(X, target)
    importances = local.feature_importances_
    proba = local.predict_proba(X) if hasattr(local, "predict_proba") else local.predict(X)
    before = [vars(one).keys() for one in local.estimators_]
    trees = [one.tree_ for one in local.estimators_]
    for one in local.estimators_:
        vars(one).update(tree_=_emptied(one.tree_), max_features=None, is_categorical_=None)
    state = forests.complete(dict(vars(local)), local.get_params())
    remote = objects.build_estimator(type(local), {**vars(type(local)()), **state})

    assert [vars(one).keys() for one in remote.estimators_] == before
    for one in remote.estimators_:  # as the state travels
        vars(one).update(tree_=objects.put_together(*objects.take_apart(one.tree_)))
    for one, tree in zip(remote.estimators_, trees, strict=True):
        assert_same(one.tree_.value, tree.value, rtol=1e-10, atol=1e-14)
        assert_same(one.tree_.weighted_n_node_samples, tree.weighted_n_node_samples)
        if hasattr(remote, "classes_"):
            assert_same(one.tree_.impurity, tree.impurity, rtol=1e-10, atol=1e-12)
    assert_same(remote.feature_importances_, importances, rtol=1e-10, atol=1e-14)
    assert_same(remote.predict_proba(X) if hasattr(remote, "predict_proba") else remote.predict(X), proba)
    assert remote.estimators_[0].max_features == local.max_features


def test_a_forest_that_has_been_through_treelite_regains_its_importances() -> None:
    treelite = pytest.importorskip("treelite", reason="it comes with cuML")
    local = RandomForestClassifier(20, random_state=0, bootstrap=False).fit(X, CLASSES)
    exported = treelite.sklearn.export_model(treelite.sklearn.import_model(local))
    state = forests.complete({**vars(exported), "n_features_in_": 6}, local.get_params())

    assert state["_sample_weight"] is None
    remote = objects.build_estimator(RandomForestClassifier, {**vars(RandomForestClassifier()), **state})
    assert np.isnan(exported.estimators_[0].tree_.impurity).sum() == 0
    assert_same(remote.feature_importances_, local.feature_importances_, rtol=1e-10, atol=1e-14)


def test_which_samples_a_tree_drew_is_told_only_if_it_is_known() -> None:
    for bootstrap in (False, True):
        local = RandomForestClassifier(2, bootstrap=bootstrap).fit(X, CLASSES)
        expected = local.estimators_samples_
        attributes = {name: value for name, value in vars(local).items() if name != "_sample_weight"}
        for one in local.estimators_:
            vars(one).update(random_state=None)
        state = forests.complete(attributes, local.get_params())
        remote = objects.build_estimator(RandomForestClassifier, {**vars(RandomForestClassifier()), **state})
        vars(remote).update(bootstrap=bootstrap)

        if bootstrap:
            with pytest.raises(AttributeError):
                _ = remote.estimators_samples_
            assert forests.with_samples(state)["_n_samples_bootstrap"] == 120
        else:
            assert_same(remote.estimators_samples_, expected)


@pytest.mark.parametrize("setting", ["sqrt", "log2", None, 3, 0.4, 0.01])
def test_a_split_looks_at_as_many_columns_as_scikit_learn_says(setting: Any) -> None:
    local = RandomForestClassifier(1, max_features=setting).fit(X, CLASSES)

    assert forests.max_features(setting, 6) == local.estimators_[0].max_features_


@pytest.mark.parametrize("estimator", [KMeans(3), KMeans(1, algorithm="elkan"), KMeans(2, init="random", tol=0)])
def test_kmeans_has_the_settings_that_scikit_learn_chooses(estimator: KMeans) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        local = estimator.fit(X)
    found = {"_tol": parts.tolerance(np, X, estimator.tol), **parts.kmeans_settings(estimator.get_params())}

    for name, value in found.items():
        assert_same(value, vars(local)[name], rtol=1e-12)


@pytest.mark.parametrize(
    ("estimator", "rows"),
    [(PCA(), 120), (PCA(2), 40), (PCA(3), 600), (PCA(6), 45), (PCA(2, svd_solver="arpack"), 40), (PCA(0.5), 9)],
)
def test_pca_names_the_solver_that_scikit_learn_would_have_taken(estimator: PCA, rows: int) -> None:
    data = random.normal(size=(rows, 80 if rows > 500 else 6))

    assert parts.pca_solver(estimator.get_params(), data.shape, False) == estimator.fit(data)._fit_svd_solver


@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("data", [X, X[:4], np.hstack([X, X])], ids=["tall", "wide", "deficient"])
def test_least_squares_have_the_rank_and_singular_values_of_a_local_fit(
    data: Any, fit_intercept: bool, weight: Any
) -> None:
    weight = weight if weight is None else weight[: len(data)]
    local = LinearRegression(fit_intercept=fit_intercept).fit(data, Z[: len(data)], sample_weight=weight)
    singular = parts.singular_values(np, parts.centered(np, data, weight, fit_intercept))

    assert_same(singular, local.singular_, rtol=1e-9, atol=1e-12)
    assert parts.rank(singular, 1e-6) == local.rank_


@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("is_sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize(
    "estimator",
    [
        Lasso(0.1),
        ElasticNet(0.2, l1_ratio=0.3),
        ElasticNet(0.2, fit_intercept=False, tol=1e-2),
        Lasso(1e3),
        ElasticNet(0.2, tol=0.5),
    ],
    ids=str,
)
def test_the_dual_gap_is_the_one_of_a_local_fit(estimator: Any, is_sparse: bool, weight: Any) -> None:
    data = scipy.sparse.csr_matrix(X) if is_sparse else X
    local = estimator.fit(data, Z, sample_weight=weight)
    weights = np.ones(120) if weight is None else weight / weight.mean()
    gap = parts.dual_gap(
        np,
        data,
        Z,
        local.coef_,
        alpha=local.alpha,
        l1_ratio=local.l1_ratio,
        fit_intercept=local.fit_intercept,
        weights=weights,
    )

    assert gap == pytest.approx(local.dual_gap_, rel=1e-6, abs=1e-10)


def test_without_an_l1_penalty_the_dual_gap_vanishes_at_the_optimum() -> None:
    coef = np.linalg.solve(X.T @ X + 0.2 * 120 * np.eye(6), X.T @ Z)
    settings: dict[str, Any] = {"alpha": 0.2, "l1_ratio": 0.0, "fit_intercept": False, "weights": np.ones(120)}

    assert parts.dual_gap(np, X, Z, coef, **settings) == pytest.approx(0, abs=1e-10)
    assert parts.dual_gap(np, X, Z, coef + 0.1, **settings) > 1e-3


def test_the_affinity_of_a_kernel_is_the_one_that_scikit_learn_clusters_by() -> None:
    local = SpectralClustering(3, gamma=0.3, random_state=0).fit(X)

    assert_same(parts.rbf_affinity(np, X, 0.3), local.affinity_matrix_, rtol=1e-9, atol=1e-14)


def test_the_affinity_of_neighbors_is_the_one_that_scikit_learn_embeds_by() -> None:
    local = SpectralEmbedding(n_neighbors=8, random_state=0).fit(X)
    indices = NearestNeighbors(n_neighbors=8).fit(X).kneighbors(X, return_distance=False)

    assert_same(parts.neighbors_affinity(indices).toarray(), local.affinity_matrix_.toarray())


_NUMBERS = random.integers(0, 5, size=(120, 3)).astype(float)
_WORDS = np.array(["ab", "c", "def", "g", "hi"])[_NUMBERS.astype(int)]


@pytest.mark.parametrize("data", [_NUMBERS, _NUMBERS.astype(int), _WORDS], ids=["floats", "integers", "text"])
@pytest.mark.parametrize("target", [Z, NAMES == "red", np.where(CLASSES > 1, "yes", "no")], ids=["y", "bool", "text"])
@pytest.mark.parametrize("smooth", ["auto", 0.0, 3.5])
def test_categories_are_encoded_by_their_targets_as_scikit_learn_does(data: Any, target: Any, smooth: Any) -> None:
    local = TargetEncoder(smooth=smooth)
    remote = DeviceTargetEncoder(np, local.get_params())
    unknown = data.copy()
    unknown[3] = "?" if data is _WORDS else 77
    np.random.seed(5)
    expected = local.fit_transform(data, target)
    np.random.seed(5)
    found = remote.fit_transform(data, target)

    assert_same(found, expected, rtol=1e-10, atol=1e-12)
    assert_same(remote.transform(unknown), local.transform(unknown), rtol=1e-10, atol=1e-12)
    fitted = {name: value for name, value in vars(local).items() if name not in local.get_params()}
    assert remote.fitted.keys() == fitted.keys()
    for name, value in fitted.items():
        assert_same(remote.fitted[name], value, rtol=1e-10, atol=1e-12)


def test_a_category_of_one_value_is_drawn_to_the_mean_as_scikit_learn_does() -> None:
    data = np.array([[0], [1], [1], [2], [2], [2.0]])
    for target in ([1.0, 2.0, 2.0, 3.0, 3.5, 5.0], [2.5] * 6):
        local = TargetEncoder(target_type="continuous").fit(data, target)
        remote = DeviceTargetEncoder(np, local.get_params()).fit(data, target)

        assert_same(remote.fitted["encodings_"], local.encodings_, rtol=1e-12)
