"""A ProgressBar of scikit-learn on a fit that the worker is at."""

from __future__ import annotations

from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import sklearn_wsl_gpu
from tests.parity.cases import X

callback = pytest.importorskip("sklearn.callback", reason="this scikit-learn has no callbacks")


@pytest.mark.usefixtures("running_worker")
def test_it_shows_a_task_while_the_worker_is_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    # A fit of seconds: its second task is to be told of before its last one ends.
    many, sides = rng.normal(size=(300_000, 50)), rng.integers(0, 2, 300_000)
    running = []
    with sklearn_wsl_gpu.offload(fallback="raise") as session:
        StandardScaler().fit(X)
        hook = callback.ProgressBar.on_fit_task_begin

        def ask(self: Any, estimator: Any, context: Any) -> None:
            if context.task_name == "lbfgs-iter" and context.task_id == 1:
                running.append(session.status()["running"])
            hook(self, estimator, context)

        monkeypatch.setattr(callback.ProgressBar, "on_fit_task_begin", ask)
        model = LogisticRegression(tol=0.0, max_iter=200, C=1e6).set_callbacks(callback.ProgressBar())
        model.fit(many, sides)

    assert running == [1]


@pytest.mark.falls_back
@pytest.mark.usefixtures("running_worker")
def test_a_fit_whose_executor_dies_is_shown_again_from_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    # A fit of seconds: the executor is to be killed before its last task is told of.
    many, sides = rng.normal(size=(300_000, 50)), rng.integers(0, 2, 300_000)
    killed, names = [], []
    for name in ("setup", "on_fit_task_begin", "teardown"):
        hook = getattr(callback.ProgressBar, name)

        def note(self: Any, estimator: Any, context: Any, name: str = name, hook: Any = hook) -> None:
            names.append(name)
            if context.task_name == "lbfgs-iter" and not killed:
                killed.append(psutil.Process(executor))
                killed[0].kill()
            hook(self, estimator, context)

        monkeypatch.setattr(callback.ProgressBar, name, note)

    with sklearn_wsl_gpu.offload() as session:
        StandardScaler().fit(X)
        executor = session.status()["executor_pid"]
        model = LogisticRegression(tol=0.0, max_iter=50, C=1e6).set_callbacks(callback.ProgressBar())
        with pytest.warns(sklearn_wsl_gpu.FallbackWarning, match="executor"):
            model.fit(many, sides)

    assert killed
    assert names[0] == "setup"
    assert names[-1] == "teardown"
    assert names.count("setup") == names.count("teardown") == 2
    assert names[names.index("teardown") + 1] == "setup"
    assert model.n_iter_[0] > 0
