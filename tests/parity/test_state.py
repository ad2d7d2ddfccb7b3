"""A remotely fitted estimator is an ordinary one: complete, without a trace, and always up to date."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.cluster import KMeans
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import Lasso, LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsRegressor, NearestNeighbors
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sklearn_wsl_gpu import offload
from sklearn_wsl_gpu.estimators import ROWS
from sklearn_wsl_gpu.testing import first_difference
from tests.parity.cases import CLASSES, NUMBERS, X, arguments, data_for, make, on_the_worker

pytestmark = [pytest.mark.usefixtures("shared_worker"), pytest.mark.filterwarnings("ignore")]


def _fitted(name: str) -> BaseEstimator:
    data, target = data_for(name)
    return make(name).fit(*arguments(name, "fit", CLASSES if not ROWS[name].named else data, target, None))


@pytest.mark.parametrize("name", ROWS)
def test_a_remote_fit_leaves_what_a_local_one_leaves(name: str) -> None:
    local = _fitted(name)
    with on_the_worker():
        remote = _fitted(name)

    assert first_difference(local, remote, name) is None


@pytest.mark.parametrize("name", ROWS)
def test_copies_parameters_and_repr_are_those_of_a_local_fit(name: str) -> None:
    local = _fitted(name)
    with on_the_worker():
        remote = _fitted(name)
        inside = repr(remote), first_difference(clone(local), clone(remote))

    assert inside == (repr(local), None)
    assert repr(remote) == repr(local)
    assert first_difference(local.get_params(), remote.get_params()) is None
    assert first_difference(local, copy.deepcopy(remote)) is None
    assert first_difference(local, pickle.loads(pickle.dumps(remote))) is None
    assert pickle.dumps(remote).find(b"sklearn_wsl_gpu") == -1


@pytest.mark.parametrize(
    "estimator",
    [
        KMeans(3, init=X[:3].copy(), n_init=1, random_state=np.random.RandomState(3)),
        LogisticRegression(class_weight={0: 1.5, 1: 1.0, 2: 3.0}),
        OneHotEncoder(categories=[[-3.0, 1.0]] * 6, handle_unknown="ignore", dtype=np.dtype("f4")),
        NearestNeighbors(metric="seuclidean", metric_params={"V": np.ones(6)}),
        Lasso(precompute=X.T @ X),
    ],
)
def test_parameters_are_the_identical_objects_after_a_fit(estimator: BaseEstimator) -> None:
    before = estimator.get_params()

    with on_the_worker():
        estimator.fit(X, CLASSES)

    assert {key: value for key, value in estimator.get_params().items() if value is not before[key]} == {}


def test_an_attribute_of_the_users_own_stays_on_the_estimator() -> None:
    estimator = LinearRegression()
    estimator.note = mark = object()

    with on_the_worker():
        estimator.fit(X, NUMBERS)

    assert estimator.note is mark


def test_a_refit_without_column_names_forgets_them() -> None:
    frame = pd.DataFrame(X, columns=list("abcdef"))
    with on_the_worker():
        estimator = StandardScaler().fit(frame)
        assert list(estimator.feature_names_in_) == list("abcdef")
        estimator.fit(X[:, :4])

    assert not hasattr(estimator, "feature_names_in_")
    assert first_difference(StandardScaler().fit(X[:, :4]), estimator) is None


@pytest.mark.parametrize("name", ["StandardScaler", "MinMaxScaler", "MaxAbsScaler", "IncrementalPCA"])
def test_partial_fits_continue_wherever_they_are_done(name: str) -> None:
    local, remote, mixed = make(name), make(name), make(name)
    for part in (X[:25], X[25:40], X[40:]):
        local.partial_fit(part)
        with on_the_worker():
            remote.partial_fit(part)
    mixed.partial_fit(X[:25])
    with on_the_worker():
        mixed.partial_fit(X[25:40])
    mixed.partial_fit(X[40:])

    assert first_difference(local, remote) is None
    assert first_difference(local, mixed) is None


@pytest.mark.parametrize("name", ["StandardScaler", "IncrementalPCA", "KMeans", "SVC", "KNeighborsClassifier"])
def test_a_second_fit_starts_anew(name: str) -> None:
    estimator = make(name)
    with on_the_worker():
        estimator.fit(X[:30], CLASSES[:30] % 2)
        estimator.fit(X, CLASSES)

    assert first_difference(make(name).fit(X, CLASSES), estimator) is None


@pytest.mark.parametrize("fit_here_first", [False, True])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("RandomForestClassifier", {"n_estimators": 7}),
        ("RandomForestRegressor", {"n_estimators": 7}),
        ("IsolationForest", {"n_estimators": 7}),
        ("Lasso", {"alpha": 0.1}),
        ("ElasticNet", {"alpha": 0.1}),
        ("LogisticRegression", {"C": 0.1}),
    ],
)
def test_a_warm_start_goes_on_from_the_first_fit(name: str, change: dict[str, Any], fit_here_first: bool) -> None:
    data, target = data_for(name)
    local = make(name, warm_start=True).fit(data, target).set_params(**change).fit(data, target)

    remote = make(name, warm_start=True)
    if fit_here_first:
        remote.fit(data, target)
    with on_the_worker():
        remote.fit(data, target) if not fit_here_first else None
        remote.set_params(**change).fit(data, target)

    assert first_difference(local, remote) is None


def _change_threshold(forest: RandomForestClassifier) -> None:
    forest.estimators_[0].tree_.threshold[0] -= 4


CHANGES: dict[str, tuple[str, Callable[[Any], None]]] = {
    "coef_ in place": ("LogisticRegression", lambda est: np.multiply(est.coef_, -2, out=est.coef_)),
    "coef_ anew": ("Ridge", lambda est: setattr(est, "coef_", est.coef_[::-1].copy())),
    "intercept_": ("LinearRegression", lambda est: setattr(est, "intercept_", est.intercept_ + 1)),
    "cluster_centers_": ("KMeans", lambda est: est.cluster_centers_.__setitem__(slice(None), X[-3:])),
    "tree_": ("RandomForestClassifier", _change_threshold),
    "a tree removed": ("RandomForestClassifier", lambda est: est.estimators_.pop()),
    "classes_": ("LogisticRegression", lambda est: setattr(est, "classes_", est.classes_ + 10)),
    "a parameter": ("KNeighborsClassifier", lambda est: est.set_params(n_neighbors=1)),
    "weights": ("KNeighborsRegressor", lambda est: est.set_params(weights="distance")),
    "components_": ("PCA", lambda est: est.components_.__imul__(-1)),
    "mean_": ("StandardScaler", lambda est: est.mean_.__iadd__(3)),
    "a switch": ("StandardScaler", lambda est: setattr(est, "with_std", False)),
    "dual coefficients": ("SVR", lambda est: est._dual_coef_.__imul__(2)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("how", ["fitted there", "fitted here", "unpickled", "copied"])
def test_a_prediction_follows_the_present_state(change: str, how: str) -> None:
    name, alter = CHANGES[change]
    data, target = data_for(name)
    method = "predict" if "predict" in ROWS[name].method_names else "transform"
    local = make(name).fit(data, target)
    estimator = copy.deepcopy(local)
    with on_the_worker():
        if how == "fitted there":
            estimator = make(name).fit(data, target)
        before = getattr(estimator, method)(data)
        if how == "unpickled":
            estimator = pickle.loads(pickle.dumps(estimator))
        elif how == "copied":
            estimator = copy.copy(estimator)
        alter(local)
        alter(estimator)
        after = getattr(estimator, method)(data)

    assert first_difference(getattr(local, method)(data), after) is None
    if change != "a tree removed":
        assert first_difference(before, after) is not None


@pytest.mark.parametrize("algorithm", ["brute", "kd_tree"])
def test_a_neighbors_model_over_the_users_array_follows_that_array(algorithm: str) -> None:
    mine, copied = X.copy(), X.copy()
    local = KNeighborsRegressor(algorithm=algorithm).fit(copied, NUMBERS)
    with on_the_worker():
        remote = KNeighborsRegressor(algorithm=algorithm).fit(mine, NUMBERS)
        assert np.shares_memory(remote._fit_X, mine)
        remote.predict(X)
        mine[::2] += 5
        copied[::2] += 5
        after = remote.predict(X)

    assert first_difference(local.predict(X), after) is None


def test_a_second_prediction_sends_only_its_data() -> None:
    forest = RandomForestClassifier(60, random_state=0)
    with offload(fallback="raise") as session:
        forest.fit(np.tile(X, (5, 1)), np.arange(300) % 7)
        forest.predict(X)
        forest.predict(X)
        pickle.loads(pickle.dumps(forest)).predict(X)
    fit, *predictions = [call.bytes_sent for call in session.report().calls]

    assert fit > 5 * X.nbytes
    assert max(predictions) < X.nbytes + 2000 < len(pickle.dumps(forest)) / 10


def test_a_local_fit_is_sent_once() -> None:
    forest = RandomForestClassifier(30, random_state=0).fit(X, np.arange(60) % 7)
    with offload(fallback="raise") as session:
        first, second = forest.predict(X), forest.predict(X)
    sent = [call.bytes_sent for call in session.report().calls]

    assert first_difference(forest.predict(X), first) is None
    assert first_difference(first, second) is None
    assert sent[0] > 10 * sent[1]


def test_nothing_of_ours_is_in_the_environment_of_a_fitted_estimator() -> None:
    before = {cls: set(vars(row.cls)) for cls, row in ROWS.items()}
    environment = dict(os.environ)
    with on_the_worker():
        for name in ("SVR", "LabelEncoder", "LabelBinarizer", "KernelDensity"):
            _fitted(name)

    assert {cls: set(vars(row.cls)) for cls, row in ROWS.items()} == before
    assert dict(os.environ) == environment


@pytest.mark.parametrize("note", [object(), lambda: None, "for the paper"])
def test_what_a_user_notes_on_an_estimator_does_not_keep_it_here(note: object) -> None:
    model = LinearRegression().fit(X, NUMBERS)
    model.note = note

    with on_the_worker():
        remote = model.predict(X)

    np.testing.assert_array_equal(model.predict(X), remote)
    assert model.note is note


def test_what_an_earlier_fit_has_left_is_part_of_what_a_prediction_sees() -> None:
    model = LinearRegression().fit(X, NUMBERS)
    model.left_by_another_ = np.arange(3)

    with offload(fallback="raise") as session:
        model.fit(X, NUMBERS)
        model.predict(X)
        model.predict(X)

    sent = [call.bytes_sent for call in session.report().calls]
    assert sent[1] > sent[2]  # the worker's own model lacks what was left, so the whole state went, once
    np.testing.assert_array_equal(model.left_by_another_, np.arange(3))


@pytest.mark.parametrize(
    "make_model",
    [lambda: RandomForestClassifier(3, random_state=0), lambda: IsolationForest(n_estimators=3, random_state=0)],
)
def test_trees_are_the_same_to_the_last_byte_and_so_are_their_hashes(make_model: Callable[[], Any]) -> None:
    local = make_model().fit(X, CLASSES)
    with on_the_worker():
        remote = [make_model().fit(X, CLASSES) for _ in range(2)]

    for model in remote:
        for mine, theirs in zip(local.estimators_, model.estimators_, strict=True):
            nodes = (tree.tree_.__getstate__()["nodes"].tobytes() for tree in (mine, theirs))
            assert len(set(nodes)) == 1
    assert joblib.hash(remote[0]) == joblib.hash(remote[1])
