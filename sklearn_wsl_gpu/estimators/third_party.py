"""Estimators of other packages, found among the entry points of the group ``sklearn_wsl_gpu.estimators``.

An entry is named by the public path of its class, such as ``umap.UMAP``, and points at a `Row` of that path. It is
loaded when the class's package has been imported and not before, so that nothing is imported for it.
"""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points

from sklearn_wsl_gpu.errors import FallbackWarning
from sklearn_wsl_gpu.estimators.row import Row

GROUP = "sklearn_wsl_gpu.estimators"


@cache
def _entries() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def names() -> frozenset[str]:
    """Return the registered paths, whether their packages are installed or not."""
    return frozenset(_entries())


def packages() -> frozenset[str]:
    """Return the top-level packages of the registered paths."""
    return frozenset(name.partition(".")[0] for name in _entries())


@cache
def installed() -> frozenset[str]:
    """Return the registered paths whose packages are installed; none of them is imported."""
    there = {package for package in packages() if importlib.util.find_spec(package) is not None}
    return frozenset(name for name in _entries() if name.partition(".")[0] in there)


@cache
def installed_version(package: str) -> str:
    """Return the version of the distribution that an importable package belongs to; empty if that is not known."""
    if importlib.util.find_spec(package) is None:
        return ""
    # The distribution of its name first: it takes a worker half a second to read what all of them hold.
    for candidates in (distributions(name=package), distributions()):
        owner = next((one for one in candidates if _holds(one, package)), None)
        if owner is not None:
            return owner.version
    return ""


def _holds(distribution: Distribution, package: str) -> bool:
    named = distribution.read_text("top_level.txt")
    if named is not None:
        return package in named.split()
    files = f"\n{distribution.read_text('RECORD') or ''}"
    return f"\n{package}/" in files or f"\n{package}.py," in files


@cache
def find(name: str) -> Row | None:
    """Return the row of a registered path; imports the module that has it, and the class's package with `Row.cls`.

    An entry that is broken is told of in a warning, once, and is as if it were not there.
    """
    point = _entries().get(name)
    if point is None:
        return None
    try:
        row = point.load()
        if not isinstance(row, Row) or row.path != name:
            raise TypeError(f"{point.value} is no Row with the path {name!r}")
        if not isinstance(row.cls, type):
            raise TypeError(f"there is no class {name}")
    except Exception as error:
        owner = point.dist.name if point.dist is not None else "an unknown distribution"
        text = (
            f"{name} is not offloaded: the entry point that {owner} has for it in {GROUP} does not work "
            f"({type(error).__name__}: {error})."
        )
        warnings.warn(text, FallbackWarning, stacklevel=2)
        return None
    return row
