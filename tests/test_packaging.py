"""What is installed is complete, and is what these tests test."""

from __future__ import annotations

import json
import re
from importlib.metadata import Distribution, distribution, entry_points
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

import sklearn_wsl_gpu
import wsl_worker
from wsl_worker.engines.base import Engine

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture
def installed() -> Distribution:
    return distribution("sklearn-wsl-gpu")


def _checkout_of_editable(installed: Distribution) -> Path | None:
    """Return the directory of an editable installation, or None if it is a real one."""
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlparse(origin["url"]).path))


def test_what_is_tested_is_what_is_installed(installed: Distribution) -> None:
    editable = _checkout_of_editable(installed)
    for package in (sklearn_wsl_gpu, wsl_worker):
        where = Path(str(package.__file__)).parent
        if editable is None:
            assert where == Path(str(installed.locate_file(package.__name__)))
            assert where != CHECKOUT / package.__name__
        else:
            assert where == editable / package.__name__


def test_metadata_names_version_licence_and_python(installed: Distribution) -> None:
    metadata = installed.metadata

    assert metadata["Name"] == "sklearn-wsl-gpu"
    assert re.fullmatch(r"\d+\.\d+\.\d+([ab]\d+|rc\d+|\.dev\d+)?", metadata["Version"])
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Summary"]
    assert metadata.get_payload()


def test_every_dependency_has_a_lower_and_an_upper_bound(installed: Distribution) -> None:
    needed = [entry for entry in installed.requires or [] if "extra ==" not in entry]

    assert {re.split(r"[<>=!~ ]", entry)[0] for entry in needed} == {"msgpack", "numpy", "pyzmq", "scikit-learn"}
    assert [entry for entry in needed if "<" not in entry or ">=" not in entry] == []


def test_everything_that_is_imported_is_a_dependency(installed: Distribution) -> None:
    # scipy and joblib come with scikit-learn, which cannot be installed without them.
    needed = " ".join(installed.requires or [])

    assert all(name in needed for name in ("numpy", "scikit-learn", "msgpack", "pyzmq"))


@pytest.mark.parametrize("package", ["sklearn_wsl_gpu", "wsl_worker"])
def test_type_checkers_see_the_annotations(package: str) -> None:
    assert (files(package) / "py.typed").is_file()


def test_engines_are_entry_points_that_load_to_their_own_name() -> None:
    found = {point.name: point.load() for point in entry_points(group="sklearn_wsl_gpu.engines")}

    assert "cpu" in found
    for name, engine in found.items():
        assert issubclass(engine, Engine)
        assert engine.name == name


def test_a_wheel_holds_the_packages_and_nothing_beside_them(installed: Distribution) -> None:
    if _checkout_of_editable(installed) is not None:
        pytest.skip("an editable installation has no files of its own")
    tops = {Path(str(file)).parts[0] for file in installed.files or [] if ".." not in str(file)}

    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "sklearn_wsl_gpu",
        "wsl_worker",
        "zz_sklearn_wsl_gpu.pth",
    }
