"""Whole graphs, searches and metrics on a GPU: worth what they are here, in as many calls, with the data sent once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, pairwise_distances
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC

import sklearn_wsl_gpu
from sklearn_wsl_gpu import offload
from wsl_worker.engines.devices import count_gpus

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not count_gpus(), reason="CUDA shows no GPU here"),
    pytest.mark.filterwarnings("ignore"),
]


def _classes(rows: int) -> Any:
    return make_classification(rows, 12, n_informative=8, n_classes=3, class_sep=2.0, random_state=0)


X, Y = _classes(2_000)
NAMES = np.array(["red", "green", "blue"])[Y]

GRAPHS_HERE: dict[str, Any] = {
    "by array_api": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "by both": lambda: make_pipeline(StandardScaler(), PCA(6, svd_solver="full"), KNeighborsClassifier()),
    "classes": lambda: make_pipeline(MinMaxScaler(), SVC()),
    "a forest": lambda: make_pipeline(StandardScaler(), RandomForestClassifier(20, random_state=0)),
    "a union": lambda: make_pipeline(
        make_union(PCA(4, svd_solver="full"), TruncatedSVD(3, random_state=0)), LogisticRegression()
    ),
    "columns": lambda: make_pipeline(
        make_column_transformer((StandardScaler(), [0, 1, 2]), ("passthrough", [3]), remainder=MinMaxScaler()),
        KNeighborsClassifier(),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _gpu_worker() -> Iterator[None]:
    yield
    sklearn_wsl_gpu.shutdown()


@pytest.mark.usefixtures("shared_worker")
@pytest.mark.parametrize("name", GRAPHS_HERE)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("rows", [500, 2_000, 8_000])
def test_a_graph_on_the_gpu_is_worth_one_here(name: str, dtype: str, rows: int) -> None:
    data, labels = _classes(rows)
    data, names = data.astype(dtype), np.array(["red", "green", "blue"])[labels]
    local = GRAPHS_HERE[name]().fit(data, names)
    with offload(fallback="raise") as session:
        remote = GRAPHS_HERE[name]().fit(data, names)
        found = remote.predict(data)

    assert np.mean(found == local.predict(data)) > 0.97
    assert [(call.estimator, call.where) for call in session.report().calls] == [("Pipeline", "worker")] * 2
    assert type(remote[0]) is type(local[0])


@pytest.mark.usefixtures("shared_worker")
def test_a_search_on_the_gpu_is_worth_one_here_and_sends_its_data_once() -> None:
    many, sides = np.repeat(X, 20, axis=0).astype("f4"), np.repeat(Y, 20)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), PCA(svd_solver="full"), LogisticRegression()),
        {"pca__n_components": [4, 8], "logisticregression__C": np.logspace(-2, 2, 10).tolist()},
    )
    local = clone(search).fit(many, sides)
    with offload(fallback="raise") as session:
        remote = clone(search).fit(many, sides)
    calls = session.report().calls

    np.testing.assert_allclose(remote.cv_results_["mean_test_score"], local.cv_results_["mean_test_score"], atol=0.005)
    assert [call.method for call in calls] == ["fit_and_score", "fit"]
    assert sum(call.bytes_sent for call in calls) <= 1.05 * (many.nbytes + sides.nbytes)


@pytest.mark.usefixtures("shared_worker")
def test_cross_validations_on_the_gpu_are_worth_those_here() -> None:
    model = GRAPHS_HERE["by both"]()
    local = cross_val_score(model, X, Y), cross_val_predict(model, X, NAMES)
    with offload(fallback="quiet"):
        remote = cross_val_score(model, X, Y), cross_val_predict(model, X, NAMES)

    np.testing.assert_allclose(remote[0], local[0], atol=0.01)
    assert np.mean(remote[1] == local[1]) > 0.97


@pytest.mark.usefixtures("shared_worker")
def test_metrics_on_the_gpu_are_those_here() -> None:
    expected = f1_score(Y, Y[::-1], average="macro"), pairwise_distances(X[:200])
    with offload(fallback="raise") as session:
        StandardScaler().fit(X)
        found = f1_score(Y, Y[::-1], average="macro"), pairwise_distances(X[:200])

    assert found[0] == pytest.approx(expected[0])
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)
    assert [call.method for call in session.report().calls] == ["fit", "f1_score", "pairwise_distances"]
