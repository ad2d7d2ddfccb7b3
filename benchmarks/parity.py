"""Whether a GPU's result is worth scikit-learn's: what is compared of each estimator, how, how far apart it may be.

A figure is 0 for results that are worth the same, and grows from there; it is within its tolerance, or it is not. The
tolerances are those of cuML's own tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from sklearn.base import is_classifier
from sklearn.manifold import trustworthiness
from sklearn.metrics import accuracy_score, adjusted_rand_score, r2_score

from sklearn_wsl_gpu.state import objects

#: Rows that are judged; of an embedding fewer, for its measure takes the square of them.
JUDGED, EMBEDDED = 10_000, 2_000

Measure = Callable[[Any, Any, Any, Any], float]


class Parity(NamedTuple):
    """What a fit is judged by, a fitted attribute or what a method says of X; how; and the tolerance."""

    of: str
    measure: Measure
    tolerance: float


def _clusters(found: Any, wanted: Any, X: Any, y: Any) -> float:
    return 1.0 - float(adjusted_rand_score(wanted, found))


def _worse_by(score: Callable[[Any, Any], float]) -> Measure:
    return lambda found, wanted, X, y: max(float(score(y, wanted) - score(y, found)), 0.0)


def _other_accuracy(found: Any, wanted: Any, X: Any, y: Any) -> float:
    there, here = (accuracy_score(y, one) for one in (found, wanted))
    # As compare_svm of cuML: what is by chance in 95 of 100 cases, but at least a thousandth.
    return float(abs(there - here) / max(0.001, 1.96 * np.sqrt(here * (1 - here) / len(y))))


def _other_r2(found: Any, wanted: Any, X: Any, y: Any) -> float:
    return abs(float(r2_score(y, wanted) - r2_score(y, found)))


def _elements(atol: float, rtol: float) -> Measure:
    # At most 1 where numpy.allclose is true.
    return lambda found, wanted, X, y: float(np.max(np.abs(found - wanted) / (atol + rtol * np.abs(wanted))))


def _share(unit: float) -> Measure:
    """Return the measure of cuML's ``array_equal``: the share of elements that are more than a unit apart."""

    def measure(found: Any, wanted: Any, X: Any, y: Any) -> float:
        # Not "apart > unit", for which NaN is near everything.
        return float(np.mean(~(np.abs(found - wanted) <= unit) if unit else found != wanted))

    return measure


def _components(found: Any, wanted: Any, X: Any, y: Any) -> float:
    return _share(1e-3)(np.abs(found), np.abs(wanted), X, y)  # they are unique but for their signs


def _uncorrelated(found: Any, wanted: Any, X: Any, y: Any) -> float:
    return 1.0 - float(np.corrcoef(found, wanted)[0, 1])


def _less_trusted(found: Any, wanted: Any, X: Any, y: Any) -> float:
    there, here = (trustworthiness(X[:EMBEDDED], one[:EMBEDDED]) for one in (found, wanted))
    return max(float(here - there), 0.0)


def _kernel(found: Any, wanted: Any, X: Any, y: Any) -> float:
    there, here = (one[:EMBEDDED] @ one[:EMBEDDED].T for one in (found, wanted))
    return _elements(1e-4, 1e-3)(there, here, X, y)


#: cuML's own: python/cuml/tests of release 26.10, by the file named (accel's integration tests compare with nothing).
PARITY = {
    "KMeans": Parity("labels_", _clusters, 0.01),  # test_kmeans
    # test_dbscan: equal but for points between clusters, of which there are none where clusters are far apart
    "DBSCAN": Parity("labels_", _clusters, 0.0),
    "HDBSCAN": Parity("labels_", _clusters, 0.05),  # test_hdbscan
    "hdbscan.HDBSCAN": Parity("labels_", _clusters, 0.05),  # test_hdbscan
    "SpectralClustering": Parity("labels_", _clusters, 0.2),  # test_spectral_clustering
    "EmpiricalCovariance": Parity("covariance_", _elements(1e-6, 1e-4), 1.0),  # test_empirical_covariance, float32
    "LedoitWolf": Parity("covariance_", _elements(1e-6, 1e-3), 1.0),  # test_ledoit_wolf, float32
    "PCA": Parity("transform", _components, 1e-4),  # test_pca
    "IncrementalPCA": Parity("transform", _components, 1e-4),  # test_incremental_pca
    "TruncatedSVD": Parity("transform", _components, 1e-4),  # test_tsvd
    "RandomForestClassifier": Parity("predict", _worse_by(accuracy_score), 0.07),  # test_random_forest
    "RandomForestRegressor": Parity("predict", _worse_by(r2_score), 0.07),  # test_random_forest
    "IsolationForest": Parity("score_samples", _uncorrelated, 0.5),  # test_isolation_forest
    "KernelRidge": Parity("predict", _elements(1e-2, 1e-2), 1.0),  # test_kernel_ridge
    "LinearRegression": Parity("predict", _share(0.1), 1e-4),  # test_linear_regression
    "LogisticRegression": Parity("predict", _worse_by(accuracy_score), 0.1),  # test_logistic_regression
    "Ridge": Parity("predict", _elements(1e-2, 0.0), 1.0),  # test_ridge
    "ElasticNet": Parity("predict", _worse_by(r2_score), 0.07),  # test_elastic_net
    "Lasso": Parity("predict", _worse_by(r2_score), 0.07),  # test_elastic_net
    "TSNE": Parity("embedding_", _less_trusted, 0.05),  # test_tsne
    # Of these two, theirs only set a floor, which is one for their data.
    "SpectralEmbedding": Parity("embedding_", _less_trusted, 0.05),
    "umap.UMAP": Parity("embedding_", _less_trusted, 0.05),
    "NearestNeighbors": Parity("kneighbors", _elements(5e-2, 0.1), 1.0),  # test_nearest_neighbors, of its own data
    "KNeighborsClassifier": Parity("predict", _share(0.0), 1e-4),  # test_kneighbors_classifier
    "KNeighborsRegressor": Parity("predict", _elements(1e-4, 1e-4), 1.0),  # test_kneighbors_regressor
    # test_kernel_density, but of logarithms: densities themselves are next to 0 in many dimensions
    "KernelDensity": Parity("score_samples", _elements(1e-3, 1e-3), 1.0),
    "OneHotEncoder": Parity("transform", _share(0.0), 0.0),  # test_one_hot_encoder
    "TargetEncoder": Parity("transform", _share(1e-4), 1e-4),  # test_target_encoder
    "LabelEncoder": Parity("transform", _share(0.0), 0.0),  # test_label_encoder
    "LabelBinarizer": Parity("transform", _share(0.0), 0.0),  # test_label_binarizer
    "SVC": Parity("predict", _other_accuracy, 1.0),  # test_svm
    "SVR": Parity("predict", _other_r2, 0.001),  # test_svm
    "LinearSVC": Parity("predict", _worse_by(accuracy_score), 0.05),  # test_linear_svm
    "LinearSVR": Parity("predict", _worse_by(r2_score), 0.05),  # test_linear_svm
    # What cuML does not have, and scikit-learn computes itself on the device, in single precision.
    "GaussianMixture": Parity("predict", _clusters, 0.01),
    "Nystroem": Parity("transform", _kernel, 1.0),
    "KernelCenterer": Parity("transform", _elements(1e-2, 1e-3), 1.0),
    "PoissonRegressor": Parity("predict", _worse_by(r2_score), 0.01),
}
#: And what else there is of that.
_NUMBERS, _LABELS = (_elements(1e-4, 1e-3), 1.0), (_share(0.0), 1e-3)


def parity_of(name: str) -> Parity:
    """Return what is compared of an estimator."""
    if name in PARITY:
        return PARITY[name]
    cls = objects.estimator_class(name)
    method = "predict" if hasattr(cls, "predict") else "transform"
    return Parity(method, *(_LABELS if is_classifier(cls()) else _NUMBERS))


def judge(name: str, found: Any, wanted: Any, X: Any, y: Any) -> dict[str, Any]:
    """Return how far a result is from scikit-learn's, and whether that is within the tolerance.

    Parameters
    ----------
    name : str
        Of the estimator.
    found, wanted : object
        Two fitted estimators, or what a method of theirs gave for X.
    X, y : array
        What was given.
    """
    X, y = X[:JUDGED], None if y is None else y[:JUDGED]
    parity = parity_of(name)
    if hasattr(found, "fit"):
        found, wanted = (_outcome(one, parity.of, X) for one in (found, wanted))
    found, wanted = _array(found), _array(wanted)
    figure = parity.measure(found, wanted, X, y) if found.shape == wanted.shape else np.inf
    return {"parity": figure, "tolerance": parity.tolerance, "within": bool(figure <= parity.tolerance)}


def _outcome(estimator: Any, of: str, X: Any) -> Any:
    value = getattr(estimator, of)
    return value(X) if callable(value) else value


def _array(value: Any) -> Any:
    value = (value[0] if isinstance(value, tuple) else value)[:JUDGED]
    return value.toarray() if scipy.sparse.issparse(value) else np.asarray(value)
