"""Importing costs nothing: heavy libraries are loaded by those who use them, when they do."""

from __future__ import annotations

import subprocess
import sys

import pytest


def _loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a statement loads in a fresh interpreter."""
    script = f"import sys; {statement}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


HEAVY = {"numpy", "scipy", "sklearn", "joblib", "pandas", "polars", "zmq", "msgpack", "cupy", "cuml", "torch"}


def test_importing_the_package_loads_none_of_its_libraries() -> None:
    assert _loaded_by("import sklearn_wsl_gpu") & HEAVY == set()


def test_importing_the_package_loads_no_module_of_it_but_itself() -> None:
    script = "import sys, sklearn_wsl_gpu; print(*[name for name in sys.modules if name.startswith('sklearn_wsl')])"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert ran.stdout.split() == ["sklearn_wsl_gpu"]


@pytest.mark.parametrize("name", ["OffloadError", "Report", "FallbackWarning"])
def test_errors_and_reports_cost_nothing_either(name: str) -> None:
    assert _loaded_by(f"from sklearn_wsl_gpu import {name}") & HEAVY == set()


@pytest.mark.parametrize("module", ["front", "scheduler", "sessions", "supervisor", "link", "__main__"])
def test_the_front_starts_without_scikit_learn(module: str) -> None:
    loaded = _loaded_by(f"import wsl_worker.{module}")

    assert loaded & {"sklearn", "scipy", "joblib", "pandas", "cupy", "cuml"} == set()


def test_naming_the_engines_imports_none() -> None:
    assert _loaded_by("from sklearn_wsl_gpu import config; config.resolve({'engine': 'cpu'})") & {"sklearn"} == set()
