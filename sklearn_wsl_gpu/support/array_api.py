"""What scikit-learn 1.9 computes by the array API, and with which parameters.

scikit-learn's own tag ``array_api_support`` does not know it: it is unset for some estimators that have such a path,
and set for parameters that fail. So this table is held to be true by tests, against array-api-strict and PyTorch.

References
----------
https://scikit-learn.org/1.9/modules/array_api.html
"""

from __future__ import annotations

from sklearn_wsl_gpu.support.entry import Entry, Limit, Release, only
from sklearn_wsl_gpu.support.request import Request

#: dtypes that every namespace has.
DTYPES = frozenset({"bool", "int8", "int16", "int32", "int64", "uint8", "float32", "float64"})


def _pca(request: Request) -> str | None:
    solver, components = request.parameters["svd_solver"], request.parameters["n_components"]
    X = request.facts.get("X")
    if solver == "auto" and X is not None and len(X.shape) == 2:
        # As PCA.fit chooses.
        rows, columns = X.shape
        count = min(rows, columns) if components is None else components
        is_tall = columns <= 1000 and rows >= 10 * columns
        is_full = is_tall or max(rows, columns) <= 500 or count == "mle"
        solver = "full" if is_full or not 1 <= count < 0.8 * min(rows, columns) else "randomized"
    if solver == "arpack":
        return "svd_solver='arpack' is not supported"
    if solver == "randomized" and request.parameters["power_iteration_normalizer"] != "QR":
        return "the randomized solver wants power_iteration_normalizer='QR'"
    return None


def _standard_scaler(request: Request) -> str | None:
    counts_only = not request.parameters["with_mean"] and not request.parameters["with_std"]
    return "counting samples only is not supported" if counts_only else None


def _boolean_labels(request: Request) -> str | None:
    is_boolean = "y" in request.facts and request.facts["y"].dtype == "|b1"
    return "y of booleans is not taken, for namespaces do not sort them" if is_boolean else None


_LABELS = Limit("y not boolean", _boolean_labels)


#: Its path for these is held to be right in this release, and is not there or other in earlier ones.
_RELEASE = Release("scikit-learn", (1, 9))


def _entry(*limits: Limit, without: str = "", text: str = "") -> Entry:
    return Entry(limits, without, text=text, dtypes=DTYPES, releases=(_RELEASE,))


TABLE: dict[str, Entry] = {
    "PCA": _entry(Limit("svd_solver not 'arpack'; for the randomized solver power_iteration_normalizer='QR'", _pca)),
    "Nystroem": _entry(only(kernel=("rbf", "linear", "poly", "polynomial", "sigmoid", "cosine", "laplacian"))),
    "LogisticRegression": _entry(only(solver=("lbfgs",)), text="y"),
    "PoissonRegressor": _entry(only(solver=("lbfgs",)), without="score"),
    "Ridge": _entry(only(solver=("auto", "svd"), positive=(False,))),
    "RidgeClassifier": _entry(_LABELS, only(solver=("auto", "svd"), positive=(False,), class_weight=(None,)), text="y"),
    "RidgeCV": _entry(only(cv=(None,), scoring=(None,), alpha_per_target=(False,))),
    "RidgeClassifierCV": _entry(_LABELS, only(cv=(None,), scoring=(None,), class_weight=(None,)), text="y"),
    "LinearDiscriminantAnalysis": _entry(
        _LABELS, only(solver=("svd",), covariance_estimator=(None,), store_covariance=(False,))
    ),
    "GaussianNB": _entry(_LABELS, text="y"),
    "GaussianMixture": _entry(only(init_params=("random", "random_from_data"), warm_start=(False,))),
    "StandardScaler": _entry(Limit("with_mean or with_std", _standard_scaler)),
    "MinMaxScaler": _entry(),
    "MaxAbsScaler": _entry(),
    "Normalizer": _entry(),
    "Binarizer": _entry(),
    "KernelCenterer": _entry(),
    "PolynomialFeatures": _entry(only(order=("C",))),
    "LabelEncoder": _entry(_LABELS),
    "LabelBinarizer": _entry(_LABELS, only(sparse_output=(False,))),
}
