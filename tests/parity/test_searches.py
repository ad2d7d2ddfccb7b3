"""Searches and cross-validations are one call: what they find is what they find here, to the last bit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import scipy.stats
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    KFold,
    LeaveOneOut,
    RandomizedSearchCV,
    ShuffleSplit,
    TimeSeriesSplit,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from sklearn_wsl_gpu import offload
from sklearn_wsl_gpu.testing import first_difference
from tests.parity.cases import CLASSES, NUMBERS, WEIGHTS, X, on_the_worker

pytestmark = pytest.mark.usefixtures("shared_worker")

WORDS = np.array(["red", "green", "blue"])[CLASSES]
MIXED = pd.DataFrame(X, columns=list("abcdef")).assign(word=WORDS)
GROUPS = np.arange(60) % 7
GRID = {"C": [0.1, 1.0, 10.0]}


def _pipeline() -> Any:
    return make_pipeline(StandardScaler(), PCA(random_state=0), LogisticRegression())


def _fit(search: Any, data: Any = X, target: Any = CLASSES, **params: Any) -> Any:
    return lambda: clone(search).fit(data, target, **params)


_PIPELINE_GRID = {"pca__n_components": [2, 3], "logisticregression__C": [0.1, 10.0]}
SEARCHES: dict[str, Callable[[], Any]] = {
    "a grid": _fit(GridSearchCV(SVC(), GRID, cv=3)),
    "a grid of a pipeline": _fit(GridSearchCV(_pipeline(), _PIPELINE_GRID)),
    "a list of grids": _fit(GridSearchCV(SVC(), [{"kernel": ["linear"]}, {"gamma": [0.1, "scale"]}])),
    "a grid of estimators": _fit(
        GridSearchCV(
            make_pipeline(StandardScaler(), SVC()),
            [{"svc": [SVC(), LogisticRegression()]}, {"standardscaler": ["passthrough"]}],
        )
    ),
    "train scores": _fit(GridSearchCV(SVC(), GRID, return_train_score=True)),
    "several scores": _fit(GridSearchCV(SVC(), GRID, scoring=["accuracy", "f1_macro"], refit="f1_macro")),
    "a scorer": _fit(GridSearchCV(SVC(), GRID, scoring=make_scorer(f1_score, average="micro"))),
    "without a refit": _fit(GridSearchCV(SVC(), GRID, refit=False)),
    "a refit that chooses": _fit(GridSearchCV(SVC(), GRID, refit=lambda results: 1)),
    "groups": _fit(GridSearchCV(SVC(), GRID, cv=GroupKFold(3)), groups=GROUPS),
    "weights": _fit(GridSearchCV(SVC(), GRID), sample_weight=WEIGHTS),
    "random splits": _fit(GridSearchCV(SVC(), GRID, cv=ShuffleSplit(3, random_state=0))),
    "random splits of the global state": _fit(GridSearchCV(SVC(), GRID, cv=KFold(3, shuffle=True))),
    "random fits of the global state": _fit(GridSearchCV(RandomForestClassifier(3), {"max_depth": [1, 2]}, cv=2)),
    "a shared random state": _fit(
        GridSearchCV(RandomForestClassifier(3, random_state=np.random.RandomState(2)), {"max_depth": [1, 2]}, cv=2)
    ),
    "splits over time": _fit(GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=TimeSeriesSplit(3)), X, NUMBERS),
    "splits as a list": _fit(GridSearchCV(SVC(), GRID, cv=[(np.arange(0, 60, 2), np.arange(1, 60, 2))])),
    "one left out": _fit(GridSearchCV(Ridge(), {"alpha": [0.1]}, cv=LeaveOneOut(), scoring="r2"), X[:9], NUMBERS[:9]),
    "sparse": _fit(GridSearchCV(SVC(), GRID), scipy.sparse.csr_matrix(X)),
    "lists": _fit(GridSearchCV(SVC(), GRID), X.tolist(), WORDS.tolist()),
    "a table": _fit(
        GridSearchCV(
            make_pipeline(
                make_column_transformer((OneHotEncoder(), ["word"]), remainder=StandardScaler()), LogisticRegression()
            ),
            {"logisticregression__C": [0.1, 1.0]},
        ),
        MIXED,
        pd.Series(WORDS),
    ),
    "no target": _fit(GridSearchCV(KMeans(random_state=0), {"n_clusters": [2, 3]}), X, None),
    "kernels": _fit(GridSearchCV(SVC(kernel="precomputed"), GRID), X @ X.T),
    "drawn candidates": _fit(
        RandomizedSearchCV(SVC(), {"C": scipy.stats.loguniform(0.1, 10), "kernel": ["rbf", "linear"]}, n_iter=5,
                           random_state=3)
    ),
    "candidates drawn from the global state": _fit(
        RandomizedSearchCV(RandomForestClassifier(3), {"max_depth": [1, 2, 3, 4]}, n_iter=2, cv=2)
    ),
    "halving": _fit(HalvingGridSearchCV(SVC(), GRID, random_state=0, min_resources=18)),
    "halving of drawn candidates": _fit(
        HalvingRandomSearchCV(_pipeline(), {"logisticregression__C": scipy.stats.loguniform(0.1, 10)}, random_state=0)
    ),
}  # fmt: skip

VALIDATIONS: dict[str, Callable[[], Any]] = {
    "cross_validate": lambda: cross_validate(SVC(), X, CLASSES, return_train_score=True, return_indices=True),
    "its estimators": lambda: cross_validate(_pipeline(), X, CLASSES, return_estimator=True, scoring=["accuracy"])[
        "estimator"
    ],
    "cross_val_score": lambda: cross_val_score(_pipeline(), X, WORDS, cv=4, scoring="balanced_accuracy"),
    "of a table": lambda: cross_val_score(LogisticRegression(), MIXED[list("abc")], pd.Series(WORDS)),
    "cross_val_predict": lambda: cross_val_predict(_pipeline(), X, WORDS),
    "probabilities": lambda: cross_val_predict(KNeighborsClassifier(), X, WORDS, method="predict_proba", cv=3),
    "learning_curve": lambda: learning_curve(SVC(), X, CLASSES, train_sizes=[0.5, 1.0], shuffle=True, random_state=0),
    "validation_curve": lambda: validation_curve(SVC(), X, CLASSES, param_name="C", param_range=[0.1, 1.0]),
}


def _results(found: Any) -> Any:
    """Return what a search has found, times left out."""
    if isinstance(found, dict):
        return {name: value for name, value in found.items() if not name.endswith("_time")}
    if not hasattr(found, "cv_results_"):
        return found
    attributes = {name: value for name, value in vars(found).items() if name.endswith("_") and "time" not in name}
    results = {name: value for name, value in attributes.pop("cv_results_").items() if "time" not in name}
    return {**attributes, "scorer_": repr(attributes["scorer_"]), **{f"cv: {name}": results[name] for name in results}}


def _calls(session: Any) -> list[tuple[str, str]]:
    return [(call.method, call.where) for call in session.report().calls]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_finds_what_it_finds_here(name: str) -> None:
    np.random.seed(5)
    local, drawn = SEARCHES[name](), np.random.random()
    np.random.seed(5)
    with on_the_worker(whole=True), offload() as session:
        remote, drawn_there = SEARCHES[name](), np.random.random()

    assert first_difference(_results(local), _results(remote)) is None
    assert drawn == drawn_there, "the global random state is another afterwards"
    methods = [method for method, _ in _calls(session)]
    assert methods.count("fit") == (1 if hasattr(local, "best_estimator_") else 0)
    assert set(methods) <= {"fit_and_score", "fit"}
    if hasattr(local, "best_estimator_"):
        data = MIXED if name == "a table" else X @ X.T if name == "kernels" else X
        with on_the_worker(whole=True):
            found = remote.predict(data)
        assert first_difference(local.predict(data), found) is None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", VALIDATIONS)
def test_a_cross_validation_gives_what_it_gives_here(name: str) -> None:
    local = VALIDATIONS[name]()
    with on_the_worker(whole=True), offload() as session:
        remote = VALIDATIONS[name]()

    assert first_difference(_results(local), _results(remote)) is None
    assert len([method for method, _ in _calls(session) if method.startswith("fit_and")]) == 1


def test_a_function_that_was_imported_before_is_offloaded_as_well() -> None:
    # As a user has it: the names above were bound before any offload began.
    with on_the_worker(whole=True), offload() as session:
        cross_val_score(Ridge(), X, NUMBERS)

    assert _calls(session) == [("fit_and_score", "worker")]


def test_the_data_of_a_grid_of_20_candidates_in_5_folds_crosses_once() -> None:
    rng = np.random.default_rng(0)
    many, sides = rng.normal(size=(20_000, 10)), rng.integers(0, 2, 20_000)
    grid = {"logisticregression__C": np.logspace(-2, 2, 10).tolist(), "pca__n_components": [2, 3]}
    with on_the_worker(whole=True), offload() as session:
        search = GridSearchCV(_pipeline(), grid, cv=5).fit(many, sides)
    calls = session.report().calls

    assert len(search.cv_results_["params"]) == 20
    assert _calls(session) == [("fit_and_score", "worker"), ("fit", "worker")]
    assert sum(call.bytes_sent for call in calls) <= 1.05 * (many.nbytes + sides.nbytes)


def test_the_data_of_a_halving_search_crosses_once() -> None:
    with on_the_worker(whole=True), offload() as session:
        HalvingGridSearchCV(SVC(), {"C": [0.1, 1.0, 10.0, 100.0]}, random_state=0).fit(
            np.repeat(X, 60, axis=0), np.repeat(CLASSES, 60)
        )
    first, *rest = [call.bytes_sent for call in session.report().calls]

    assert len(rest) > 1
    assert first > X.nbytes * 60
    assert sum(rest) < first / 4


def _score(estimator: Any, data: Any, target: Any) -> float:
    return float(estimator.score(data, target))


IN_PARTS: dict[str, tuple[Callable[[], Any], str]] = {
    "a score of the user's": (lambda: cross_val_score(SVC(), X, CLASSES, scoring=_score), "unsupported-argument"),
    "a metric of the user's": (
        lambda: cross_val_score(SVC(), X, CLASSES, scoring=make_scorer(lambda true, found: (true == found).mean())),
        "unsupported-argument",
    ),
    "an estimator that is none of the table": (
        lambda: cross_val_score(make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0)), X, CLASSES),
        "unsupported-part",
    ),
    "a candidate that is none of the table": (
        lambda: (
            GridSearchCV(make_pipeline(StandardScaler(), SVC()), {"svc": [DecisionTreeClassifier(random_state=0)]})
            .fit(X, CLASSES)
            .cv_results_["mean_test_score"]
        ),
        "unsupported-part",
    ),
    "a search in a cross-validation": (
        lambda: cross_val_score(GridSearchCV(SVC(), GRID, cv=2), X, CLASSES, cv=2),
        "unsupported-part",
    ),
    "splits and fits that draw in turn": (
        lambda: cross_val_score(RandomForestClassifier(3), X, CLASSES, cv=ShuffleSplit(3)),
        "global-random-state",
    ),
}


@pytest.mark.falls_back
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", IN_PARTS)
def test_what_cannot_go_as_one_call_is_offloaded_fit_by_fit(name: str) -> None:
    run, code = IN_PARTS[name]
    np.random.seed(4)
    local = run()
    np.random.seed(4)
    with offload() as session:
        remote = run()
    calls = session.report().calls

    assert first_difference(local, remote) is None
    assert (calls[0].where, calls[0].reason and calls[0].reason.code) == ("in parts", code)
    assert "worker" in {call.where for call in calls}


def test_include_and_exclude_hold_for_the_estimator_of_a_search() -> None:
    def wheres(**settings: Any) -> set[str]:
        with offload(**settings) as session:
            cross_val_score(make_pipeline(StandardScaler(), SVC()), X, CLASSES)
        return {call.where for call in session.report().calls if call.method == "fit_and_score"}

    assert wheres(exclude=["SVC"]) == {"in parts"}
    assert wheres(include=["SVC"]) == {"in parts"}
    assert wheres(include=["SVC", "StandardScaler"]) == {"worker"}
    assert wheres(include=["Pipeline"]) == {"worker"}


@pytest.mark.falls_back
def test_parameters_that_are_wrong_are_scikit_learns_own_error() -> None:
    with offload(fallback="quiet"), pytest.raises(ValueError, match="Invalid parameter 'D' for estimator SVC"):
        GridSearchCV(SVC(), {"D": [1]}).fit(X, CLASSES)


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_fits_that_fail_are_warned_of_as_here() -> None:
    search = GridSearchCV(SVC(), {"C": [-1.0, 1.0]})
    with on_the_worker(whole=True), pytest.warns(FitFailedWarning, match="5 fits failed out of a total of 10"):
        search.fit(X, CLASSES)

    assert np.isnan(search.cv_results_["mean_test_score"][0])
    assert search.best_params_ == {"C": 1.0}


@pytest.mark.falls_back
def test_all_fits_that_fail_are_scikit_learns_own_error() -> None:
    with offload(fallback="quiet"), pytest.raises(ValueError, match="All the 5 fits failed"):
        GridSearchCV(SVC(), {"C": [-1.0]}).fit(X, CLASSES)


def test_a_verbose_search_prints_its_fits(capsys: pytest.CaptureFixture[str]) -> None:
    GridSearchCV(SVC(), {"C": [1.0]}, cv=2, verbose=3).fit(X, CLASSES)
    local = capsys.readouterr().out
    with on_the_worker(whole=True):
        GridSearchCV(SVC(), {"C": [1.0]}, cv=2, verbose=3).fit(X, CLASSES)
    remote = capsys.readouterr().out

    def told(output: str) -> list[str]:
        return [line.partition(" total time")[0].replace(".", "") for line in output.splitlines()]

    assert told(remote) == told(local)
    assert "[CV 2/2] END" in remote


def test_joblib_tells_of_its_tasks_as_here(capsys: pytest.CaptureFixture[str]) -> None:
    cross_val_score(SVC(), X, CLASSES, verbose=1)
    local = capsys.readouterr()
    with on_the_worker(whole=True):
        cross_val_score(SVC(), X, CLASSES, verbose=1)
    remote = capsys.readouterr()

    for before, after in ((local.out, remote.out), (local.err, remote.err)):
        assert [line.partition("elapsed")[0] for line in after.splitlines()] == [
            line.partition("elapsed")[0] for line in before.splitlines()
        ]


def test_the_progress_of_a_search_is_told_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with on_the_worker(whole=True), offload(verbose=1):
        search = GridSearchCV(SVC(), GRID, cv=2).fit(X, CLASSES)

    assert f"6 of 6 fits, best score so far {search.best_score_:.4g}" in capsys.readouterr().err


def test_a_warning_that_is_an_error_fails_the_fit_that_gives_it_and_no_other() -> None:
    def search() -> GridSearchCV:
        return GridSearchCV(LogisticRegression(), {"max_iter": [2, 1000]}, cv=2).fit(X, CLASSES)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", ConvergenceWarning)
        local = search()
        with offload(fallback="raise") as session:
            remote = search()

    assert remote.best_params_ == local.best_params_ == {"max_iter": 1000}
    np.testing.assert_array_equal(remote.cv_results_["mean_test_score"], local.cv_results_["mean_test_score"])
    first = session.report().calls[0]
    assert (first.where, first.reason and first.reason.code) == ("in parts", "warning-is-error")
