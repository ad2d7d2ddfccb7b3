"""Estimators that are made of others go to the worker as one call, and come back as scikit-learn leaves them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn import calibration
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline, make_union
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC, LinearSVC

from sklearn_wsl_gpu import offload
from sklearn_wsl_gpu.estimators import GRAPHS, METHODS, walk
from sklearn_wsl_gpu.testing import first_difference
from tests.parity.cases import CATEGORIES, CLASSES, NUMBERS, X, on_the_worker

pytestmark = pytest.mark.usefixtures("shared_worker")

WORDS = np.array(["red", "green", "blue"])[CLASSES]
SPARSE = scipy.sparse.csr_matrix(X)

FRAME = pd.DataFrame(X, columns=list("abcdef"))
MIXED = FRAME.assign(b=CLASSES, word=WORDS, flag=CLASSES > 1, object=pd.Series(WORDS, dtype="object"))

GRAPHS_OF_ALL_KINDS: dict[str, tuple[Callable[[], Any], Any, Any]] = {
    "scaler and classifier": (lambda: make_pipeline(StandardScaler(), LogisticRegression()), X, CLASSES),
    "labels that are text": (lambda: make_pipeline(StandardScaler(), SVC(probability=True, random_state=0)), X, WORDS),
    "transformers only": (lambda: make_pipeline(MinMaxScaler(), PCA(2, random_state=0)), X, None),
    "a clusterer at the end": (lambda: make_pipeline(StandardScaler(), KMeans(3, random_state=0)), X, None),
    "passthrough": (lambda: Pipeline([("a", "passthrough"), ("b", KNeighborsClassifier())]), X, CLASSES),
    "passthrough at the end": (lambda: Pipeline([("a", StandardScaler()), ("b", "passthrough")]), X, None),
    "sparse": (lambda: make_pipeline(TruncatedSVD(2, random_state=0), Ridge()), SPARSE, NUMBERS),
    "lists": (lambda: make_pipeline(StandardScaler(), Ridge()), X.tolist(), NUMBERS.tolist()),
    "a forest": (lambda: make_pipeline(PCA(3), RandomForestClassifier(4, random_state=0)), X, CLASSES),
    "no random state": (lambda: make_pipeline(PCA(3), RandomForestClassifier(4)), X, CLASSES),
    "a shared random state": (
        lambda: make_pipeline(PCA(3, random_state=(state := np.random.RandomState(3))), KMeans(3, random_state=state)),
        X,
        None,
    ),
    "a union": (lambda: make_union(PCA(2, random_state=0), MinMaxScaler()), X, None),
    "a union with weights": (
        lambda: FeatureUnion(
            [("a", PCA(2)), ("b", "drop"), ("c", MinMaxScaler())], transformer_weights={"a": 2.0},
        ),
        X,
        None,
    ),
    "pipelines in a union in a pipeline": (
        lambda: make_pipeline(
            StandardScaler(), make_union(PCA(2), make_pipeline(MinMaxScaler(), PolynomialFeatures())), Ridge()
        ),
        X,
        NUMBERS,
    ),
    "columns": (
        lambda: ColumnTransformer([("a", StandardScaler(), [0, 1]), ("b", OneHotEncoder(), [2])], remainder="drop"),
        CATEGORIES,
        None,
    ),
    "columns of all kinds": (
        lambda: ColumnTransformer(
            [("a", StandardScaler(), slice(0, 2)), ("b", "passthrough", [2]), ("c", PCA(1), np.array([3, 4])),
             ("d", "drop", 5), ("e", MinMaxScaler(), [])],
            remainder="passthrough",
        ),
        X,
        None,
    ),
    "a table": (lambda: make_pipeline(StandardScaler(), LogisticRegression()), FRAME, CLASSES),
    "a table and its target": (lambda: make_pipeline(MinMaxScaler(), Ridge()), FRAME, pd.Series(NUMBERS, name="y")),
    "columns of a table": (
        lambda: make_pipeline(
            ColumnTransformer(
                [("a", StandardScaler(), ["a", "c"]), ("b", OneHotEncoder(), ["word", "object"]), ("c", PCA(1), [3])],
                remainder="passthrough",
            ),
            RandomForestClassifier(4, random_state=0),
        ),
        MIXED,
        CLASSES,
    ),
    "a table of float32 in rows": (
        lambda: ColumnTransformer([("a", PCA(2, random_state=0), ["a", "c", "f"])], remainder=MinMaxScaler()),
        pd.DataFrame(X.astype("f4"), columns=list("abcdef")),
        None,
    ),
    "columns and the rest": (
        lambda: make_pipeline(
            ColumnTransformer([("a", PCA(1), [True, True, False, False, False, False])], remainder=MinMaxScaler()),
            LogisticRegression(),
        ),
        X,
        CLASSES,
    ),
    "a calibration": (lambda: CalibratedClassifierCV(SVC(), cv=3), X, CLASSES),
    "a calibration of two classes": (lambda: CalibratedClassifierCV(LinearSVC(random_state=0)), X, CLASSES > 1),
    "a calibration of the whole": (
        lambda: CalibratedClassifierCV(RandomForestClassifier(4, random_state=0), ensemble=False), X, WORDS,
    ),
    "a calibration of a pipeline": (
        lambda: CalibratedClassifierCV(make_pipeline(StandardScaler(), LogisticRegression())), FRAME, CLASSES,
    ),
    "a calibration in a pipeline": (
        lambda: make_pipeline(StandardScaler(), CalibratedClassifierCV(GaussianNB())), X, CLASSES,
    ),
    **(
        {
            "a temperature": (lambda: CalibratedClassifierCV(SVC(), method="temperature"), X, CLASSES),
            "a temperature of probabilities": (
                lambda: CalibratedClassifierCV(GaussianNB(), method="temperature", ensemble=False), X, WORDS,
            ),
        }
        if hasattr(calibration, "_TemperatureScaling")  # from scikit-learn 1.8 on
        else {}
    ),
}  # fmt: skip


def _methods(estimator: Any) -> list[str]:
    return [method for method in GRAPHS[type(estimator).__name__].method_names if hasattr(estimator, method)]


def _do(make: Callable[[], Any], method: str, data: Any, target: Any) -> tuple[Any, Any]:
    np.random.seed(7)
    estimator = make()
    with_target = METHODS[method].fits or method == "score"
    if METHODS[method].fits:
        value = getattr(estimator, method)(data, target)
        return ("itself" if value is estimator else value), (estimator, np.random.random())
    estimator.fit(data, target)
    given = estimator.transform(data) if method == "inverse_transform" else data
    arguments = (given, target) if with_target and target is not None else (given,)
    return getattr(estimator, method)(*arguments), (estimator, np.random.random())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", GRAPHS_OF_ALL_KINDS)
def test_every_method_of_a_graph_gives_the_same_in_one_call(name: str) -> None:
    make, data, target = GRAPHS_OF_ALL_KINDS[name]
    fitted = make().fit(data, target)
    compared = 0
    for method in _methods(fitted):
        try:
            local = _do(make, method, data, target)
        except (ValueError, AttributeError, TypeError):
            continue  # such as a score without a target
        with on_the_worker(whole=True):
            remote = _do(make, method, data, target)
        assert first_difference(local[0], remote[0], method) is None
        assert first_difference(local[1][0], remote[1][0], name) is None
        assert local[1][1] == remote[1][1], "the global random state is another afterwards"
        compared += 1
    assert compared >= 2


def test_the_parts_stay_the_objects_that_they_were() -> None:
    pipeline = GRAPHS_OF_ALL_KINDS["pipelines in a union in a pipeline"][0]()
    parts = [part for _, part in walk(GRAPHS["Pipeline"], vars(pipeline))]
    steps, before = pipeline.steps, list(pipeline.steps)
    lists = pipeline.steps[1][1].transformer_list

    with on_the_worker(whole=True):
        pipeline.fit(X, NUMBERS)

    assert [part for _, part in walk(GRAPHS["Pipeline"], vars(pipeline))] == parts
    assert pipeline.steps is not steps  # so says scikit-learn: the list that the user gave stays as it is
    assert all(one is other for one, other in zip(pipeline.steps, before, strict=True))
    assert pipeline.steps[1][1].transformer_list is lists
    assert parts[-1].coef_.shape == pipeline[-1].coef_.shape


def test_what_a_user_has_noted_on_a_part_stays() -> None:
    scaler = StandardScaler()
    scaler.note = "mine"

    with on_the_worker(whole=True):
        make_pipeline(scaler, Ridge()).fit(X, NUMBERS)

    assert scaler.note == "mine"
    assert scaler.mean_.shape == (6,)


@pytest.mark.parametrize("name", ["scaler and classifier", "columns and the rest", "a union"])
def test_a_graph_that_is_fitted_again_is_as_one_that_is_fitted_again_here(name: str) -> None:
    make, data, target = GRAPHS_OF_ALL_KINDS[name]
    local = clone(make()).fit(FRAME, target).fit(data[:, ::-1], target)
    remote = make().fit(FRAME, target)

    with on_the_worker(whole=True):
        remote.fit(data[:, ::-1], target)
        found = remote.transform(data) if hasattr(remote, "transform") else remote.predict(data)

    assert first_difference(local, remote, name) is None
    expected = local.transform(data) if hasattr(local, "transform") else local.predict(data)
    assert first_difference(expected, found, "result") is None


def test_a_fitted_graph_is_kept_by_the_worker_until_a_part_of_it_changes() -> None:
    pipeline = make_pipeline(StandardScaler(), Ridge())
    with on_the_worker(whole=True):
        pipeline.fit(X, NUMBERS)
    with on_the_worker(whole=True), offload() as session:
        first = pipeline.predict(X)
        pipeline[-1].coef_[:] = 0.0
        second = pipeline.predict(X)
    sent = [call.bytes_sent for call in session.report().calls]

    assert sent[0] < sent[1]
    assert np.ptp(first) > 0
    assert np.ptp(second) == 0


@pytest.mark.falls_back
def test_a_fit_on_a_table_knows_its_columns_and_says_so() -> None:
    local = GRAPHS_OF_ALL_KINDS["a table"][0]().fit(FRAME, CLASSES)
    remote = GRAPHS_OF_ALL_KINDS["a table"][0]()
    with on_the_worker(whole=True):
        remote.fit(FRAME, CLASSES)
    with offload(fallback="quiet"), pytest.raises(ValueError, match="feature names should match"):
        remote.predict(FRAME.rename(columns={"a": "z"}))
    with on_the_worker(whole=True), pytest.warns(UserWarning, match="X does not have valid feature names"):
        remote.predict(X)

    assert first_difference(local, remote) is None
    np.testing.assert_array_equal(remote.feature_names_in_, list("abcdef"))
