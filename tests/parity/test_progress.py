"""scikit-learn's ProgressBar shows a fit on the worker as it shows one here."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sklearn_wsl_gpu
from sklearn_wsl_gpu.testing import assert_same
from tests.parity.cases import CLASSES, WEIGHTS, X, on_the_worker

callback = pytest.importorskip("sklearn.callback", reason="this scikit-learn has no callbacks")
pytest.importorskip("rich", reason="ProgressBar needs rich")
pytestmark = pytest.mark.usefixtures("shared_worker")

Seen = list[tuple[Any, ...]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """Every call of a ProgressBar's hooks: which, the place of the task, and what is said of it."""
    calls: Seen = []
    for name in ("setup", "on_fit_task_begin", "on_fit_task_end", "teardown"):
        monkeypatch.setattr(callback.ProgressBar, name, _noting(name, getattr(callback.ProgressBar, name), calls))
    yield calls
    from sklearn.callback import _progressbar

    assert not _progressbar._run_monitors, "a progress bar was not taken down"


def _noting(name: str, hook: Any, calls: Seen) -> Any:
    def noting(self: Any, estimator: Any, context: Any) -> None:
        place, one = [], context
        while one is not None:
            place.insert(0, (one.task_id, one.task_name, one.estimator_name, one.max_subtasks, one.source_task_name))
            one = one.parent
        calls.append((name, type(estimator).__name__, *place))
        hook(self, estimator, context)

    return noting


@pytest.mark.parametrize(
    "estimator",
    [
        StandardScaler(),
        LogisticRegression(),
        LogisticRegression(max_iter=3),
        make_pipeline(StandardScaler(), LogisticRegression()),
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
    ],
    ids=["StandardScaler", "LogisticRegression", "not converged", "pipeline", "search"],
)
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_it_shows_the_same_tasks_in_the_same_order(estimator: Any, seen: Seen) -> None:
    local = clone(estimator).set_callbacks(callback.ProgressBar(max_propagation_depth=None)).fit(X, CLASSES)
    here = seen.copy()
    seen.clear()
    remote = clone(estimator).set_callbacks(callback.ProgressBar(max_propagation_depth=None))
    with on_the_worker():
        remote.fit(X, CLASSES)

    assert [call[0] for call in here].count("setup") == 1
    assert seen == here
    if not isinstance(estimator, GridSearchCV):  # which keeps times
        assert_same(remote, local)


def test_it_shows_partial_fits_and_weights(seen: Seen) -> None:
    def run() -> Any:
        scaler = StandardScaler().set_callbacks(callback.ProgressBar())
        return scaler.partial_fit(X, sample_weight=WEIGHTS).partial_fit(X)

    local, here = run(), seen.copy()
    seen.clear()
    with on_the_worker():
        remote = run()

    assert seen == here
    assert_same(remote, local)


def test_nothing_of_it_stays_on_the_estimator() -> None:
    model = LogisticRegression().set_callbacks(callback.ProgressBar())
    with on_the_worker():
        model.fit(X, CLASSES)
        model.fit(X, CLASSES)

    assert {name for name in vars(model) if "callback" in name} == {"_skl_callbacks"}
    assert {name for name in vars(clone(model)) if "callback" in name} == {"_skl_callbacks"}
    model.set_callbacks()
    assert_same(pickle.loads(pickle.dumps(model)), LogisticRegression().fit(X, CLASSES))


@pytest.mark.falls_back
def test_a_fit_that_fails_before_its_first_task_shows_nothing(seen: Seen) -> None:
    model = LogisticRegression(C=-1.0).set_callbacks(callback.ProgressBar())
    with sklearn_wsl_gpu.offload(fallback="quiet"), pytest.raises(ValueError, match="'C' parameter"):
        model.fit(X, CLASSES)

    assert seen == []
