"""A graph that cannot go as one call is done in parts: those that a worker takes are offloaded singly."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from sklearn_wsl_gpu import offload
from sklearn_wsl_gpu.estimators import GRAPHS
from sklearn_wsl_gpu.testing import first_difference
from tests.parity.cases import CLASSES, NUMBERS, X, on_the_worker

pytestmark = pytest.mark.usefixtures("shared_worker")
WORDS = np.array(["red", "green", "blue"])[CLASSES]
FRAME = pd.DataFrame(X, columns=list("abcdef"))


class Plus(BaseEstimator, TransformerMixin):
    """A transformer that no worker knows."""

    def fit(self, X: Any, y: Any = None) -> Plus:
        self.fitted_ = True
        return self

    def transform(self, X: Any) -> Any:
        return X + 1


class Subclass(StandardScaler):
    """One that a worker could compute, by itself."""


def _with_own_method() -> Any:
    scaler = StandardScaler()
    scaler.transform = lambda data: data
    return scaler


SCALER = StandardScaler()
IN_PARTS: dict[str, tuple[Callable[[], Any], Any, str, set[str]]] = {
    "a class of the user's": (lambda: make_pipeline(StandardScaler(), Plus(), Ridge()), X, "unsupported-part",
                              {"StandardScaler.fit_transform", "Ridge.fit"}),
    "a class that is none of the table": (lambda: make_pipeline(StandardScaler(), DecisionTreeClassifier()), X,
                                          "unsupported-part", {"StandardScaler.fit_transform"}),
    "a subclass": (lambda: make_pipeline(Subclass(), Ridge()), X, "unsupported-part",
                   {"Subclass.fit_transform", "Ridge.fit"}),
    "a function": (lambda: make_pipeline(FunctionTransformer(np.log1p), Ridge()), np.abs(X), "unsupported-part",
                   {"Ridge.fit"}),
    "a method of its own": (lambda: make_pipeline(_with_own_method(), Ridge()), X, "overridden", {"Ridge.fit"}),
    "one that works in place": (lambda: make_pipeline(StandardScaler(copy=False), Ridge()), X.copy(), "in-place",
                                {"Ridge.fit"}),
    "the same one twice": (lambda: make_pipeline(SCALER, SCALER, Ridge()), X, "shared-part",
                           {"StandardScaler.fit_transform", "Ridge.fit"}),
    "a union that passes its data through": (
        lambda: make_pipeline(make_union(StandardScaler(), "passthrough"), Ridge()), X, "unsupported-part",
        {"StandardScaler.fit_transform", "Ridge.fit"}),
    "a table of polars": (lambda: make_pipeline(StandardScaler(), Ridge()), pl.DataFrame(X, schema=list("abcdef")),
                "table",
                {"StandardScaler.fit_transform", "Ridge.fit"}),
    "output that is configured": (lambda: make_pipeline(StandardScaler().set_output(transform="pandas"), Ridge()), X,
                                  "configured-part", {"StandardScaler.fit_transform", "Ridge.fit"}),
    "a calibration that does not travel": (lambda: CalibratedClassifierCV(SVC(), method="isotonic"), X,
                                           "unsupported-argument", {"LabelEncoder.fit", "SVC.fit"}),
    "a calibration with its own splits": (lambda: CalibratedClassifierCV(SVC(), cv=StratifiedKFold(3)), X,
                                          "unsupported-argument", {"LabelEncoder.fit", "SVC.fit"}),
    "a calibration of what it chooses": (CalibratedClassifierCV, X,
                                         "unsupported-part", {"LabelEncoder.fit", "LinearSVC.fit"}),
    "a calibration in a pipeline that does not travel": (
        lambda: make_pipeline(StandardScaler(), CalibratedClassifierCV(SVC(), method="isotonic")), X,
        "unsupported-argument", {"StandardScaler.fit_transform", "LabelEncoder.fit", "SVC.fit"}),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::sklearn_wsl_gpu.FallbackWarning", "ignore:X does not have valid feature names")
@pytest.mark.parametrize("name", IN_PARTS)
@pytest.mark.falls_back
def test_with_an_unsupported_part_the_others_are_offloaded_singly(name: str) -> None:
    make, data, code, offloaded = IN_PARTS[name]
    local = make().fit(copy(data), CLASSES).predict(copy(data))

    with offload() as session:
        found = make().fit(copy(data), CLASSES).predict(copy(data))

    calls = session.report().calls
    assert first_difference(local, found, "result") is None
    assert {(call.where, call.reason and call.reason.code) for call in calls if call.estimator in GRAPHS} == {
        ("in parts", code)
    }
    fits = {f"{call.estimator}.{call.method}" for call in calls if call.where == "worker" and "fit" in call.method}
    assert fits == offloaded


@pytest.mark.parametrize("parts", ["passthrough only", "a scaler too"])
def test_tables_that_are_put_side_by_side_keep_the_dtypes_of_their_columns(parts: str) -> None:
    table = pd.DataFrame({"whole": np.arange(60), "half": NUMBERS, "third": NUMBERS / 3})
    scaler = StandardScaler() if parts == "a scaler too" else "drop"

    def combine() -> Any:
        model = ColumnTransformer([("kept", "passthrough", ["whole", "half"]), ("other", scaler, ["third"])])
        return model.set_output(transform="pandas").fit_transform(table)

    expected = combine()
    with offload():
        assert first_difference(expected, combine(), "table") is None
    assert expected["kept__whole"].dtype == "int64"


def test_include_and_exclude_hold_for_parts() -> None:
    pipeline = make_pipeline(StandardScaler(), Ridge())

    def where(**settings: Any) -> dict[str, str]:
        with offload(**settings) as session:
            pipeline.fit(X, NUMBERS)
        return {call.estimator: call.where for call in session.report().calls}

    assert where(exclude=["Ridge"]) == {"Pipeline": "in parts", "StandardScaler": "worker", "Ridge": "local"}
    assert where(exclude=["Pipeline"]) == {"Pipeline": "in parts", "StandardScaler": "worker", "Ridge": "worker"}
    assert where(include=["Ridge"]) == {"Pipeline": "in parts", "StandardScaler": "local", "Ridge": "worker"}
    assert where(include=["Ridge", "StandardScaler"]) == {"Pipeline": "worker"}
    assert where(include=["Pipeline"]) == {"Pipeline": "worker"}


@pytest.mark.falls_back
def test_an_error_of_a_part_is_scikit_learns_own_and_leaves_the_graph_as_it_was() -> None:
    pipeline = make_pipeline(StandardScaler(), Ridge(alpha=-1.0))
    before = {id(part): dict(vars(part)) for _, part in pipeline.steps}

    with offload(fallback="quiet"), pytest.raises(ValueError, match=r"The 'alpha' parameter of Ridge"):
        pipeline.fit(X, NUMBERS)

    assert vars(pipeline[-1]) == before[id(pipeline[-1])]


def test_warnings_of_parts_are_given_here() -> None:
    with on_the_worker(whole=True), pytest.warns(ConvergenceWarning, match="failed to converge"):
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1)).fit(X, CLASSES)


def test_a_verbose_pipeline_prints_here(capsys: pytest.CaptureFixture[str]) -> None:
    with on_the_worker(whole=True), contextlib.suppress(KeyError):
        Pipeline([("scale", StandardScaler()), ("fit", Ridge())], verbose=True).fit(X, NUMBERS)

    assert "(step 1 of 2) Processing scale" in capsys.readouterr().out


TABLES_THAT_STAY = {
    "dates": FRAME.assign(a=pd.Timestamp("2020-01-01")),
    "categories": FRAME.assign(a=pd.Categorical(WORDS)),
    "text that is missing": FRAME.assign(a=[None, *WORDS[1:]]),
    "columns of two levels": pd.concat({"x": FRAME}, axis=1),
    "a nullable number": FRAME.assign(a=pd.array(CLASSES, dtype="Int64")),
}


@pytest.mark.falls_back
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TABLES_THAT_STAY)
def test_a_table_that_would_not_be_the_same_goes_to_the_parts(name: str) -> None:
    graph = ColumnTransformer([("b", StandardScaler(), [1, 2])], remainder="passthrough")
    local = clone(graph).fit_transform(TABLES_THAT_STAY[name])
    with offload() as session:
        remote = clone(graph).fit_transform(TABLES_THAT_STAY[name])

    assert first_difference(local, remote) is None
    assert session.report().calls[0].where == "in parts"


def test_a_table_goes_to_the_parts_where_the_worker_has_another_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pd, "__version__", "1.2.3")
    with offload() as session:
        make_pipeline(StandardScaler(), Ridge()).fit(FRAME, NUMBERS)

    calls = session.report().calls
    assert [(call.estimator, call.where) for call in calls] == [
        ("Pipeline", "in parts"), ("StandardScaler", "worker"), ("Ridge", "worker"),
    ]  # fmt: skip
    assert calls[0].reason is not None
    assert calls[0].reason.code == "version-mismatch"
    assert "Install the same version on both sides" in calls[0].reason.words
