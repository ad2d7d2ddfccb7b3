"""What a call does to the last detail: whose array is changed, whose names are checked, what a pickle holds."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.cluster import KMeans
from sklearn.covariance import EmpiricalCovariance
from sklearn.ensemble import RandomForestRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import (
    Binarizer,
    KernelCenterer,
    Normalizer,
    OneHotEncoder,
    StandardScaler,
)

from sklearn_wsl_gpu import EngineError, Unsupported, offload
from sklearn_wsl_gpu.session import Session
from sklearn_wsl_gpu.testing import assert_same, first_difference
from tests.parity.cases import X

pytestmark = pytest.mark.usefixtures("shared_worker")
TABLE = pd.DataFrame(X, columns=[f"c{number}" for number in range(X.shape[1])])
KERNEL = pd.DataFrame(X[:5] @ X[:5].T, columns=list("abcde"))


@pytest.mark.falls_back
@pytest.mark.parametrize("false", [False, np.False_, 0, "", 0.0])
@pytest.mark.parametrize(
    ("transformer", "data"),
    [(StandardScaler(), X), (Normalizer(), X), (Binarizer(), X), (KernelCenterer(), KERNEL.to_numpy())],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("by_name", [True, False])
def test_an_array_is_overwritten_if_scikit_learn_takes_copy_for_false(
    transformer: Any, data: Any, false: Any, by_name: bool
) -> None:
    fitted = transformer.fit(data)
    mine, expected = data.copy(), data.copy()

    def transform(Z: Any) -> Any:
        return fitted.transform(Z, copy=false) if by_name else fitted.transform(Z, false)

    local = transform(expected)
    with offload(fallback="quiet"):
        found = transform(mine)

    np.testing.assert_array_equal(found, local)
    np.testing.assert_array_equal(mine, expected)
    assert (found is mine) == (local is expected)


def _error_of(work: Callable[[], Any]) -> tuple[Any, ...]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            work()
        except ValueError as error:
            return type(error), str(error)
    return tuple(str(one.message) for one in caught)


@pytest.mark.parametrize("columns", [list(TABLE.columns[::-1]), None], ids=["in another order", "without names"])
def test_names_of_columns_are_checked_whatever_the_first_argument_is_called(columns: Any) -> None:
    data = X if columns is None else TABLE[columns]
    fitted = EmpiricalCovariance().fit(TABLE)
    local = _error_of(lambda: fitted.score(X_test=data))
    with offload(fallback="quiet"):
        found = _error_of(lambda: fitted.score(X_test=data))

    assert found == local
    assert local, "local scikit-learn has something to say"


def test_names_of_columns_are_kept_whatever_the_first_argument_is_called() -> None:
    local = KernelCenterer().fit(K=KERNEL)
    with offload(fallback="raise"):
        found = KernelCenterer().fit(K=KERNEL)

    assert_same(local, found)
    assert [*found.feature_names_in_] == list("abcde")


@pytest.mark.parametrize("data", [X, TABLE], ids=["array", "table"])
def test_attributes_are_in_the_order_of_a_local_fit_and_a_pickle_is_no_longer(data: Any) -> None:
    for make in (StandardScaler, lambda: RandomForestRegressor(5, random_state=0)):
        target = X[:, 0]
        local = make().fit(data, target)
        with offload(fallback="raise"):
            found = make().fit(data, target)

        assert list(vars(found)) == list(vars(local))
        assert len(pickle.dumps(found)) <= len(pickle.dumps(local)) + 100


def test_names_that_were_there_keep_their_place_and_those_of_before_go() -> None:
    local, found = StandardScaler().fit(TABLE), StandardScaler().fit(TABLE)
    for data in (TABLE[TABLE.columns[:2]], X):
        local.fit(data)
        with offload(fallback="raise"):
            found.fit(data)
        assert list(vars(found)) == list(vars(local))
        assert_same(local, found)


def test_nan_among_objects_is_the_one_that_is_found_by_identity() -> None:
    data = np.array([["a", np.nan], ["b", 1.0], ["a", 2.0]], dtype=object)
    with offload(fallback="raise"):
        found = OneHotEncoder().fit(data)

    assert any(one is np.nan for one in found.categories_[1].tolist())  # noqa: PLW0177


def test_what_a_user_has_noted_on_an_estimator_is_in_nobodys_way() -> None:
    fitted = KMeans(3, n_init=1, random_state=0).fit(X)
    fitted.data = X
    local = fitted.predict(fitted.data)
    with offload(fallback="raise") as session:
        np.testing.assert_array_equal(fitted.predict(fitted.data), local)

    assert session.report().offloaded == 1


@pytest.mark.falls_back
@pytest.mark.parametrize("name", ["partial_fit", "warm_start", "random_state", "global"])
def test_a_call_that_only_the_worker_fails_at_changes_nothing_where_that_is_an_error(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = (X[:, 0] > 0).astype(int)
    made: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "partial_fit": (GaussianNB().fit(X, classes), lambda one: one.partial_fit(X, classes)),
        "warm_start": (
            RandomForestRegressor(2, warm_start=True, random_state=0).fit(X, X[:, 0]),
            lambda one: one.set_params(n_estimators=5).fit(X, X[:, 0]),
        ),
        "random_state": (
            KMeans(2, n_init=1, random_state=np.random.RandomState(3)),
            lambda one: one.fit(X),
        ),
        "global": (KMeans(2, n_init=1), lambda one: one.fit(X)),
    }
    estimator, work = made[name]
    before = copy.deepcopy(estimator)

    def fail(*_: Any) -> Any:
        raise Unsupported("It fails.", "estimator-error")

    monkeypatch.setattr(Session, "request", fail)
    drawn = pickle.dumps(np.random.get_state())
    with offload(fallback="raise"), pytest.raises(EngineError, match="does not: It fails"):
        work(estimator)

    if name == "warm_start":
        before.set_params(n_estimators=5)
    assert_same(before, estimator)
    assert pickle.dumps(np.random.get_state()) == drawn


@pytest.mark.falls_back
@pytest.mark.usefixtures("own_worker")
def test_settings_of_the_workers_environment_are_not_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKLEARN_ASSUME_FINITE", "1")
    data = np.where(X > 1, np.inf, X)
    with offload(fallback="quiet"):
        StandardScaler().fit(X)
        with pytest.raises(ValueError, match="infinity"):
            StandardScaler().fit(data)
        with sklearn.config_context(assume_finite=True), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            StandardScaler().fit(data)


def test_estimators_that_hold_themselves_are_compared() -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        one = KMeans(3).set_fit_request(sample_weight=True)
        other = KMeans(3).set_fit_request(sample_weight=False)
    assert_same(one, copy.deepcopy(one))
    assert first_difference(one, other) is not None
    one.own = one
    assert_same(one, copy.deepcopy(one))


def test_dtypes_of_pandas_are_compared() -> None:
    assert_same(pd.CategoricalDtype(["a"]), pd.CategoricalDtype(["a"]))
    assert first_difference(pd.CategoricalDtype(["a"]), pd.CategoricalDtype(["b"])) is not None
