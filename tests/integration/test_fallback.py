"""What cannot be offloaded is done here, with a reason; what scikit-learn refuses, it refuses in its own words."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeCV
from sklearn.manifold import TSNE
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import LabelBinarizer, MaxAbsScaler, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from sklearn_wsl_gpu import EngineError, FallbackWarning, OffloadError, Unsupported, offload

X = np.random.default_rng(0).normal(size=(60, 4))
Y = np.arange(60) % 3


class Distance:
    def __call__(self, a: Any, b: Any) -> float:
        return float(np.abs(a - b).sum())


class Scaler(StandardScaler):
    """A subclass that computes in a way of its own."""

    def partial_fit(self, *args: Any, **kwargs: Any) -> Any:
        return super().partial_fit(*args, **kwargs)


#: what cannot be carried → (the call, the code of the reason)
UNSUPPORTED: dict[str, tuple[Any, str]] = {
    "a callable metric": (lambda: KNeighborsClassifier(metric=Distance()).fit(X, Y), "unsupported-argument"),
    "a callable kernel": (lambda: SVC(kernel=lambda a, b: a @ b.T).fit(X, Y), "unsupported-argument"),
    "an array of objects": (
        lambda: OneHotEncoder().fit(np.array([[Path("a")], [Path("b")]], dtype=object)),
        "unsupported-argument",
    ),
    "a data frame of several kinds": (
        lambda: OneHotEncoder().fit(pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})),
        "unsupported-argument",
    ),
    "a data frame whose columns are encoded each by its dtype": (
        lambda: OneHotEncoder().fit(pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]})),
        "unsupported-argument",
    ),
    "a table that is split before it becomes an array": (
        lambda: RidgeCV(cv=3).fit(pd.DataFrame(X), Y),
        "unsupported-argument",
    ),
    "numbers as texts of pandas' own dtype": (
        lambda: StandardScaler().fit(pd.DataFrame(X.astype(str)).astype("string")),
        "unsupported-argument",
    ),
    "a matrix of a kind that is not carried": (
        lambda: StandardScaler().fit(X.astype(np.longdouble)),
        "unsupported-argument",
    ),
    "an array that repeats its rows": (
        lambda: StandardScaler().fit(np.broadcast_to(X[:1], (60, 4))),
        "unsupported-argument",
    ),
    "a fit that overwrites distances": (
        lambda: TSNE(metric="precomputed", method="exact", init="random", perplexity=5, max_iter=250).fit(
            np.abs(X[:, :1] - X[:, 0])
        ),
        "in-place",
    ),
    "permission to overwrite": (lambda: StandardScaler(copy=False).fit_transform(X.copy()), "in-place"),
}


@pytest.mark.falls_back
@pytest.mark.usefixtures("shared_worker")
@pytest.mark.parametrize("what", UNSUPPORTED)
def test_what_cannot_be_carried_is_done_here_with_one_warning_a_reason(what: str) -> None:
    call, code = UNSUPPORTED[what]

    with offload() as session, pytest.warns(FallbackWarning) as told:
        call()
        call()

    assert [(record.where, record.reason and record.reason.code) for record in session.report().calls] == [
        ("local", code)
    ] * 2
    assert len([item for item in told if item.category is FallbackWarning]) == 1
    assert f"[{code}]" in str(session.report())


@pytest.mark.usefixtures("shared_worker")
@pytest.mark.parametrize("what", UNSUPPORTED)
def test_with_fallback_raise_it_is_an_error_that_says_why(what: str) -> None:
    call, code = UNSUPPORTED[what]

    with offload(fallback="raise"), pytest.raises(Unsupported) as raised:
        call()

    assert raised.value.code == code
    assert isinstance(raised.value, OffloadError)
    assert len(str(raised.value)) > 20


@pytest.mark.usefixtures("shared_worker")
def test_what_the_user_chose_to_keep_here_gives_no_warning_and_no_error() -> None:
    with offload(fallback="raise", exclude=["KMeans"], min_elements=100) as session:
        KMeans(2, n_init=1, random_state=0).fit(X)
        StandardScaler().fit(X[:5])
        Scaler().fit(X)
        StandardScaler().fit(X)

    assert [call.reason.code if call.reason else "" for call in session.report().calls] == [
        "excluded",
        "below-min-elements",
        "overridden",
        "",
    ]


#: what the user did wrong → the call
WRONG: dict[str, Any] = {
    "NaN": lambda: LinearRegression().fit(np.where(X > 2, np.nan, X), Y),
    "infinity in a prediction": lambda: LinearRegression().fit(X, Y).predict(X * np.inf),
    "one dimension": lambda: StandardScaler().fit(X[:, 0]),
    "other lengths": lambda: LogisticRegression().fit(X, Y[:-1]),
    "one class": lambda: LogisticRegression().fit(X, np.zeros(60)),
    "a wrong parameter": lambda: KMeans(n_clusters="three").fit(X),
    "an unknown argument": lambda: StandardScaler().fit(X, wrong=1),
    "no fit before": lambda: KMeans(2).predict(X),
    "other features": lambda: LinearRegression().fit(X, Y).predict(X[:, :2]),
    "other names": lambda: LinearRegression().fit(pd.DataFrame(X), Y).predict(pd.DataFrame(X[:, :2])),
    "names in another order": lambda: (
        LinearRegression().fit(pd.DataFrame(X, columns=list("abcd")), Y).predict(pd.DataFrame(X, columns=list("bacd")))
    ),
    "no probability": lambda: SVC().fit(X, Y).predict_log_proba_(X),
    "negative weights": lambda: LogisticRegression().fit(X, Y, sample_weight="heavy"),
    "empty": lambda: StandardScaler().fit(np.empty((0, 3))),
    "complex": lambda: StandardScaler().fit(X * 1j),
    "too many clusters": lambda: KMeans(99, n_init=1).fit(X),
}


@pytest.mark.falls_back
@pytest.mark.usefixtures("shared_worker")
@pytest.mark.parametrize("fallback", ["local", "raise"])
@pytest.mark.parametrize("what", WRONG)
def test_what_scikit_learn_refuses_it_refuses_in_its_own_words(what: str, fallback: str) -> None:
    with pytest.raises(Exception, match=r".") as here:
        WRONG[what]()

    with offload(fallback=fallback), warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        with pytest.raises(type(here.value)) as there:
            WRONG[what]()

    assert type(there.value) is type(here.value)
    assert str(there.value) == str(here.value)
    assert len(_chain(there.value)) == len(_chain(here.value)), "what else went wrong is not the user's affair"


def _chain(error: BaseException | None) -> list[BaseException]:
    return [] if error is None else [error, *_chain(error.__cause__ or error.__context__)]


@pytest.mark.falls_back
@pytest.mark.usefixtures("shared_worker")
def test_labels_of_a_table_come_where_this_version_of_scikit_learn_gives_them_and_else_its_error() -> None:
    model = LabelBinarizer().fit(Y)
    table = pd.DataFrame(model.transform(Y))

    def find() -> Any:
        try:
            return model.inverse_transform(table)
        except AttributeError as error:
            return str(error)

    expected = find()
    with offload(fallback="quiet"):
        np.testing.assert_array_equal(find(), expected)


@pytest.mark.falls_back
@pytest.mark.usefixtures("shared_worker")
def test_an_estimator_that_is_not_fitted_says_so_as_without_us() -> None:
    with offload(), pytest.raises(NotFittedError, match="not fitted yet"):
        StandardScaler().transform(X)


@pytest.mark.falls_back
@pytest.mark.skipif(not hasattr(StandardScaler, "set_callbacks"), reason="this scikit-learn has no callbacks")
@pytest.mark.usefixtures("shared_worker")
def test_a_fit_with_callbacks_that_look_into_it_runs_here() -> None:
    class Watcher:
        def setup(self, estimator: Any, context: Any) -> None: ...
        def teardown(self, estimator: Any, context: Any) -> None: ...
        def on_fit_task_begin(self, estimator: Any, context: Any, *, X: Any) -> None:
            seen.append(X)

        def on_fit_task_end(self, estimator: Any, context: Any) -> None: ...

    seen: list[Any] = []
    with offload() as session, pytest.warns(FallbackWarning, match="callbacks"):
        scaler = StandardScaler().set_callbacks(Watcher())
        scaler.fit(X)
        scaler.transform(X)

    assert [call.reason and call.reason.code for call in session.report().calls] == ["callbacks", None]
    assert len(seen) == 1


@pytest.mark.falls_back
@pytest.mark.usefixtures("shared_worker")
def test_an_engine_that_fails_where_scikit_learn_does_not_is_undone_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn_wsl_gpu import dispatch

    estimator = StandardScaler()

    def fail(*_: Any) -> None:
        raise EngineError("no memory on the device", "estimator-error")

    monkeypatch.setattr(dispatch, "_offload", fail)
    with offload(fallback="raise"), pytest.raises(EngineError, match="no memory on the device"):
        estimator.fit(X)

    assert vars(estimator) == vars(StandardScaler())


def _outcome(call: Any) -> Any:
    try:
        call()
    except Exception as error:
        return type(error), str(error)
    return None


@pytest.mark.falls_back
@pytest.mark.usefixtures("shared_worker")
@pytest.mark.parametrize("columns", [[], ["a", "a", "b", "c"]], ids=["no columns", "two of one name"])
def test_a_table_that_some_methods_refuse_is_scikit_learns_to_judge(columns: list[str]) -> None:
    table = pd.DataFrame(X[:, : len(columns)], columns=columns)
    scaler = MaxAbsScaler().fit(X)
    calls = [lambda: StandardScaler().fit(table), lambda: scaler.inverse_transform(table)]
    local = [_outcome(call) for call in calls]

    with offload(fallback="quiet"):
        assert [_outcome(call) for call in calls] == local
