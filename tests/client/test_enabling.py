"""Offloading for the whole process: by a function, and by an environment variable before the program begins."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.preprocessing import StandardScaler

import sklearn_wsl_gpu
from sklearn_wsl_gpu import ConfigurationError, patching

pytestmark = pytest.mark.usefixtures("shared_worker")

X = np.random.default_rng(0).normal(size=(30, 3))


@pytest.fixture(autouse=True)
def disabled_afterwards() -> Iterator[None]:
    yield
    sklearn_wsl_gpu.disable()
    assert not patching.is_installed()


def test_enable_offloads_in_every_thread_until_disable() -> None:
    original = KMeans.fit
    session = sklearn_wsl_gpu.enable(fallback="raise")
    StandardScaler().fit(X)
    thread = threading.Thread(target=lambda: StandardScaler().fit(X))
    thread.start()
    thread.join()
    sklearn_wsl_gpu.disable()
    StandardScaler().fit(X)

    assert session.report().offloaded == 2
    assert session.report().local == 0
    assert KMeans.fit is original


def test_enable_again_replaces_the_settings() -> None:
    sklearn_wsl_gpu.enable()
    session = sklearn_wsl_gpu.enable(exclude=["StandardScaler"])
    StandardScaler().fit(X)
    sklearn_wsl_gpu.disable()

    assert (session.report().offloaded, session.report().local) == (0, 1)
    assert not patching.is_installed()


def test_a_block_inside_has_its_say() -> None:
    session = sklearn_wsl_gpu.enable(exclude=["StandardScaler"])
    with sklearn_wsl_gpu.offload(exclude=None) as inner:
        StandardScaler().fit(X)
    StandardScaler().fit(X)

    assert inner.report().offloaded == 1
    assert [call.where for call in session.report().calls] == ["worker", "local"]


def test_what_runs_beneath_a_local_call_stays_local() -> None:
    session = sklearn_wsl_gpu.enable(exclude=["StandardScaler"])
    StandardScaler().fit_transform(X)  # calls its own fit and transform

    assert [call.method for call in session.report().calls] == ["fit_transform"]


def test_a_wrong_setting_changes_nothing() -> None:
    with pytest.raises(ConfigurationError, match="fallback must be one of"):
        sklearn_wsl_gpu.enable(fallback="never")

    assert not patching.is_installed()


def test_disable_without_enable_does_nothing() -> None:
    sklearn_wsl_gpu.disable()
    with sklearn_wsl_gpu.offload():
        sklearn_wsl_gpu.disable()
        assert patching.is_installed()


def _run(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SKLEARN_WSL_GPU")}
    return subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment | variables,
    )


_FIT = """
import sys
assert "sklearn_wsl_gpu.config" not in sys.modules and "numpy" not in sys.modules, "too early"
from sklearn.preprocessing import StandardScaler
StandardScaler().fit([[1.0], [2.0]])
import sklearn_wsl_gpu
print(sklearn_wsl_gpu.report().offloaded)
"""


@pytest.mark.parametrize(("value", "offloaded"), [("1", "1"), ("true", "1"), ("0", "0"), ("", "0")])
def test_the_environment_variable_turns_it_on_for_a_program_that_does_not_know_of_it(
    value: str, offloaded: str
) -> None:
    ran = _run(_FIT, SKLEARN_WSL_GPU=value)

    assert (ran.returncode, ran.stdout.strip(), ran.stderr) == (0, offloaded, "")


def test_the_settings_have_variables_too() -> None:
    ran = _run(_FIT, SKLEARN_WSL_GPU="1", SKLEARN_WSL_GPU_EXCLUDE="StandardScaler")

    assert (ran.stdout.strip(), ran.stderr) == ("0", "")


def test_an_unset_variable_imports_nothing() -> None:
    ran = _run("import sys; print([name for name in sys.modules if 'wsl' in name])")

    assert ran.stdout.strip() == "[]"


def test_scikit_learn_is_left_alone_until_it_is_imported() -> None:
    script = "import sys; print(*[name in sys.modules for name in ('sklearn', 'numpy', 'sklearn_wsl_gpu.autoload')])"
    ran = _run(script, SKLEARN_WSL_GPU="1")

    assert ran.stdout.split() == ["False", "False", "True"]


def test_importing_a_part_of_scikit_learn_is_enough() -> None:
    script = """
import sklearn.cluster._kmeans as module, sklearn, importlib.resources
from sklearn_wsl_gpu import patching
print(patching.is_installed(), type(sklearn.__spec__.loader).__name__, "exec_module" in vars(sklearn.__spec__.loader))
print(importlib.resources.files("sklearn").joinpath("__init__.py").is_file())
"""
    assert _run(script, SKLEARN_WSL_GPU="1").stdout.split() == ["True", "SourceFileLoader", "False", "True"]


def test_a_variable_that_is_neither_yes_nor_no_is_told_and_has_no_effect() -> None:
    ran = _run(_FIT, SKLEARN_WSL_GPU="cuda")

    assert ran.stdout.strip() == "0"
    assert ran.stderr == "sklearn_wsl_gpu: SKLEARN_WSL_GPU must be 1 or 0, not 'cuda'; it has no effect.\n"


def test_a_wrong_setting_in_the_environment_does_not_stop_the_program() -> None:
    ran = _run(_FIT, SKLEARN_WSL_GPU="1", SKLEARN_WSL_GPU_SLOTS="many")

    assert (ran.returncode, ran.stdout.strip()) == (0, "0")
    assert "FallbackWarning: SKLEARN_WSL_GPU is set, but nothing is offloaded: ConfigurationError: slots" in ran.stderr


def test_processes_of_joblib_and_of_multiprocessing_are_offloaded_too(tmp_path: Path) -> None:
    script = """
import multiprocessing
import numpy as np
from joblib import Parallel, delayed
from sklearn.preprocessing import StandardScaler
from sklearn.model_selection import cross_val_score
from sklearn.linear_model import Ridge

def fit(seed):
    StandardScaler().fit(np.eye(3) * seed)
    import sklearn_wsl_gpu
    return sklearn_wsl_gpu.report().offloaded

if __name__ == "__main__":
    print(min(Parallel(n_jobs=2)(delayed(fit)(seed) for seed in range(1, 4))) > 0)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(fit, [1]))
    print(len(cross_val_score(Ridge(), np.eye(20), np.arange(20.0), n_jobs=2)))
"""
    path = tmp_path / "program.py"
    path.write_text(script)
    environment = {**os.environ, "SKLEARN_WSL_GPU": "1", "PYTHONWARNINGS": "error::UserWarning"}
    ran = subprocess.run(
        [sys.executable, path], check=False, capture_output=True, text=True, timeout=240, env=environment
    )

    assert (ran.stdout.split(), ran.stderr) == (["True", "[1]", "5"], "")
