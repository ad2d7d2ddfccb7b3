"""`offload`: what a user types, and what they can rely on."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import offload


def test_a_fit_inside_offload_runs_on_the_worker_and_leaves_a_plain_estimator(shared_worker: None) -> None:
    X = np.random.default_rng(0).normal(size=(50, 3))
    local = StandardScaler().fit(X)

    with offload() as session:
        remote = StandardScaler().fit(X)

    assert [call.where for call in session.report().calls] == ["worker"]
    assert vars(remote).keys() == vars(local).keys()
    np.testing.assert_array_equal(local.mean_, remote.mean_)


def test_a_worker_is_started_on_first_use_and_gone_after_shutdown() -> None:
    X = np.arange(12.0).reshape(6, 2)

    with offload() as session:
        LinearRegression().fit(X, X[:, 0])

    assert session.report().offloaded == 1
