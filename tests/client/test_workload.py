"""What of a call its costs depend on: read from shapes and parameters alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sklearn_wsl_gpu import workload
from sklearn_wsl_gpu.config import Settings
from sklearn_wsl_gpu.estimators import GRAPHS, ROWS
from sklearn_wsl_gpu.invocation import Invocation
from sklearn_wsl_gpu.predictions import Work

X = np.zeros((100, 4))


def of(model: Any, method: str, *args: Any, settings: Settings | None = None) -> Work:
    name = type(model).__name__
    row = ROWS.get(name) or GRAPHS[name]
    return workload.of_call(
        settings or Settings(), Invocation(row, method, getattr(type(model), method), model, args, {})
    )


class Opaque:
    """Data that nobody may look into."""

    shape = (1000, 8)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise AssertionError

    __getitem__ = __len__ = __iter__ = __array__


@pytest.mark.parametrize(
    ("data", "columns", "nbytes"),
    [
        (X, 4, 3200), (X.astype(np.float32), 4, 1600), (X[:, 0], 1, 800), (X[:0], 4, 0), (np.zeros(()), 1, 8),
        (pd.DataFrame(X, columns=["shape", "nbytes", "nnz", "dtype"]), 4, 3200),
        (scipy.sparse.eye(50, format="csr"), 50, 600),
        ([[1, 2], [3, 4], [5, 6]], 2, 48), ([1, 2, 3], 1, 24), ([], 1, 0), (None, 1, 0), (Opaque(), 8, 64_000),
    ],
)  # fmt: skip
def test_size_and_width_are_those_of_the_data(data: Any, columns: int, nbytes: int) -> None:
    work = of(StandardScaler(), "fit", data)

    assert (work.columns, work.nbytes, work.size) == (columns, nbytes, max(nbytes, 8))


def test_parameters_that_multiply_the_work_count() -> None:
    assert of(RandomForestClassifier(n_estimators=50), "fit", X).size == 50 * X.nbytes
    assert of(KMeans(8, n_init=3), "fit", X).size == 24 * X.nbytes
    assert of(make_pipeline(StandardScaler(), KMeans(8, n_init=3)), "fit", X).size == 24 * X.nbytes


def test_a_prediction_counts_the_rows_that_the_model_looks_at() -> None:
    model = KNeighborsClassifier().fit(X, X[:, 0] > 1)

    assert of(model, "predict", X[:10]).size == 100 * X[:10].nbytes
    assert of(model, "fit", X).size == X.nbytes


def test_another_algorithm_is_another_kind() -> None:
    assert of(SVC(), "fit", X).kind == "SVC.fit kernel=rbf"
    assert of(SVC(kernel="linear"), "fit", X).kind == "SVC.fit kernel=linear"
    assert of(SVC(kernel=np.dot), "fit", X).kind == "SVC.fit"
    assert of(RandomForestClassifier(n_jobs=-1), "fit", X).kind == "RandomForestClassifier.fit n_jobs=-1"


def test_a_graph_is_named_with_its_parts() -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression())

    assert of(model, "fit", X).kind == "Pipeline(StandardScaler,LogisticRegression).fit"
    work = workload.of_fits(Settings(), "fit_and_score", model, X, 15, 2)
    assert (work.kind, work.size) == (
        "Pipeline(StandardScaler,LogisticRegression).fit_and_score jobs=2", 15 * X.nbytes,
    )  # fmt: skip


def test_places_are_told_apart_by_what_was_asked_for() -> None:
    asked = [Settings(), Settings(engine="cuml"), Settings(device="cuda:1"), Settings(endpoint="tcp://127.0.0.1:5555")]
    works = [of(StandardScaler(), "fit", X, settings=settings) for settings in asked]

    assert len({work.place for work in works}) == 4
    assert [work.engine for work in works] == ["", "cuml", "", ""]
    assert [work.child for work in works] == [True, True, True, False]
