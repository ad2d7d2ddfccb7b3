"""Of other people's packages, what is known without importing them."""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

from sklearn_wsl_gpu.estimators import third_party


def test_a_package_is_of_the_version_of_the_distribution_that_has_it() -> None:
    owners = {name: owned for name, owned in packages_distributions().items() if PathFinder.find_spec(name)}

    assert {"numpy", "sklearn", "zmq"} <= owners.keys()  # zmq is of pyzmq
    for name, owned in owners.items():
        found = third_party.installed_version(name)
        assert found in {version(owner) for owner in owned} or not found, name
    assert [third_party.installed_version(name) for name in ("sklearn", "zmq")] == [
        version("scikit-learn"), version("pyzmq"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("RECORD", "other_there.py,,\nthere.py,sha256=x,12\n"),
        ("RECORD", "there/__init__.py,sha256=x,12\n"),
        ("RECORD", "there/part.py,sha256=x,12\n"),
        ("top_level.txt", "other\nthere\n"),
    ],
)
def test_a_package_is_found_by_what_its_distribution_tells(
    name: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = tmp_path / "Some_name-2.5.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: Some-name\nVersion: 2.5\n")
    (about / name).write_text(content)
    (tmp_path / "there.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    third_party.installed_version.cache_clear()

    assert third_party.installed_version("there") == "2.5"
    assert third_party.installed_version("here") == ""
