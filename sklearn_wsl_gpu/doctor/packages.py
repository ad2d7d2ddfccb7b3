"""The packages of CUDA on the worker's side: of one release of CUDA, and of the release of cuML that is served."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distributions, requires, version

from sklearn_wsl_gpu.doctor.checks import Circumstances, Finding, failed, information, ok

#: Packages whose names end with the release of CUDA that they are for. What other libraries, such as PyTorch, bring
#: for themselves does not count.
_SUFFIXED = re.compile(
    r"(?:lib)?(?:cuml|cudf|cuvs|raft|rmm|kvikio|ucxx)-cu([0-9]+)|py(?:lib)?(?:cudf|raft)-cu([0-9]+)|cupy-cuda([0-9]+)x"
)
_SAME_AS_CUDA = ("cuda-python", "cuda-bindings")
#: It is for all releases of CUDA, and cuML goes by its version.
_FOR_ALL = "numba-cuda"
#: Versions of these are told: the two sides, or people who help, compare them.
_TOLD = ("sklearn-wsl-gpu", "scikit-learn", "numpy", "scipy", "pandas", "pyzmq", "msgpack")


def installed() -> dict[str, str]:
    """Return versions by name of all packages that are installed here."""
    return {name.lower().replace("_", "-"): item.version for item in distributions() if (name := item.metadata["Name"])}


def major_of(name: str, number: str) -> int | None:
    """Return the first number of the CUDA that a package is for, or None if it is for none."""
    found = _SUFFIXED.fullmatch(name)
    if found is not None:
        return int(next(group for group in found.groups() if group))
    return int(number.partition(".")[0]) if name in _SAME_AS_CUDA else None


def cuda_majors(packages: Mapping[str, str]) -> set[int]:
    """Return the first numbers of all releases of CUDA that packages are for."""
    found = {major_of(name, number) for name, number in packages.items()}
    return {major for major in found if major is not None}


def served_release(requirements: Iterable[str]) -> str:
    """Return the beginning of the version of cuML that the engine serves, by the requirements of this package."""
    found = (re.match(r"cuml-cu[0-9]+ *==? *([0-9.]+)\*", requirement) for requirement in requirements)
    return next((match[1] for match in found if match is not None), "")


def judge_packages(packages: Mapping[str, str], release: str) -> Finding:
    """Decide on the packages of CUDA.

    Parameters
    ----------
    packages : mapping of str to str
        Versions by name.
    release : str
        From `served_release`.
    """
    mine = {name: number for name, number in packages.items() if major_of(name, number) is not None}
    cuml = {name: number for name, number in packages.items() if re.fullmatch(r"cuml(-cu[0-9]+)?", name)}
    others = {name: packages[name] for name in (_FOR_ALL,) if name in packages}
    told = ", ".join(f"{name} {number}" for name, number in sorted({**mine, **cuml, **others}.items()))
    majors = sorted(cuda_majors(packages))
    if not cuml:
        return information(
            f"cuML is not installed{f'; there is {told}' if told else ''}.",
            "For a GPU: sklearn-wsl-gpu setup, or pip install 'sklearn-wsl-gpu[cuml-cu13]' (docs/gpu.md).",
        )
    if len(majors) > 1:
        wrong = [name for name, number in sorted(mine.items()) if major_of(name, number) != majors[-1]]
        return failed(
            f"Packages for CUDA {' and '.join(map(str, majors))} are mixed: {told}",
            f"Make a new virtual environment with one of them; or: pip uninstall {' '.join(wrong)}",
        )
    other = [number for number in cuml.values() if not number.startswith(release)]
    if other:
        return failed(
            f"cuML {other[0]} is installed, and the engine serves {release}*: {told}",
            f"Run: pip install 'sklearn-wsl-gpu[cuml-cu{majors[0] if majors else 13}]'",
        )
    return ok(told)


def look_at_packages(_: Circumstances) -> Finding:
    return judge_packages(installed(), served_release(requires("sklearn-wsl-gpu") or []))


def versions() -> dict[str, str]:
    """Return versions of what both sides have, by name; empty for what is not installed."""
    found = {}
    for name in _TOLD:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found
