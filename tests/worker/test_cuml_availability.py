"""Whether cuML can compute here is known without importing it, and said in words where it cannot."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
from sklearn.cluster import KMeans

from sklearn_wsl_gpu import offload
from sklearn_wsl_gpu.estimators import ROWS
from sklearn_wsl_gpu.testing import assert_same
from wsl_worker.engines.base import is_exhausted
from wsl_worker.engines.cuml import CumlEngine, bound, memory

random = np.random.default_rng(11)
X = random.normal(size=(120, 6)) * [1.0, 2.0, 3.0, 1.0, 0.5, 1.0]


@pytest.mark.parametrize("gigabytes", [0.5, 2, 8, 24, 80])
def test_a_pool_leaves_the_device_some_memory_and_can_grow(gigabytes: float) -> None:
    free = int(gigabytes * 2**30)
    first, most = memory.pool_sizes(free)

    assert 0 < first < most < free
    assert first % 256 == most % 256 == 0
    assert most >= free // 2 - 256


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError("std::bad_alloc: out_of_memory: CUDA error"), True),
        (RuntimeError("cudaErrorMemoryAllocation: out of memory"), True),
        (RuntimeError("cudaErrorIllegalAddress"), False),
        (ValueError("n_clusters"), False),
    ],
)
def test_a_full_device_is_told_from_other_failures(error: Exception, says: bool) -> None:
    assert is_exhausted(error) is says


def test_arguments_are_known_by_the_names_of_scikit_learns_method() -> None:
    assert bound(ROWS["KMeans"], "fit", [1], {"sample_weight": 2}) == {"X": 1, "sample_weight": 2}
    assert bound(ROWS["IsolationForest"], "fit_predict", [1], {"sample_weight": 2}) == {"X": 1, "sample_weight": 2}
    assert bound(ROWS["LabelBinarizer"], "inverse_transform", [1, 0.5], {}) == {"Y": 1, "threshold": 0.5}
    with pytest.raises(TypeError, match="unexpected"):
        bound(ROWS["PCA"], "fit", [1], {"sample_weight": 2})


def test_the_engine_is_looked_at_without_importing_cuml() -> None:
    code = (
        "import sys; from wsl_worker import engines; from wsl_worker.engines.cuml import CumlEngine;"
        "CumlEngine.unavailable('auto'); engines.names();"
        "sys.exit(bool({'cuml', 'cupy', 'cudf', 'rmm'} & sys.modules.keys()))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_cuml_the_engine_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("wsl_worker.engines.cuml.metadata.version", missing)

    assert CumlEngine.unavailable("auto") == "cuML is not installed. Install sklearn-wsl-gpu[cuml-cu13]."


@pytest.mark.parametrize(
    ("device", "gpus", "words"),
    [
        ("cpu", 1, "it computes on a GPU only"),
        ("auto", 0, "there is no NVIDIA driver, or no GPU that this process may use"),
        ("cuda:1", 1, "CUDA shows no GPU number 1 here"),
    ],
)
def test_a_device_that_cannot_compute_is_refused_with_the_reason(
    device: str, gpus: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsl_worker.engines.cuml.metadata.version", lambda name: "26.10.0")
    monkeypatch.setattr("wsl_worker.engines.cuml.count_gpus", lambda: gpus)

    assert words in str(CumlEngine.unavailable(device))
    assert CumlEngine.unavailable(f"cuda:{gpus}") is not None
    monkeypatch.setattr("wsl_worker.engines.cuml.count_gpus", lambda: gpus + 2)
    assert (CumlEngine.unavailable(device) is None) is (device != "cpu")


@pytest.mark.falls_back
@pytest.mark.skipif(CumlEngine.unavailable("auto") is None, reason="there is a GPU here, and cuML")
def test_where_cuml_cannot_run_calls_are_done_here_and_the_report_says_what_is_missing() -> None:
    with offload(engine="cuml", fallback="quiet") as session:
        found = KMeans(3, n_init=1, random_state=0).fit(X).labels_

    assert_same(found, KMeans(3, n_init=1, random_state=0).fit(X).labels_)
    reasons = [str(call.reason) for call in session.report().calls]
    assert reasons
    assert all("cuML is not installed" in words or "CUDA shows no GPU here" in words for words in reasons)
