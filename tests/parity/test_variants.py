"""The parameters that change what an estimator computes, or what it keeps: all methods, to the last bit."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from sklearn_wsl_gpu.testing import first_difference
from tests.parity.cases import CATEGORIES, CLASSES, LABELS, NUMBERS, X, data_for, do, on_the_worker, possible_methods

pytestmark = [pytest.mark.usefixtures("shared_worker"), pytest.mark.filterwarnings("ignore")]

SPARSE = scipy.sparse.csr_matrix(X)
STRINGS = LABELS["str"](CLASSES)
OBJECTS = LABELS["object"](CLASSES)
TWO = CLASSES > 0
PAIRS = np.column_stack([CLASSES, CLASSES[::-1]])
WORDS = np.array([["a", "b", "cc", "ddd"][int(at)] for at in CATEGORIES.flat], dtype=object).reshape(60, 3)
MIXED = np.column_stack([WORDS[:, :1], CATEGORIES[:, 1:].astype(int).astype(object)])
DISTANCES = np.abs(X[:, None] - X[None]).sum(axis=2)

Variant = tuple[str, dict[str, Any], Any, Any]


def _grid(name: str, data: Any = None, target: Any = None, **choices: Any) -> Iterator[Variant]:
    own_data, own_target = data_for(name)
    for values in product(*choices.values()):
        parameters = dict(zip(choices, values, strict=True))
        yield name, parameters, own_data if data is None else data, own_target if target is None else target


def _variants() -> Iterator[Variant]:
    for target in (TWO, STRINGS, OBJECTS):
        yield from _grid("SVC", X, target, probability=[False, True])
        yield from _grid("LogisticRegression", X, target)
        yield from _grid("LinearSVC", X, target)
        yield from _grid("RandomForestClassifier", X, target)
        yield from _grid("KNeighborsClassifier", X, target)
        yield from _grid("TargetEncoder", CATEGORIES, target)
        yield from _grid("HDBSCAN", X, target)
    yield from _grid("SVC", SPARSE, CLASSES, probability=[False, True], kernel=["linear", "rbf"])
    yield from _grid("SVC", kernel=["linear", "poly", "rbf", "sigmoid"], decision_function_shape=["ovo", "ovr"])
    yield from _grid("SVC", DISTANCES, kernel=["precomputed"])
    yield from _grid("SVC", class_weight=["balanced", {0: 2.0, 1: 1.0, 2: 0.5}], break_ties=[True])
    yield from _grid("SVR", kernel=["linear", "poly", "rbf"])
    yield from _grid("SVR", SPARSE)
    yield from _grid("LinearSVC", multi_class=["crammer_singer"])
    yield from _grid("LinearSVC", dual=[False], penalty=["l1"], class_weight=["balanced"])
    yield from _grid("LinearSVR", loss=["squared_epsilon_insensitive"], dual=[False, True])
    solvers = ["lbfgs", "liblinear", "newton-cg", "newton-cholesky", "sag", "saga"]
    yield from _grid("LogisticRegression", X, TWO, solver=solvers, max_iter=[20])
    yield from _grid("LogisticRegression", SPARSE, solver=["lbfgs", "newton-cholesky", "saga"], max_iter=[20])
    yield from _grid("LogisticRegression", fit_intercept=[False], class_weight=["balanced", {0: 3.0}])
    yield from _grid("LogisticRegression", l1_ratio=[0.5], solver=["saga"], max_iter=[20])
    many = np.column_stack([NUMBERS, -(NUMBERS**2)])
    for name in ("LinearRegression", "Ridge", "Lasso", "ElasticNet", "KNeighborsRegressor", "RandomForestRegressor"):
        yield from _grid(name, X, many)
    yield from _grid("KernelRidge", X, many, kernel=["linear", "rbf", "poly", "laplacian"])
    yield from _grid("KernelRidge", SPARSE)
    yield from _grid("LinearRegression", positive=[True], fit_intercept=[True, False])
    yield from _grid("Ridge", solver=["svd", "cholesky", "lsqr", "sparse_cg", "sag", "saga"])
    yield from _grid("Ridge", solver=["lbfgs"], positive=[True])
    yield from _grid("Ridge", X, many, alpha=[np.array([0.5, 2.0])])
    yield from _grid("Ridge", SPARSE, solver=["sparse_cg", "lsqr", "sag"])
    yield from _grid("RidgeCV", X, many, alpha_per_target=[False, True], store_cv_results=[True])
    yield from _grid("RidgeCV", cv=[None, 3], scoring=[None, "neg_mean_absolute_error"], fit_intercept=[False])
    yield from _grid("RidgeCV", gcv_mode=["svd", "eigen"], alphas=[(0.1, 1.0), np.array([0.5, 5.0])])
    for target in (TWO, STRINGS, PAIRS % 2):
        yield from _grid("RidgeClassifier", X, target, solver=["auto", "svd", "sag"], class_weight=[None, "balanced"])
        yield from _grid("RidgeClassifierCV", X, target, cv=[None, 3])
    yield from _grid("RidgeClassifier", SPARSE, positive=[False, True])
    yield from _grid("PoissonRegressor", solver=["lbfgs", "newton-cholesky"], alpha=[0.0, 2.0], fit_intercept=[False])
    yield from _grid("PoissonRegressor", SPARSE, warm_start=[True])
    solvers = ["svd", "lsqr", "eigen"]
    for target in (CLASSES, STRINGS, TWO):
        yield from _grid("LinearDiscriminantAnalysis", X, target, solver=solvers, store_covariance=[True])
        yield from _grid("GaussianNB", X, target, var_smoothing=[1e-3])
    yield from _grid("GaussianNB", X, TWO, priors=[np.array([0.25, 0.75])])
    yield from _grid("LinearDiscriminantAnalysis", solver=["lsqr", "eigen"], shrinkage=["auto", 0.3], n_components=[1])
    yield from _grid("Nystroem", kernel=["rbf", "poly", "cosine", "laplacian"], n_components=[5, 60], gamma=[0.01])
    yield from _grid("Nystroem", SPARSE, n_components=[5])
    yield from _grid("GaussianMixture", covariance_type=["full", "tied", "diag", "spherical"], n_init=[2])
    yield from _grid("GaussianMixture", init_params=["random", "random_from_data", "k-means++"], warm_start=[True])
    yield from _grid("GaussianMixture", weights_init=[np.array([0.3, 0.7])], means_init=[X[:2].copy()])
    yield from _grid("Normalizer", norm=["l1", "l2", "max"])
    yield from _grid("Normalizer", SPARSE)
    yield from _grid("Binarizer", SPARSE, threshold=[0.0, 1.0])
    yield from _grid("Lasso", selection=["random"], precompute=[True, X.T @ X], fit_intercept=[False])
    yield from _grid("ElasticNet", SPARSE, positive=[True, False])
    yield from _grid("KMeans", init=["random", X[:3].copy()], n_init=[1, 3], algorithm=["lloyd", "elkan"])
    yield from _grid("KMeans", SPARSE, algorithm=["lloyd", "elkan"])
    yield from _grid("DBSCAN", metric=["euclidean", "manhattan", "cosine"], algorithm=["auto", "brute"])
    yield from _grid("DBSCAN", DISTANCES, metric=["precomputed"])
    yield from _grid(
        "HDBSCAN", metric=["euclidean", "manhattan"], store_centers=["both"], algorithm=["auto", "kd_tree"]
    )
    yield from _grid("HDBSCAN", DISTANCES, metric=["precomputed"], copy=[True])
    yield from _grid("HDBSCAN", cluster_selection_method=["leaf"], allow_single_cluster=[True], max_cluster_size=[30])
    yield from _grid("SpectralClustering", affinity=["nearest_neighbors"], assign_labels=["discretize", "cluster_qr"])
    yield from _grid("SpectralClustering", DISTANCES, affinity=["precomputed"])
    solvers = ["full", "covariance_eigh", "arpack", "randomized"]
    yield from _grid("PCA", svd_solver=solvers, whiten=[False, True])
    yield from _grid("PCA", SPARSE, svd_solver=["arpack", "covariance_eigh"])
    yield from _grid("PCA", n_components=[None, 0.9, "mle"], svd_solver=["full"])
    yield from _grid("IncrementalPCA", whiten=[True])
    yield from _grid("TruncatedSVD", algorithm=["arpack", "randomized"])
    yield from _grid("TSNE", init=["random", X[:, :2] / 100])
    yield from _grid("TSNE", method=["barnes_hut"])
    yield from _grid("TSNE", DISTANCES, metric=["precomputed"], init=["random"], method=["barnes_hut"])
    yield from _grid("SpectralEmbedding", affinity=["rbf", "nearest_neighbors"], eigen_solver=["arpack", "lobpcg"])
    algorithms = ["brute", "kd_tree", "ball_tree"]
    for name in ("KNeighborsClassifier", "KNeighborsRegressor"):
        yield from _grid(name, algorithm=algorithms, weights=["uniform", "distance"])
        yield from _grid(name, X, PAIRS, weights=["uniform", "distance"])
        yield from _grid(name, SPARSE, metric=["cosine"])
        yield from _grid(name, DISTANCES, metric=["precomputed"])
    yield from _grid("KNeighborsClassifier", X, np.array(["x", "yy", "zzz"], dtype=object)[PAIRS])
    yield from _grid("NearestNeighbors", algorithm=algorithms, metric=["manhattan", "minkowski"], p=[3])
    yield from _grid(
        "NearestNeighbors", metric=["seuclidean"], metric_params=[{"V": np.ones(6)}], algorithm=["ball_tree"]
    )
    yield from _grid("NearestNeighbors", X.astype("f4"), algorithm=algorithms, radius=[5.0])
    kernels = ["gaussian", "tophat", "epanechnikov", "exponential", "linear", "cosine"]
    yield from _grid("KernelDensity", kernel=kernels, algorithm=["kd_tree", "ball_tree"])
    yield from _grid("KernelDensity", bandwidth=["scott", "silverman"], metric=["manhattan"])
    yield from _grid("RandomForestClassifier", bootstrap=[True], oob_score=[True], max_samples=[0.5], n_estimators=[20])
    yield from _grid("RandomForestClassifier", X, PAIRS, bootstrap=[False], class_weight=["balanced"])
    yield from _grid("RandomForestClassifier", SPARSE, criterion=["entropy"], n_jobs=[2], n_estimators=[2])
    yield from _grid("RandomForestRegressor", bootstrap=[True], oob_score=[True], max_samples=[20], n_estimators=[20])
    yield from _grid(
        "RandomForestRegressor", criterion=["absolute_error", "poisson"], target=NUMBERS - NUMBERS.min() + 1
    )
    yield from _grid("RandomForestRegressor", monotonic_cst=[[0, 0, 1, 0, 0, 0]], max_features=["sqrt"], max_depth=[3])
    yield from _grid("IsolationForest", contamination=[0.1], max_features=[0.5], bootstrap=[True])
    yield from _grid("IsolationForest", SPARSE, contamination=["auto", 0.2])
    yield from _grid("StandardScaler", with_mean=[False, True], with_std=[False, True])
    yield from _grid("StandardScaler", SPARSE, with_mean=[False])
    yield from _grid("MinMaxScaler", feature_range=[(-1, 2)], clip=[True])
    yield from _grid("MaxAbsScaler", SPARSE)
    yield from _grid("PolynomialFeatures", degree=[2, (2, 3)], interaction_only=[True, False], order=["C", "F"])
    yield from _grid("PolynomialFeatures", SPARSE, degree=[2, 3], include_bias=[False])
    yield from _grid("Binarizer", pd.DataFrame(X > 0))
    for data in (WORDS, WORDS.astype(str), MIXED, pd.DataFrame(WORDS, columns=list("abc")), CATEGORIES.astype("i8")):
        yield from _grid("OneHotEncoder", data, drop=[None, "first", "if_binary"], sparse_output=[True, False])
        yield from _grid("OneHotEncoder", data, min_frequency=[16], handle_unknown=["infrequent_if_exist"])
        yield from _grid("TargetEncoder", data, shuffle=[True], smooth=["auto", 2.0])
    yield from _grid("OneHotEncoder", WORDS, categories=[[["a", "b", "cc", "ddd", "e"]] * 3], dtype=[np.float32, int])
    yield from _grid("OneHotEncoder", WORDS, drop=[np.array(["a", "b", "cc"], dtype=object), ["a", "b", "cc"]])
    for labels in (STRINGS, OBJECTS, TWO, CLASSES):
        yield from _grid("LabelEncoder", labels)
        yield from _grid("LabelBinarizer", labels, neg_label=[-1], pos_label=[2])
        yield from _grid("LabelBinarizer", labels, sparse_output=[True, False])
    yield from _grid("EmpiricalCovariance", assume_centered=[True], store_precision=[True, False])
    yield from _grid("LedoitWolf", block_size=[3], assume_centered=[True, False])


VARIANTS = list(_variants())


def _name(variant: Variant) -> str:
    name, parameters, data, target = variant
    words = [
        f"{key}={value if isinstance(value, (str, int, float)) else type(value).__name__}"
        for key, value in parameters.items()
    ]
    dtypes = [str(getattr(item, "dtype", type(item).__name__)) for item in (data, target)]
    return f"{name}({', '.join(words)}) on {' '.join(dtypes)}"


def _difference(name: str, parameters: dict[str, Any], data: Any, target: Any) -> str | None:
    for method in possible_methods(name, data, target, parameters):
        given = {side: (copy.copy(data), copy.copy(target)) for side in ("here", "there")}
        local = do(name, method, *given["here"], parameters=parameters)
        try:
            with on_the_worker():
                remote = do(name, method, *given["there"], parameters=parameters)
        except Exception as error:  # the other variants shall still be looked at
            return f"{method} failed: {error!r:.300}"
        if parameters.get("multi_class") == "crammer_singer":
            # scikit-learn 1.6 reads it from memory that liblinear never wrote.
            for _, model in (local, remote):
                del model.n_iter_
        found = (
            first_difference(local[0], remote[0], method)
            or first_difference(local[1], remote[1], name)
            or first_difference(given["here"], given["there"], "the arguments")
        )
        if found:
            return f"after {method}, {found}"
    return None


@pytest.mark.parametrize("name", sorted({variant[0] for variant in VARIANTS}))
def test_all_methods_give_the_same_whatever_the_parameters(name: str) -> None:
    found = {}
    for variant in VARIANTS:
        if variant[0] != name:
            continue
        found[_name(variant)] = _difference(*variant)

    assert {variant: words for variant, words in found.items() if words} == {}


@pytest.mark.parametrize("data", [X.astype("f4"), pd.DataFrame(X.astype("f4"))], ids=["array", "table"])
def test_what_ridge_learns_of_single_precision_has_the_precision_that_it_has_here(data: Any) -> None:
    found = _difference("RidgeCV", {}, data, NUMBERS)

    assert found is None
