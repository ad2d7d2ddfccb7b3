"""scikit-learn's settings hold for what the worker does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import get_scorer, pairwise_distances_chunked
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler

import sklearn_wsl_gpu
from sklearn_wsl_gpu.testing import first_difference
from tests.integration.tools import run_python
from tests.parity.cases import CLASSES, NUMBERS, WEIGHTS, X, on_the_worker

pytestmark = pytest.mark.usefixtures("shared_worker")

_NAMES = list("abcdef")


def test_assume_finite_reaches_the_worker() -> None:
    holes = X.copy()
    holes[0, 0] = np.nan
    model = Ridge().fit(X, NUMBERS)
    with on_the_worker(), sklearn.config_context(assume_finite=True):
        found = model.predict(holes)

    assert np.isnan(found[0])
    assert not np.isnan(found[1:]).any()


def test_working_memory_reaches_the_worker() -> None:
    many = np.random.default_rng(0).normal(size=(3000, 3))
    assert len(list(pairwise_distances_chunked(many, working_memory=1))) > 1
    model = NearestNeighbors(algorithm="brute", metric="cosine").fit(many)
    with sklearn.config_context(working_memory=1):
        local = model.kneighbors(many)
        with on_the_worker():
            remote = model.kneighbors(many)

    assert first_difference(local, remote) is None


@pytest.mark.parametrize(
    "data", [pd.DataFrame(X, columns=_NAMES), pl.DataFrame(X, schema=_NAMES)], ids=["pandas", "polars"]
)
@pytest.mark.parametrize("container", ["pandas", "polars", "default"])
@pytest.mark.parametrize(
    "estimator", [StandardScaler(), PolynomialFeatures(), OneHotEncoder(sparse_output=False)], ids=repr
)
def test_every_container_comes_out_of_every_frame(estimator: Any, container: str, data: Any) -> None:
    def run() -> Any:
        chosen = clone(estimator).set_output(transform=container)
        with sklearn.config_context(transform_output=container):
            return chosen.fit_transform(data), clone(estimator).fit(data).transform(data)

    local = run()
    with on_the_worker():
        remote = run()

    assert type(remote[0]).__module__.partition(".")[0] == container.replace("default", "numpy")
    assert first_difference(local, remote) is None


def test_metadata_is_routed_to_what_is_fitted_on_the_worker() -> None:
    groups = np.arange(60) % 4

    def run() -> Any:
        with sklearn.config_context(enable_metadata_routing=True):
            weighted = make_pipeline(
                StandardScaler().set_fit_request(sample_weight=False),
                LogisticRegression().set_fit_request(sample_weight=True),
            )
            scorer = get_scorer("accuracy").set_score_request(sample_weight=True)
            search = GridSearchCV(weighted, {"logisticregression__C": [0.1, 1.0]}, scoring=scorer, cv=GroupKFold(2))
            search.fit(X, CLASSES, sample_weight=WEIGHTS, groups=groups)
            return search, cross_validate(
                weighted,
                X,
                CLASSES,
                scoring=scorer,
                params={"sample_weight": WEIGHTS, "groups": groups},
                cv=GroupKFold(2),
            )["test_score"]

    local = run()
    with sklearn_wsl_gpu.offload(fallback="raise") as session:
        remote = run()

    assert session.report().local == 0
    found = [remote[0].best_estimator_[-1].coef_, remote[0].cv_results_["mean_test_score"], remote[1]]
    wanted = [local[0].best_estimator_[-1].coef_, local[0].cv_results_["mean_test_score"], local[1]]
    assert first_difference(wanted, found) is None
    unweighted = LogisticRegression(C=local[0].best_params_["logisticregression__C"])
    assert not np.array_equal(unweighted.fit(StandardScaler().fit_transform(X), CLASSES).coef_, found[0])


_DISPATCH = """
import os, sys
import numpy as np, sklearn
from sklearn.decomposition import PCA
from sklearn_wsl_gpu import offload
import sklearn_wsl_gpu
from sklearn_wsl_gpu.testing import assert_same
from tests.integration.tools import standalone_worker

X = np.random.default_rng(0).normal(size=(60, 5))
if sys.argv[1:]:
    del os.environ["SCIPY_ARRAY_API"]
with standalone_worker(sys.argv[0] + ".keys") as (endpoint, _):
    os.environ["SCIPY_ARRAY_API"] = "1"
    sklearn.set_config(array_api_dispatch=True)
    local = PCA(2, svd_solver="full").fit(X)
    with offload(endpoint=endpoint, keys=sys.argv[0] + ".keys", fallback="quiet") as session:
        assert_same(PCA(2, svd_solver="full").fit(X), local)
        try:
            PCA(2, svd_solver="arpack").fit(X)
        except ValueError as error:
            print(error)
    for call in session.report().calls:
        print(call.where, call.reason and call.reason.code)
"""


@pytest.mark.parametrize("is_worker_for_it", [True, False])
def test_array_api_dispatch_reaches_a_worker_that_is_made_for_it(is_worker_for_it: bool, tmp_path: Path) -> None:
    if sklearn.__version__.startswith("1.6."):
        pytest.importorskip("array_api_compat", reason="scikit-learn 1.6 wants array_api_compat for it")
    arguments = [str(tmp_path / "program"), *([] if is_worker_for_it else ["without"])]
    ran = run_python(f"import sys; sys.argv = {arguments}\n{_DISPATCH}", SCIPY_ARRAY_API="1")

    assert ran.stdout, ran.stderr
    error, *calls = ran.stdout.splitlines()
    assert "svd_solver='arpack' is not supported for Array API inputs" in error, ran.stderr
    # The worker objected to the second as scikit-learn does here, so it is under the same setting.
    expected = ["worker None", "local estimator-error"] if is_worker_for_it else ["local array-api-dispatch"] * 2
    assert calls == expected
