"""What scikit-learn 1.9 computes by the array API, and with which parameters.

scikit-learn's own tag ``array_api_support`` does not know it: it is unset for some estimators that have such a path,
and set for parameters that fail. So this table is held to be true by tests, against array-api-strict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from wsl_worker.engines.base import Fact

Parameters = Mapping[str, Any]
Facts = Mapping[str, Fact]
Objection = Callable[[Parameters, Facts], "str | None"]

#: Kinds of dtypes that stay in numpy.
TEXT = "OUSMmV"


class Entry(NamedTuple):
    """An estimator with an array-API path.

    Attributes
    ----------
    objection : callable or None
        Given the parameters and the facts about the arrays, returns in words why there is no such path, or None.
    without : str
        Methods, separated by spaces, that have none.
    text_labels : bool
        Whether y may be text.
    instead : (str, object, object) or None
        A parameter, a value of it for which scikit-learn warns that it takes another, and that other.
    """

    objection: Objection | None = None
    without: str = ""
    text_labels: bool = False
    instead: tuple[str, Any, Any] | None = None


def _only(**allowed: Any) -> Objection:
    """Object to values of parameters that are not among these."""

    def objection(parameters: Parameters, facts: Facts) -> str | None:
        for name, values in allowed.items():
            value = parameters.get(name, values[0])
            if not any(value is one or (type(value) is type(one) and value == one) for one in values):
                return f"its array-API path does not take {name}={value!r:.60}"
        return None

    return objection


def _pca(parameters: Parameters, facts: Facts) -> str | None:
    solver, components = parameters["svd_solver"], parameters["n_components"]
    if solver == "auto" and "X" in facts and len(facts["X"].shape) == 2:
        # As PCA.fit chooses.
        rows, columns = facts["X"].shape
        count = min(rows, columns) if components is None else components
        is_tall = columns <= 1000 and rows >= 10 * columns
        is_full = is_tall or max(rows, columns) <= 500 or count == "mle"
        solver = "full" if is_full or not 1 <= count < 0.8 * min(rows, columns) else "randomized"
    if solver == "arpack":
        return "its array-API path does not take svd_solver='arpack'"
    if solver == "randomized" and parameters["power_iteration_normalizer"] != "QR":
        return "with the randomized solver its array-API path wants power_iteration_normalizer='QR'"
    return None


def _standard_scaler(parameters: Parameters, facts: Facts) -> str | None:
    if not parameters["with_mean"] and not parameters["with_std"]:
        return "its array-API path does not count samples only"
    return None


def _classes(**allowed: Any) -> Objection:
    """Object to booleans as labels, which namespaces do not sort, and as `_only` does."""
    others = _only(**allowed)

    def objection(parameters: Parameters, facts: Facts) -> str | None:
        if "y" in facts and facts["y"].dtype == "|b1":
            return "its array-API path takes no y of booleans"
        return others(parameters, facts)

    return objection


_SOLVER = ("solver", "auto", "svd")

TABLE: dict[str, Entry] = {
    "PCA": Entry(_pca),
    "Nystroem": Entry(_only(kernel=("rbf", "linear", "poly", "polynomial", "sigmoid", "cosine", "laplacian"))),
    "LogisticRegression": Entry(_only(solver=("lbfgs",)), text_labels=True),
    "PoissonRegressor": Entry(_only(solver=("lbfgs",)), without="score"),
    "Ridge": Entry(_only(solver=("auto", "svd"), positive=(False,)), instead=_SOLVER),
    "RidgeClassifier": Entry(
        _classes(solver=("auto", "svd"), positive=(False,), class_weight=(None,)), text_labels=True, instead=_SOLVER
    ),
    "RidgeCV": Entry(_only(cv=(None,), scoring=(None,), alpha_per_target=(False,))),
    "RidgeClassifierCV": Entry(_classes(cv=(None,), scoring=(None,), class_weight=(None,)), text_labels=True),
    "LinearDiscriminantAnalysis": Entry(
        _classes(solver=("svd",), covariance_estimator=(None,), store_covariance=(False,))
    ),
    "GaussianNB": Entry(_classes(), text_labels=True),
    "GaussianMixture": Entry(_only(init_params=("random", "random_from_data"), warm_start=(False,))),
    "StandardScaler": Entry(_standard_scaler),
    "MinMaxScaler": Entry(),
    "MaxAbsScaler": Entry(),
    "Normalizer": Entry(),
    "Binarizer": Entry(),
    "KernelCenterer": Entry(),
    "PolynomialFeatures": Entry(_only(order=("C",))),
    "LabelEncoder": Entry(_classes()),
    "LabelBinarizer": Entry(_classes(sparse_output=(False,))),
}
