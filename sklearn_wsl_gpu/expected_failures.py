"""A list of tests that are expected to fail when offloaded, kept as data."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from sklearn_wsl_gpu.errors import ConfigurationError

_WANTED = {str: "a text that is not empty", bool: "true or false"}
_FIELDS: dict[str, type] = {"id": str, "reason": str, "strict": bool, "scikit-learn": str}


class ExpectedFailure(NamedTuple):
    """One test, by the end of its path and its node id, so that it does not matter where the package lies.

    Attributes
    ----------
    id : str
        Such as ``"sklearn/cluster/tests/test_k_means.py::test_x[lloyd]"``.
    reason : str
    strict : bool
        Whether it is an error if the test passes.
    """

    id: str
    reason: str
    strict: bool

    def is_about(self, place: str) -> bool:
        """Tell whether this is the test at a place: ``"/full/path/test_x.py::test_y"``."""
        return place.endswith(f"/{self.id}")

    def is_in(self, file: str) -> bool:
        """Tell whether the test is in a file."""
        return file.endswith(f"/{self.id.partition('::')[0]}")


def read(path: str) -> list[ExpectedFailure]:
    """Return the entries of a TOML file that hold for the scikit-learn that is installed.

    Raises
    ------
    ConfigurationError
        If it cannot be read, or says something else than it should.
    """
    try:
        data = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"The list of expected failures {path} cannot be read: {error}") from None
    entries = data.get("xfail", [])
    if data.keys() - {"xfail"} or not isinstance(entries, list):
        raise ConfigurationError(f"{path} must hold [[xfail]] tables and nothing else.")
    found, seen = [], set[str]()
    for entry in entries:
        _check(path, entry)
        if not _holds(path, entry.get("scikit-learn", "")):
            continue
        if entry["id"] in seen:
            raise ConfigurationError(f"{path} has the test {entry['id']} twice.")
        seen.add(entry["id"])
        found.append(ExpectedFailure(entry["id"], entry["reason"], entry.get("strict", True)))
    return found


def find_unknown(entries: Sequence[ExpectedFailure], places: Sequence[str]) -> list[str]:
    """Return the ids that name no test, although tests of their file are there."""
    files = {place.partition("::")[0] for place in places}
    return [entry.id for entry in entries if any(map(entry.is_in, files)) and not any(map(entry.is_about, places))]


def _check(path: str, entry: Any) -> None:
    if not isinstance(entry, dict) or not {"id", "reason"} <= entry.keys() <= _FIELDS.keys():
        raise ConfigurationError(
            f"{path}: an [[xfail]] must have id and reason, and may have strict and scikit-learn; got {entry}."
        )
    for name, value in entry.items():
        if not isinstance(value, _FIELDS[name]) or value == "":
            raise ConfigurationError(f"{path}: {name} of an [[xfail]] must be {_WANTED[_FIELDS[name]]}; got {value!r}.")
    if "::" not in entry["id"]:
        raise ConfigurationError(
            f"{path}: {entry['id']!r} names no single test; it must be like 'dir/test_x.py::test_y'."
        )


def _holds(path: str, specifier: str) -> bool:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return SpecifierSet(specifier).contains(version("scikit-learn"), prereleases=True)
    except InvalidSpecifier:
        raise ConfigurationError(f"{path}: {specifier!r} is no version specifier, such as '>=1.8'.") from None
