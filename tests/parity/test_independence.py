"""A remotely fitted estimator needs neither its worker nor this package; a worker may forget it, or die."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge

from sklearn_wsl_gpu import offload, sessions
from sklearn_wsl_gpu.estimators import ROWS
from sklearn_wsl_gpu.testing import first_difference
from tests.parity.cases import CATEGORIES, CLASSES, NUMBERS, X, arguments, data_for, make, on_the_worker

pytestmark = pytest.mark.filterwarnings("ignore")

#: What users call on fitted estimators that no row names: it runs here, on what came back.
NATIVE: dict[str, Callable[[Any], Any]] = {
    "KMeans": lambda est: [est.get_feature_names_out(), est.n_iter_, est.inertia_],
    "PCA": lambda est: [est.get_covariance(), est.get_precision(), est.get_feature_names_out(), est.noise_variance_],
    "IncrementalPCA": lambda est: [est.get_covariance(), est.get_precision()],
    "TruncatedSVD": lambda est: est.get_feature_names_out(),
    "SVC": lambda est: [est.n_support_, est.dual_coef_ @ est.support_vectors_, est.probA_],
    "LinearSVC": lambda est: [est.sparsify().coef_, est.densify().predict(X)],
    "LogisticRegression": lambda est: [est.sparsify().coef_, est.densify().decision_function(X)],
    "RandomForestClassifier": lambda est: [
        est.feature_importances_,
        est.estimators_samples_,
        [tree.get_depth() for tree in est.estimators_],
        est.estimators_[0].cost_complexity_pruning_path(X, CLASSES).ccp_alphas,
    ],
    "RandomForestRegressor": lambda est: [est.feature_importances_, len(est), est[0].predict(X)],
    "IsolationForest": lambda est: [est.estimators_samples_, est.offset_],
    "Lasso": lambda est: est.sparse_coef_,
    "ElasticNet": lambda est: est.sparse_coef_,
    "KernelDensity": lambda est: est.sample(3, random_state=0),
    "PolynomialFeatures": lambda est: [est.get_feature_names_out(), est.powers_],
    "OneHotEncoder": lambda est: [est.get_feature_names_out(), est.categories_],
    "StandardScaler": lambda est: est.get_feature_names_out(),
    "HDBSCAN": lambda est: est.dbscan_clustering(3.0),
    "LedoitWolf": lambda est: est.get_precision(),
}


def _fitted(name: str) -> BaseEstimator:
    data, target = data_for(name)
    return make(name).fit(*arguments(name, "fit", CLASSES if not ROWS[name].named else data, target, None))


def kill_worker() -> None:
    """Kill the worker and all that it has started, as the system does when memory is short."""
    processes = psutil.Process().children(recursive=True)
    for process in processes:
        process.kill()
    psutil.wait_procs(processes)


@pytest.mark.usefixtures("running_worker")
def test_what_is_not_offloaded_works_on_a_remotely_fitted_estimator() -> None:
    local = {name: use(_fitted(name)) for name, use in NATIVE.items()}
    with on_the_worker():
        remote = {name: _fitted(name) for name in NATIVE}

    assert first_difference(local, {name: use(remote[name]) for name, use in NATIVE.items()}) is None


def test_every_method_works_here_when_the_worker_is_gone() -> None:
    with on_the_worker():
        remote = {name: _fitted(name) for name in ROWS}
    kill_worker()

    found = {}
    for name, estimator in remote.items():
        data, target = data_for(name) if ROWS[name].named else (CLASSES, None)
        for method in ROWS[name].method_names:
            if hasattr(estimator, method):
                given = arguments(name, method, data, target, estimator)
                local = getattr(_fitted(name), method)(*given)
                found[name, method] = first_difference(local, getattr(copy.deepcopy(estimator), method)(*given))
    assert {call: words for call, words in found.items() if words} == {}


@pytest.mark.usefixtures("running_worker")
def test_a_pickle_loads_and_predicts_where_this_package_is_not_installed(tmp_path: Path) -> None:
    with on_the_worker():
        fitted = {name: _fitted(name) for name in ROWS}
    expected = {
        name: estimator.predict(data_for(name)[0])
        for name, estimator in fitted.items()
        if hasattr(estimator, "predict")
    }
    (tmp_path / "models.pickle").write_bytes(pickle.dumps((fitted, expected, X, CATEGORIES)))
    script = """
import pickle, sys
for name in ("sklearn_wsl_gpu", "wsl_worker", "zmq", "msgpack"):
    sys.modules[name] = None
with open(sys.argv[1], "rb") as file:
    fitted, expected, X, categories = pickle.load(file)
for name, labels in expected.items():
    assert (fitted[name].predict(X) == labels).all(), name
print(len(fitted), len(expected))
"""
    ran = subprocess.run(
        [sys.executable, "-I", "-c", script, tmp_path / "models.pickle"], capture_output=True, text=True, check=False
    )

    assert (ran.stdout, ran.stderr) == (f"{len(fitted)} {len(expected)}\n", "")


@pytest.mark.parametrize("model_bytes", [0, 60_000])
def test_a_model_that_the_worker_has_dropped_is_sent_again(model_bytes: int) -> None:
    models = [Ridge(alpha=alpha).fit(X, NUMBERS) for alpha in (1, 2, 3, 4, 5)]
    with offload(fallback="raise", model_bytes=model_bytes) as session:
        # From then on it is settled which arrays travel in the message.
        assert sessions.obtain(session.settings).room.ready.wait(60)
        for _ in range(2):
            remote = [model.predict(X) for model in models]
    sent = [call.bytes_sent for call in session.report().calls]

    assert first_difference([model.predict(X) for model in models], remote) is None
    assert sent[5:] == sent[:5]


@pytest.mark.falls_back
def test_a_model_outlives_the_worker_that_made_it() -> None:
    with on_the_worker():
        model = RandomForestRegressor(5, random_state=0).fit(X, NUMBERS)
        before = model.predict(X)
    kill_worker()
    with offload() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, second = model.predict(X), model.predict(X)

    assert first_difference(before, first) is None
    assert first_difference(before, second) is None
    assert session.report().calls[-1].where == "worker"
