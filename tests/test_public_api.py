"""What a user may import, and what is promised about it."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from dataclasses import fields
from importlib.metadata import version

import pytest

import sklearn_wsl_gpu
from sklearn_wsl_gpu.config import UNSET, Settings


def test_public_names_are_sorted_and_there_once() -> None:
    assert sklearn_wsl_gpu.__all__ == sorted(set(sklearn_wsl_gpu.__all__))


@pytest.mark.parametrize("name", sklearn_wsl_gpu.__all__)
def test_a_public_name_resolves_is_documented_and_says_where_it_lives(name: str) -> None:
    value = getattr(sklearn_wsl_gpu, name)

    assert value.__doc__
    assert value.__name__ == name
    assert getattr(importlib.import_module(value.__module__), name) is value
    assert value.__module__.startswith("sklearn_wsl_gpu.")


@pytest.mark.parametrize("name", sklearn_wsl_gpu.__all__)
def test_public_methods_are_documented(name: str) -> None:
    value = getattr(sklearn_wsl_gpu, name)
    members = vars(value).items() if isinstance(value, type) else ()

    assert [key for key, item in members if callable(item) and not key.startswith("_") and not item.__doc__] == []


def test_dir_lists_what_is_public() -> None:
    assert dir(sklearn_wsl_gpu) == sorted([*sklearn_wsl_gpu.__all__, "__version__"])


def test_a_wrong_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'sklearn_wsl_gpu' has no attribute 'ofload'"):
        _ = sklearn_wsl_gpu.ofload


def test_the_version_is_that_of_the_installed_distribution() -> None:
    assert sklearn_wsl_gpu.__version__ == version("sklearn-wsl-gpu")


def test_a_submodule_never_takes_the_place_of_a_public_name() -> None:
    script = """
import importlib, pkgutil, sklearn_wsl_gpu
for module in pkgutil.walk_packages(sklearn_wsl_gpu.__path__, "sklearn_wsl_gpu."):
    importlib.import_module(module.name)
for name in ("config_context", "disable", "enable", "offload", "report", "shutdown"):
    found = {}
    exec(f"from sklearn_wsl_gpu import {name}", found)
    assert callable(getattr(sklearn_wsl_gpu, name)) and callable(found[name]), name
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_offload_takes_every_setting_by_name_and_nothing_else() -> None:
    parameters = inspect.signature(sklearn_wsl_gpu.offload).parameters

    assert list(parameters) == [item.name for item in fields(Settings)]
    assert {parameter.kind for parameter in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert {id(parameter.default) for parameter in parameters.values()} == {id(UNSET)}


def test_enable_takes_what_offload_takes() -> None:
    parameters = inspect.signature(sklearn_wsl_gpu.enable).parameters

    assert parameters == inspect.signature(sklearn_wsl_gpu.offload).parameters


def test_offload_documents_every_setting_with_its_default() -> None:
    doc = inspect.getdoc(sklearn_wsl_gpu.offload) or ""
    section = doc[doc.index("Parameters\n") : doc.index("Raises\n")]

    for item in fields(Settings):
        entry = next(line for line in section.splitlines() if item.name in line.partition(" : ")[0].split(", "))
        assert entry.endswith(f"default={item.default!r}".replace("'", '"'))


def test_every_error_is_an_offload_error_and_says_so_by_its_code() -> None:
    values = [getattr(sklearn_wsl_gpu, name) for name in sklearn_wsl_gpu.__all__]
    errors = [value for value in values if isinstance(value, type) and issubclass(value, Exception)]

    for error in errors:
        assert issubclass(error, (sklearn_wsl_gpu.OffloadError, Warning))
    codes = {error("words").code for error in errors if not issubclass(error, Warning)}
    assert all(code == code.lower() and " " not in code for code in codes)
