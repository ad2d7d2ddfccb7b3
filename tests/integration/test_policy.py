"""policy="auto": calls stay where that is cheaper, with a reason; "always" does not ask."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sklearn_wsl_gpu
from sklearn_wsl_gpu import Report, measuring, offload, workload
from sklearn_wsl_gpu.config import Settings
from sklearn_wsl_gpu.costs import Table
from sklearn_wsl_gpu.estimators import ROWS
from sklearn_wsl_gpu.invocation import Invocation
from sklearn_wsl_gpu.predictions import Work
from tests.integration.tools import until

pytestmark = pytest.mark.usefixtures("own_costs")

X = np.random.default_rng(0).normal(size=(400, 5))
y = (X[:, 0] > 0).astype(int)


def _noticed(run: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> list[Work]:
    """Return what is asked of the table during a call."""
    found: list[Work] = []
    ask = measuring._measured.table.predict

    def predict(work: Work) -> Any:
        found.append(work)
        return ask(work)

    with monkeypatch.context() as patched:
        patched.setattr(measuring._measured.table, "predict", predict)
        run()
    return found


def _teach(work: Work, local: float, remote: float) -> None:
    for _ in range(9):
        measuring.note_local(work, local)
        measuring.note_remote(work._replace(engine="cpu"), "cpu", remote, 1e-3, work.nbytes)


def _places(report: Report) -> list[tuple[str, str]]:
    return [(f"{call.estimator}.{call.method}", call.where) for call in report.calls]


#: What is called, and what the report says of it where it goes and where it stays.
CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "an estimator": (lambda: KMeans(2, n_init=1, random_state=0).fit(X).labels_, "KMeans.fit"),
    "a pipeline": (
        lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)[-1].coef_,
        "Pipeline.fit",
    ),
    "a cross-validation": (lambda: cross_val_score(LogisticRegression(), X, y), "LogisticRegression.fit_and_score"),
    "a cross-validation in threads": (
        lambda: _in_threads(lambda: cross_val_score(LogisticRegression(), X, y, n_jobs=2)),
        "LogisticRegression.fit_and_score",
    ),
    "a search": (
        lambda: GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, refit=False).fit(X, y).best_score_,
        "Ridge.fit_and_score",
    ),
}


def _in_threads(run: Callable[[], Any]) -> Any:
    import joblib

    with joblib.parallel_backend("threading"):
        return run()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("local", "remote", "where"), [(1e-3, 9.0, "local"), (9.0, 1e-3, "worker")])
def test_what_is_measured_to_be_cheaper_is_done_and_the_result_is_the_same(
    name: str, local: float, remote: float, where: str, shared_worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, call = CALLS[name]
    expected = run()
    with offload(policy="auto", fallback="raise"):
        (work, *_) = _noticed(run, monkeypatch)
        _teach(work, local, remote)
        with offload() as session:
            found = run()

    np.testing.assert_array_equal(found, expected)
    assert _places(session.report()) == [(call, where)]
    reason = session.report().calls[0].reason
    assert (None if reason is None else reason.code) == ("stays-cheaper" if where == "local" else None)


def test_always_ignores_the_table(shared_worker: None, monkeypatch: pytest.MonkeyPatch) -> None:
    run, call = CALLS["an estimator"]
    with offload(policy="auto"):
        (work,) = _noticed(run, monkeypatch)
    _teach(work, 1e-3, 9.0)
    with offload() as session:
        assert _noticed(run, monkeypatch) == []

    assert session.settings.policy == "always"
    assert _places(session.report()) == [(call, "worker")]


def test_the_report_has_one_line_for_all_sizes_of_a_call_with_the_latest_figures(
    shared_worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = PCA(2).fit(X)
    with offload(policy="auto") as session:
        for rows in range(50, 150):
            with monkeypatch.context() as patched:
                patched.setattr(measuring, "note_local", lambda *_: None)
                patched.setattr("sklearn_wsl_gpu.dispatch.note_local", lambda *_: None)
                work = _work(session.settings, model, "transform", X[:rows])
                _teach_here(work, rows * 1e-6)
                model.transform(X[:rows])

    (row,) = session.report().to_dict()["calls"]
    assert row["n"] == 100
    assert row["reason"]["words"] == "PCA.transform stayed: 149 us here, 90 ms there."
    assert str(session.report()).count("PCA.transform") == 2  # its line, and the reason
    assert len(session.report().counts()) == 1


def _teach_here(work: Work, local: float) -> None:
    table = measuring._measured.table
    table.note_local(work, local)
    table.note_remote(work._replace(engine="cpu"), "cpu", 0.09, 1e-3, 1000)


def test_what_is_measured_under_always_is_known_to_auto(shared_worker: None) -> None:
    with offload(exclude=["StandardScaler"]):
        for _ in range(3):
            StandardScaler().fit(X)
    with offload():
        for _ in range(3):
            StandardScaler().fit(X)
    with offload(policy="auto") as session:
        StandardScaler().fit(X)

    (done,) = session.report().calls
    assert done.reason is not None
    assert "about" not in done.reason.words


def _work(settings: Settings, model: Any, method: str, *args: Any) -> Work:
    name = type(model).__name__
    return workload.of_call(settings, Invocation(ROWS[name], method, getattr(type(model), method), model, args, {}))


@pytest.mark.parametrize(
    "carrier",
    [pytest.param("shared", marks=pytest.mark.skipif(os.name == "nt", reason="there is no such memory")), "stream"],
)
def test_an_array_that_was_made_in_the_pool_is_expected_to_be_sent_where_no_memory_is_shared(
    carrier: str, running_worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with offload(policy="auto", carrier=carrier):
        there, here = sklearn_wsl_gpu.asarray(np.ones((20_000, 5))), np.ones((20_000, 5))
        works = [_noticed(lambda data=data: StandardScaler().fit(data), monkeypatch)[0] for data in (there, here)]
        nbytes = there.nbytes
        del there

    assert [work.lying for work in works] == [nbytes if carrier == "shared" else 0, 0]


def test_a_call_that_raises_teaches_nothing(shared_worker: None) -> None:
    with offload(policy="auto", exclude=["Ridge"]) as session:
        with pytest.raises(ValueError, match="NaN"):
            Ridge().fit(X * np.nan, y)

    work = _work(session.settings, Ridge(), "fit", X, y)
    assert measuring.predict(work).local is None


def test_a_metric_without_an_engine_for_it_is_none_of_the_tables_business(
    shared_worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with offload(policy="auto"):
        assert _noticed(lambda: r2_score(X[:, 0], X[:, 1]), monkeypatch) == []


def test_a_call_that_has_waited_for_another_teaches_nothing_of_the_way(running_worker: None) -> None:
    Z = np.random.default_rng(0).normal(size=(4000, 20))
    with offload(fallback="raise") as session:
        StandardScaler().fit(X)
        measuring._measured.table = Table()

        def compute() -> None:
            with offload(fallback="raise"):
                RandomForestClassifier(200).fit(Z, Z[:, 0] > Z[:, 1])

        other = threading.Thread(target=compute)
        other.start()
        until(lambda: bool(session.status()["running"]))
        StandardScaler().fit(X)
        other.join()

    assert session.report().calls[-1].total_seconds > 0.5
    curves = {curve[1]: curve for curve in measuring._measured.table.to_data()["curves"]}
    assert math.exp(curves["StandardScaler.fit"][3][0][3]) < 0.3
    assert all(math.exp(link[2]) < 0.3 for link in measuring._measured.table.to_data()["links"])
