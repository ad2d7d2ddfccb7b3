"""policy="auto" where there is no worker yet."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import costfile, measuring, offload, sessions, workload
from sklearn_wsl_gpu.estimators import ROWS
from sklearn_wsl_gpu.invocation import Invocation

pytestmark = pytest.mark.usefixtures("own_costs")

X = np.random.default_rng(0).normal(size=(400, 5))
y = (X[:, 0] > 0).astype(int)


def test_a_call_that_stays_starts_no_worker_gives_no_warning_and_is_no_error() -> None:
    scaler = StandardScaler().fit(X)
    with warnings.catch_warnings(), offload(policy="auto", engine="cpu", fallback="raise") as session:
        warnings.simplefilter("error")
        scaler.transform(X)
        assert sessions.live() == []

    (done,) = session.report().calls
    assert (done.where, done.bytes_sent) == ("local", 0)
    assert done.reason is not None
    assert done.reason.code == "stays-cheaper"


def test_the_start_of_a_worker_is_not_counted_as_a_cost_of_the_call() -> None:
    with offload(policy="auto", fallback="raise") as session:
        Ridge().fit(X, y)
        call = Invocation(ROWS["Ridge"], "fit", Ridge.fit, Ridge(), (X, y), {})
        prediction = measuring.predict(workload.of_call(session.settings, call))

    (done,) = session.report().calls
    assert prediction.remote is not None
    assert prediction.remote < done.total_seconds / 2


def test_runs_after_each_other_learn_and_a_run_under_always_leaves_no_file(tmp_path: Path) -> None:
    program = """
import numpy as np, sys
from sklearn.preprocessing import StandardScaler
from sklearn_wsl_gpu import offload
X = np.ones((400, 5))
with offload(policy=sys.argv[1]) as session:
    StandardScaler().fit(X)
print(session.report().calls[0].where)
"""

    def run(policy: str) -> str:
        command = [sys.executable, "-c", program, policy]
        ran = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
        return ran.stdout.strip()

    assert run("always") == "worker"
    assert list(tmp_path.iterdir()) == []
    assert run("auto") == "worker"  # nothing is known, not even which engine the worker has
    assert costfile.path().exists()
    assert run("auto") == "local"


def test_the_environment_chooses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKLEARN_WSL_GPU_POLICY", "auto")
    with offload(engine="cpu") as session:
        StandardScaler().fit(X)

    assert session.settings.policy == "auto"
    assert [call.where for call in session.report().calls] == ["local"]
