"""Data that a user's own code changes in place while a search runs: each fit sees them as they are then."""

from __future__ import annotations

import gc
import weakref
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, KFold, cross_val_score

from sklearn_wsl_gpu import offload

pytestmark = pytest.mark.usefixtures("running_worker")


def _data(rows: int) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    X = random.random((rows, 6))
    return X, X @ np.array([3.0, 0, 2, 0, 0, 1]) + 0.1 * random.normal(size=rows)


class Selector(RegressorMixin, BaseEstimator):
    """Tries each column without its values, in one table that it changes."""

    seen: ClassVar[list[Any]] = []

    def __init__(self, tol: float = 0.0) -> None:
        self.tol = tol

    def fit(self, X: Any, y: Any) -> Selector:
        Z = X.copy()
        Selector.seen.append(weakref.ref(Z))
        columns = Z.to_numpy(copy=False) if isinstance(Z, pd.DataFrame) else Z
        self.scores_ = []
        for number in range(columns.shape[1]):
            column = columns[:, number].copy()
            if isinstance(Z, pd.DataFrame):
                Z.isetitem(number, 0.0)
            else:
                Z[:, number] = 0
            self.scores_.append(cross_val_score(Ridge(), Z, y, cv=3).mean())
            if isinstance(Z, pd.DataFrame):
                Z.isetitem(number, column)
            else:
                Z[:, number] = column
        self.model_ = Ridge().fit(Z, y)
        return self

    def predict(self, X: Any) -> Any:
        return self.model_.predict(X)


@pytest.mark.parametrize("rows", [60, 6000])
@pytest.mark.parametrize("kind", [np.asarray, pd.DataFrame])
@pytest.mark.parametrize("carrier", ["auto", "stream"])
def test_an_estimator_that_is_searched_may_change_what_it_validates_with(rows: int, kind: Any, carrier: str) -> None:
    X, y = _data(rows)
    local = GridSearchCV(Selector(), {"tol": [0.0, 1.0]}, cv=2).fit(kind(X), y)
    with offload(fallback="raise", carrier=carrier):
        remote = GridSearchCV(Selector(), {"tol": [0.0, 1.0]}, cv=2).fit(kind(X), y)

    assert len(set(local.best_estimator_.scores_)) > 1
    assert remote.best_estimator_.scores_ == local.best_estimator_.scores_
    np.testing.assert_array_equal(remote.cv_results_["mean_test_score"], local.cv_results_["mean_test_score"])


@pytest.mark.parametrize("in_pool", [False, True])
def test_who_chooses_the_best_may_change_what_it_is_fitted_with(in_pool: bool) -> None:
    def search(X: Any, y: Any) -> Any:
        def choose(results: Any) -> int:
            X[: len(X) // 2] *= -1
            return int(np.argmax(results["mean_test_score"]))

        return GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, refit=choose, cv=3).fit(X, y).best_estimator_.coef_

    X, y = _data(3000)
    local = search(X.copy(), y)
    with offload(fallback="raise"):
        import sklearn_wsl_gpu

        remote = search(sklearn_wsl_gpu.asarray(X) if in_pool else X.copy(), y)

    np.testing.assert_array_equal(remote, local)


def test_splits_of_a_users_own_may_change_the_data_between_the_rounds_of_a_search() -> None:
    class Flipping(KFold):
        def split(self, X: Any, y: Any = None, groups: Any = None) -> Any:
            X[::2] *= -1
            return super().split(X, y, groups)

    def search(X: Any, y: Any) -> Any:
        found = HalvingGridSearchCV(
            Ridge(), {"alpha": [0.1, 1.0, 10.0]}, cv=Flipping(3), random_state=0, min_resources=1000
        ).fit(X, y)
        return found.cv_results_["mean_test_score"], found.best_estimator_.coef_

    X, y = _data(6000)
    local = search(X.copy(), y)
    with offload(fallback="raise"):
        remote = search(X.copy(), y)

    for one, other in zip(local, remote, strict=True):
        np.testing.assert_array_equal(one, other)


def test_tables_of_fits_that_are_over_are_not_held_while_a_search_runs() -> None:
    X, y = _data(300)
    alive: list[int] = []

    def score(estimator: Any, data: Any, target: Any) -> float:
        gc.collect()
        alive.append(sum(one() is not None for one in Selector.seen))
        return 0.0

    Selector.seen.clear()
    with offload(fallback="raise"):
        GridSearchCV(Selector(), {"tol": [0.0, 1.0, 2.0]}, cv=3, scoring=score, refit=False).fit(pd.DataFrame(X), y)

    assert len(alive) == 9
    assert max(alive) == 0
