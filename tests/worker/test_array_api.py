"""The array-API engine: what it takes is computed as here, what it does not take is done here, with a reason."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, f1_score, pairwise_distances
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC

from sklearn_wsl_gpu import ConfigurationError, FallbackWarning, measuring, offload, sessions, workload
from sklearn_wsl_gpu.estimators.functions import FUNCTIONS
from sklearn_wsl_gpu.testing import assert_same
from wsl_worker.engines.array_api import ArrayApiEngine

pytestmark = pytest.mark.skipif(
    tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 9), reason="the engine needs scikit-learn 1.9"
)

_random = np.random.default_rng(5)
X = _random.normal(size=(90, 5)) + np.repeat([[0.0], [3.0], [9.0]], 30, axis=0)
Y = np.repeat([0, 1, 2], 30)
Z = X @ np.arange(5.0)


@pytest.mark.parametrize("namespace", ["array_api_strict", "torch"])
def test_the_engine_computes_what_scikit_learn_does_under_every_namespace(namespace: str) -> None:
    pytest.importorskip(namespace)
    suite = Path(__file__).parent / "array_api_suite.py"
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(suite)],
        env={**os.environ, "SCIPY_ARRAY_API": "1", "NAMESPACE": namespace, "OMP_NUM_THREADS": "1"},
        cwd=suite.parents[2],
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout[-6000:]


def _assert_close(remote: Any, local: Any) -> None:
    assert vars(remote).keys() == vars(local).keys()
    for name, value in vars(local).items():
        pair = vars(remote)[name], value
        if isinstance(value, np.ndarray):  # the memory order is the namespace's
            pair = np.ascontiguousarray(pair[0]), np.ascontiguousarray(value)
        assert_same(*pair, rtol=1e-5, atol=1e-7)


def _offloaded(fallback: str = "raise") -> offload:
    return offload(engine="array_api", device="cpu", fallback=fallback)


@pytest.mark.skipif(find_spec("torch") is None, reason="on the CPU the engine computes by PyTorch")
def test_the_benchmark_computes_all_three_ways_and_judges_the_results(tmp_path: Path) -> None:
    program, target = Path(__file__).parents[2] / "benchmarks" / "gpu.py", tmp_path / "gpu.json"
    asked = ["Ridge", "LabelBinarizer", "--engine", "array_api", "--device", "cpu", "--scale", "0.001"]
    ran = subprocess.run(
        [sys.executable, str(program), *asked, "--json", str(target)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr[-6000:]
    found = json.loads(target.read_text("utf-8"))
    assert found["verdict"] == {"within": 12, "outside": [], "errors": []}
    assert all(line["seconds"].keys() == {"plain", "direct", "worker"} for line in found["results"])


@pytest.mark.usefixtures("shared_worker")
@pytest.mark.worker(engine="array_api", device="cpu")
@pytest.mark.skipif(find_spec("torch") is None, reason="on the CPU the engine computes by PyTorch")
class TestOnTheCpu:
    def test_a_fit_leaves_what_a_local_fit_leaves(self) -> None:
        local = LogisticRegression().fit(X, Y)
        with _offloaded() as session:
            remote = LogisticRegression().fit(X, Y)
            predicted, score = remote.predict(X), remote.score(X, Y)

        _assert_close(remote, local)
        assert_same(predicted, local.predict(X))
        assert score == local.score(X, Y)
        assert {(call.where, call.engine) for call in session.report().calls} == {("worker", "array_api")}

    def test_what_is_pickled_is_plain_scikit_learn(self) -> None:
        with _offloaded():
            remote = GaussianMixture(3, init_params="random_from_data", random_state=0).fit(X)

        assert b"torch" not in pickle.dumps(remote)
        assert_same(pickle.loads(pickle.dumps(remote)).predict(X), remote.predict(X))

    def test_parameters_stay_and_nothing_is_warned_of(self) -> None:
        with _offloaded(), warnings.catch_warnings():
            warnings.simplefilter("error")
            remote = Ridge().fit(X, Z)

        assert remote.get_params() == Ridge().get_params()
        assert remote.solver_ == "svd"
        assert_same(remote.coef_, Ridge().fit(X, Z).coef_, rtol=1e-9)

    def test_labels_may_be_text_and_data_a_frame(self) -> None:
        frame, names = pd.DataFrame(X, columns=list("abcde")), np.array(["red", "green", "blue"])[Y]
        local = LogisticRegression().fit(frame, names)
        with _offloaded():
            remote = LogisticRegression().fit(frame, names)
            predicted = remote.predict(frame)

        _assert_close(remote, local)
        assert_same(predicted, local.predict(frame))

    def test_a_model_that_was_fitted_here_predicts_there(self) -> None:
        model = PCA(2, svd_solver="full").fit(X)
        with _offloaded():
            found = [model.transform(X), model.transform(X[:7]), model.score(X)]

        for one, other in zip(found, [model.transform(X), model.transform(X[:7]), model.score(X)], strict=True):
            assert_same(np.ascontiguousarray(one), np.ascontiguousarray(other), rtol=1e-9)

    def test_a_generator_is_advanced_as_here(self) -> None:
        mine, theirs = np.random.RandomState(3), np.random.RandomState(3)
        local = Nystroem(n_components=5, random_state=mine).fit(X)
        with _offloaded():
            remote = Nystroem(n_components=5, random_state=theirs).fit(X)

        assert_same(remote.component_indices_, local.component_indices_)
        assert_same(mine, theirs)

    @pytest.mark.falls_back
    @pytest.mark.parametrize(
        ("model", "data", "words"),
        [
            (LogisticRegression(solver="liblinear"), X, "solver='liblinear' is not supported"),
            (LogisticRegression(), scipy.sparse.csr_matrix(X), "sparse X is not taken"),
            (LogisticRegression(), X.astype("f2"), "X of dtype float16 is not taken"),
            (KMeans(3, n_init=1), X, "does not compute KMeans"),
            (StandardScaler(with_mean=False, with_std=False), X, "counting samples only is not supported"),
        ],
        ids=["solver", "sparse", "dtype", "estimator", "parameters"],
    )
    def test_what_it_does_not_take_is_done_here_with_a_reason(self, model: Any, data: Any, words: str) -> None:
        with _offloaded("local"), pytest.warns(FallbackWarning, match=re.escape(words)):
            clone(model).fit(data, np.minimum(Y, 1))

    @pytest.mark.falls_back
    def test_sparse_data_for_a_kept_model_are_predicted_here(self) -> None:
        with _offloaded("quiet") as session:
            model = LogisticRegression().fit(X, Y)
            found = model.predict(scipy.sparse.csr_matrix(X))

        assert_same(found, LogisticRegression().fit(X, Y).predict(X))
        assert [call.where for call in session.report().calls] == ["worker", "local"]

    def test_a_graph_is_one_call(self) -> None:
        def make() -> Any:
            return make_pipeline(StandardScaler(), make_union(PCA(2), MinMaxScaler()), LogisticRegression())

        words = np.array(["red", "green", "blue"])[Y]
        local = make().fit(X, words)
        with _offloaded() as session:
            remote = make().fit(X, words)
            predicted = remote.predict_proba(X)

        np.testing.assert_allclose(predicted, local.predict_proba(X), rtol=1e-5)
        assert type(remote[-1].coef_) is np.ndarray
        assert type(remote[0]) is StandardScaler
        assert [(call.estimator, call.engine) for call in session.report().calls] == [("Pipeline", "array_api")] * 2
        assert b"wsl" not in pickle.dumps(remote)

    def test_a_calibration_is_one_call(self) -> None:
        words = np.array(["red", "green", "blue"])[Y]
        for labels in (Y, words):
            local = CalibratedClassifierCV(LogisticRegression(), method="temperature").fit(X, labels)
            with _offloaded() as session:
                remote = CalibratedClassifierCV(LogisticRegression(), method="temperature").fit(X, labels)
                predicted, found = remote.predict_proba(X), remote.predict(X)

            np.testing.assert_allclose(predicted, local.predict_proba(X), rtol=1e-5)
            assert_same(found, local.predict(X))
            assert {(call.estimator, call.engine) for call in session.report().calls} == {
                ("CalibratedClassifierCV", "array_api")
            }
            assert type(remote.calibrated_classifiers_[0].estimator) is LogisticRegression
            assert not any(name in pickle.dumps(remote) for name in (b"wsl", b"torch"))

    def test_a_search_is_one_call_and_finds_what_it_finds_here(self) -> None:
        grid = {"logisticregression__C": [0.1, 1]}
        search = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), grid)
        local = clone(search).fit(X, Y)
        with _offloaded() as session:
            remote = clone(search).fit(X, Y)

        assert remote.best_params_ == local.best_params_
        np.testing.assert_allclose(remote.cv_results_["mean_test_score"], local.cv_results_["mean_test_score"])
        assert [call.method for call in session.report().calls] == ["fit_and_score", "fit"]
        assert type(remote.best_estimator_[0]) is StandardScaler

    @pytest.mark.falls_back
    def test_a_graph_with_a_part_that_it_does_not_compute_is_offloaded_in_parts(self) -> None:
        with _offloaded("quiet") as session:
            make_pipeline(StandardScaler(), SVC()).fit(X, Y)

        assert [(call.estimator, call.where) for call in session.report().calls] == [
            ("Pipeline", "in parts"), ("StandardScaler", "worker"), ("SVC", "local"),
        ]  # fmt: skip

    def test_metrics_are_computed_where_the_estimators_are(self) -> None:
        with _offloaded() as session:
            found = f1_score(Y, Y[::-1], average="macro"), pairwise_distances(X, metric="cosine")
            named = accuracy_score(np.array(["a", "b"]), np.array(["a", "c"]))

        assert found[0] == f1_score(Y, Y[::-1], average="macro")
        np.testing.assert_allclose(found[1], pairwise_distances(X, metric="cosine"), atol=1e-12)
        assert named == 0.5
        assert [call.method for call in session.report().calls] == ["f1_score", "pairwise_distances"]

    @pytest.mark.parametrize(("local", "remote", "where"), [(1e-5, 9.0, "local"), (9.0, 1e-5, "worker")])
    def test_a_metric_is_computed_where_that_is_measured_to_be_cheaper(
        self, local: float, remote: float, where: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(measuring, "_measured", measuring._Measured())
        with _offloaded() as session, offload(policy="auto"):
            work = workload.of_function(session.settings, "metrics.f1_score", Y, "array_api")
            for _ in range(9):
                measuring.note_local(work, local)
                measuring.note_remote(work, "array_api", remote, remote / 2, Y.nbytes)
            found = f1_score(Y, Y[::-1], average="macro")

        assert found == f1_score(Y, Y[::-1], average="macro")
        (done,) = session.report().calls
        assert (done.estimator, done.method, done.where) == ("metrics", "f1_score", where)
        assert (done.reason is None) == (where == "worker")

    def test_a_metric_says_what_is_wrong_as_scikit_learn_does(self) -> None:
        with _offloaded(), pytest.raises(ValueError, match="inconsistent numbers of samples"):
            accuracy_score(Y, Y[:3])


def test_a_metric_starts_no_worker_and_is_scikit_learns_own_without_one_that_computes_it() -> None:
    before = {name: function.function.__closure__[0].cell_contents for name, function in FUNCTIONS.items()}
    with offload(slot_bytes=2**20) as session:
        assert accuracy_score(Y, Y) == 1.0
        assert sessions.peek(session.settings) is None
        StandardScaler().fit(X)
        assert accuracy_score(Y, Y) == 1.0
        inside = {name: function.function.__closure__[0].cell_contents for name, function in FUNCTIONS.items()}

    assert [call.estimator for call in session.report().calls] == ["StandardScaler"]
    after = {name: function.function.__closure__[0].cell_contents for name, function in FUNCTIONS.items()}
    assert all(before[name] is after[name] is not inside[name] for name in FUNCTIONS)


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"array_api cannot run: .*(no GPU number 99|needs CuPy or PyTorch)"):
        ArrayApiEngine("cuda:99")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", -1, 1.5, None])
def test_a_device_that_is_none_is_refused_with_those_that_are(device: Any) -> None:
    with pytest.raises(ConfigurationError, match="device must be 'auto', 'cpu', 'cuda:N' or the number N of a GPU"):
        offload(device=device)


@pytest.mark.parametrize(("given", "means"), [("cuda", "cuda:0"), (1, "cuda:1"), ("cpu", "cpu")])
def test_a_gpu_may_be_given_by_its_number(given: Any, means: str) -> None:
    assert offload(device=given).resolved().device == means
