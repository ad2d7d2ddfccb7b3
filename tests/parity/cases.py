"""Data for every row of the table, and one function that does all that a row can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
from sklearn.base import is_classifier
from sklearn.utils.validation import has_fit_parameter

from sklearn_wsl_gpu import offload
from sklearn_wsl_gpu.estimators import METHODS, ROWS

_random = np.random.default_rng(20)
#: Three groups of points with whole coordinates, so that every input kind holds the same values.
X = (_random.normal(size=(60, 6)) * 4).round() + np.repeat([[0.0], [3.0], [9.0]], 20, axis=0)
CATEGORIES = _random.integers(0, 4, size=(60, 3)).astype("f8")
CLASSES = np.repeat(np.arange(3, dtype="i8"), 20)
NUMBERS = X @ np.arange(6.0) + _random.normal(size=60)
WEIGHTS = _random.uniform(0.5, 2, size=60)


def _column_names(data: Any) -> list[str]:
    return [f"column {at}" for at in range(data.shape[1])]


# They are imported where they are used: there are systems where one of them does not load.
def _of_polars(data: Any) -> Any:
    import polars as pl

    return pl.Series("label", data) if data.ndim == 1 else pl.DataFrame(data, schema=_column_names(data))


def _of_pyarrow(columns: Any, names: Any) -> Any:
    import pyarrow as pa

    return pa.table(columns, names=names)


def _pyarrow_array(labels: Any) -> Any:
    import pyarrow as pa

    return pa.array(labels)


INPUTS: dict[str, Callable[[Any], Any]] = {
    "float64": lambda data: data,
    "float32": lambda data: data.astype("f4"),
    "int64": lambda data: data.astype("i8"),
    "fortran": np.asfortranarray,
    "strided": lambda data: np.repeat(data, 2, axis=0)[::2],
    "list": lambda data: data.tolist(),
    "pandas": lambda data: pd.DataFrame(data, columns=_column_names(data)),
    "polars": _of_polars,
    "pyarrow": lambda data: _of_pyarrow(list(data.T), _column_names(data)),
    "polars, float32": lambda data: _of_polars(data.astype("f4")),
    "pyarrow, mixed": lambda data: _of_pyarrow(
        [data[:, 0].astype("i8"), data[:, 1].astype("f4"), *data[:, 2:].T], _column_names(data)
    ),
    "sparse": scipy.sparse.csr_matrix,
}

LABELS: dict[str, Callable[[Any], Any]] = {
    "int64": lambda labels: labels,
    "float64": lambda labels: labels.astype("f8"),
    "bool": lambda labels: labels > 1,
    "str": lambda labels: np.array(["red", "green", "blue"])[labels],
    "object": lambda labels: np.array(["red", "green", "blue"], dtype=object)[labels],
    "list": lambda labels: labels.tolist(),
    "pandas": lambda labels: pd.Series(labels, name="label"),
    "polars": _of_polars,
    "pyarrow": _pyarrow_array,
}

PARAMETERS: dict[str, dict[str, Any]] = {
    "TSNE": {"perplexity": 5, "max_iter": 250, "method": "exact"},
    "RandomForestClassifier": {"n_estimators": 4},
    "RandomForestRegressor": {"n_estimators": 4},
    "IsolationForest": {"n_estimators": 4},
    "KMeans": {"n_clusters": 3},
    "SpectralClustering": {"n_clusters": 3},
    "DBSCAN": {"eps": 7.0},
    "PCA": {"n_components": 3},
    "IncrementalPCA": {"n_components": 3, "batch_size": 20},
    "OneHotEncoder": {"handle_unknown": "ignore"},
    "SVC": {"probability": True},
    "GaussianMixture": {"n_components": 2},
    "Nystroem": {"n_components": 20},
    "Binarizer": {"threshold": 2.0},
}

#: Methods of estimators that take sparse input elsewhere.
DENSE_ONLY = {("PCA", "score"), ("PCA", "score_samples"), ("IncrementalPCA", "partial_fit")}


def make(name: str, **parameters: Any) -> Any:
    """Return an estimator of a row, seeded."""
    row = ROWS[name]
    assert row.cls is not None
    seed = {"random_state": 0} if "random_state" in row.parameters else {}
    return row.cls(**{**seed, **PARAMETERS.get(name, {}), **parameters})


def takes_labels(name: str) -> bool:
    return not ROWS[name].named


def data_for(name: str) -> tuple[Any, Any]:
    """Return X and y that a row can be fitted on."""
    if name in ("OneHotEncoder", "TargetEncoder"):
        return CATEGORIES, NUMBERS
    if name == "KernelCenterer":
        return X @ X.T, NUMBERS
    if name == "PoissonRegressor":
        return X, np.abs(NUMBERS)
    return X, CLASSES if is_classifier(make(name)) else NUMBERS


def kinds_for(name: str, method: str) -> list[str]:
    """Return the input kinds that scikit-learn takes for a method."""
    if takes_labels(name):
        return list(LABELS)
    tags = make(name).__sklearn_tags__()
    refused = set() if tags.input_tags.sparse and (name, method) not in DENSE_ONLY else {"sparse"}
    if name == "TSNE":
        refused.add("list")
    if not ROWS[name].checks_input(method, make(name)):
        refused |= {kind for kind in INPUTS if kind.startswith(("pandas", "polars", "pyarrow"))}
    return [kind for kind in INPUTS if kind not in refused]


def _as_given(found: Any, data: Any) -> Any:
    """Return transformed data as the kind of table that the data came in, if that was one."""
    if scipy.sparse.issparse(found) or not hasattr(data, "columns"):
        return found
    return INPUTS[type(data).__module__.partition(".")[0]](found)


def arguments(name: str, method: str, data: Any, target: Any, fitted: Any) -> tuple[Any, ...]:
    """Return what a method is called with."""
    if method == "error_norm":
        return (np.eye(6),)
    if method == "inverse_transform":
        return (_as_given(fitted.transform(data), data),)
    if takes_labels(name) or target is None:
        return (data,)
    return (data, target) if METHODS[method].fits or method == "score" else (data,)


def demanded(name: str, method: str) -> dict[str, Any]:
    """Return the keywords that a method cannot do without."""
    return {"classes": np.unique(CLASSES)} if (name, method) == ("GaussianNB", "partial_fit") else {}


def do(
    name: str, method: str, data: Any, target: Any, weights: Any = None, parameters: Mapping[str, Any] | None = None
) -> tuple[Any, Any]:
    """Return what a method gives, and the estimator as it is afterwards."""
    estimator = make(name, **(parameters or {}))
    keywords = demanded(name, method)
    if weights is not None and has_fit_parameter(estimator, "sample_weight"):
        keywords["sample_weight"] = weights
    if not METHODS[method].fits:
        estimator.fit(*arguments(name, "fit", data, target, None), **keywords)
        keywords = {}
    value = getattr(estimator, method)(*arguments(name, method, data, target, estimator), **keywords)
    return ("itself" if value is estimator else value), estimator


def possible_methods(name: str, data: Any, target: Any, parameters: Mapping[str, Any]) -> list[str]:
    """Return the methods that scikit-learn itself can do with these parameters and data; `fit` is one of them."""
    do(name, "fit", copy(data), copy(target), parameters=parameters)
    found = []
    for method in ROWS[name].method_names:
        with suppress(AttributeError, NotImplementedError, TypeError, ValueError):
            do(name, method, copy(data), copy(target), parameters=parameters)
            found.append(method)
    return found


@contextmanager
def on_the_worker(*, whole: bool = False) -> Iterator[None]:
    """Offload, and insist on it: a call that was done here is an error, and so is one in parts, if so wanted."""
    with offload(fallback="raise") as session:
        yield
    calls = session.report().calls
    assert calls
    wanted = {"worker"} if whole else {"worker", "in parts"}
    assert {call.where for call in calls} <= wanted, [call for call in calls if call.where not in wanted]
    assert "worker" in {call.where for call in calls}
