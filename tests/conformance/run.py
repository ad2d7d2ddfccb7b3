"""scikit-learn's own tests, from the installed package, with every supported call offloaded to the cpu engine.

::

    python tests/conformance/run.py               # everything, with and without offloading
    python tests/conformance/run.py --quick       # the part that is run for every change
    python tests/conformance/run.py sklearn.svm   # some of it
    python tests/conformance/run.py --results DIR # what DIR has of an earlier run that was interrupted is not run again

A test that passes without offloading has to pass with it, unless `xfail.toml` lists it. A module that tests an
estimator of the table, and in which no call was offloaded, fails, unless `modules.toml` says why.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
XFAIL = HERE / "xfail.toml"
PLAN: dict[str, Any] = tomllib.loads((HERE / "modules.toml").read_text("utf-8"))
_MINUTES = 60


@dataclass
class Module:
    """What became of the tests of one test module.

    Attributes
    ----------
    name : str
        Such as ``"sklearn.cluster.tests.test_k_means"``.
    outcomes : dict of str to int
        Number of tests by outcome.
    listed : int
        How many of them `xfail.toml` lists.
    offloaded, local : int
        Calls of the table's methods that a worker did, and that were done here.
    seconds, seconds_without : float
        Of all tests together; without offloading it is NaN if that was not measured.
    failures : dict of str to str
        Id and last words of tests that failed although they pass without offloading.
    """

    name: str
    outcomes: dict[str, int] = field(default_factory=dict)
    listed: int = 0
    offloaded: int = 0
    local: int = 0
    seconds: float = 0.0
    seconds_without: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)


def run(*targets: str, offloaded: bool, without: str = "") -> dict[str, dict[str, Any]]:
    """Run the tests of packages and modules; return what became of each, by its place such as ``sklearn/...``.

    Those whose names match the expression `without` (see pytest's ``-k``) are left out.
    """
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out.json"
        # An empty configuration, in an empty directory: nobody's settings and conftest but scikit-learn's.
        (Path(directory) / "pytest.ini").write_text("[pytest]\n")
        options = ["-q", "-p", "no:cacheprovider", "--timeout=600", "--pyargs", *targets]
        if without:
            options += ["-k", f"not ({without})"]
        if offloaded:
            options += ["--sklearn-wsl-gpu=cpu", f"--sklearn-wsl-gpu-xfail={XFAIL}"]
        # One thread each: two of them in a pool of BLAS differ in the last bit from one.
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        # Nor what a pytest that runs this says to its children.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        ran = subprocess.run(
            [sys.executable, str(HERE / "recorder.py"), str(out), *options],
            cwd=directory,
            env={**inherited, **single},
            capture_output=True,
            text=True,
            timeout=_MINUTES * 60,
            check=False,
        )
        if not out.is_file() or ran.returncode not in (0, 1):
            raise RuntimeError(f"pytest ended with {ran.returncode} for {targets}:\n{ran.stdout[-3000:]}{ran.stderr}")
        found: dict[str, dict[str, Any]] = json.loads(out.read_text())
        package = targets[0].partition(".")[0]
        return {f"{package}/{place.rpartition(f'/{package}/')[2]}": test for place, test in found.items()}


def _run_or_read(target: str, offloaded: bool, results: Path | None, without: str) -> dict[str, dict[str, Any]]:
    if results is None:
        return run(target, offloaded=offloaded, without=without)
    kept = results / f"{target}.{'offloaded' if offloaded else 'without'}.json"
    if not kept.is_file():
        found = run(target, offloaded=offloaded, without=without)
        kept.write_text(json.dumps(found))
    read: dict[str, dict[str, Any]] = json.loads(kept.read_text())
    return read


def summarize(
    tests: Mapping[str, Mapping[str, Any]], without: Mapping[str, Mapping[str, Any]] | None
) -> dict[str, Module]:
    """Return the modules of a run, given what became of the same tests without offloading (None if not known)."""
    listed = {entry["id"] for entry in tomllib.loads(XFAIL.read_text("utf-8"))["xfail"]}
    modules: dict[str, Module] = {}
    for place, test in tests.items():
        name = place.partition("::")[0].removesuffix(".py").replace("/", ".")
        module = modules.setdefault(name, Module(name))
        module.outcomes[test["outcome"]] = module.outcomes.get(test["outcome"], 0) + 1
        module.listed += place in listed
        module.offloaded += test["offloaded"]
        module.local += test["local"]
        module.seconds += test["seconds"]
        before = (without or {}).get(place)
        module.seconds_without += float("nan") if before is None else before["seconds"]
        if test["outcome"] == "failed" and (before is None or before["outcome"] != "failed"):
            module.failures[place] = test["words"]
    for place in (without or {}).keys() - tests.keys():
        name = place.partition("::")[0].removesuffix(".py").replace("/", ".")
        modules.setdefault(name, Module(name)).failures[place] = "It was not run with offloading."
    return modules


def names_of_the_table(module: str) -> set[str]:
    """Return the table's estimators that the source of a test module names."""
    from sklearn_wsl_gpu.estimators import ROWS

    package = find_spec(module.partition(".")[0])
    assert package is not None
    assert package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]).parent / Path(*module.split(".")).with_suffix(".py")
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    words = {node.id for node in nodes if isinstance(node, ast.Name)}
    return words & ROWS.keys() | {node.attr for node in nodes if isinstance(node, ast.Attribute)} & ROWS.keys()


def is_vacuous(module: Module) -> bool:
    """Tell whether a module shows nothing, though it should."""
    return not module.offloaded and module.name not in PLAN["local"] and bool(names_of_the_table(module.name))


def problems(modules: Iterable[Module]) -> list[str]:
    """Return what is wrong with a run, in words."""
    found = []
    for module in modules:
        found += [f"{place} fails only when offloaded:\n{words}" for place, words in module.failures.items()]
        if is_vacuous(module):
            names = ", ".join(sorted(names_of_the_table(module.name)))
            found.append(f"{module.name} offloaded no call, though it tests {names}.")
        if module.offloaded and module.name in PLAN["local"]:
            found.append(f"{module.name} offloads calls, though modules.toml says that it does not.")
    return found


def table(modules: Sequence[Module]) -> str:
    """Return the figures of a run as a Markdown table."""
    numbers = ["tests", "passed", "skipped", "xfailed", "listed", "failed", "remote", "local", "s", "s without"]
    lines = [f"| module | {' | '.join(numbers)} |", "|---" + "|---:" * len(numbers) + "|"]
    total = Module("**all**")
    for module in [*modules, total]:
        if module is not total:
            for name, count in module.outcomes.items():
                total.outcomes[name] = total.outcomes.get(name, 0) + count
            for name in ("listed", "offloaded", "local", "seconds", "seconds_without"):
                setattr(total, name, getattr(total, name) + getattr(module, name))
        get = module.outcomes.get
        expected = get("xfailed", 0) + get("xpassed", 0) - module.listed
        lines.append(
            f"| {module.name.removeprefix('sklearn.')} | {sum(module.outcomes.values())} | {get('passed', 0)} | "
            f"{get('skipped', 0)} | {expected} | {module.listed} | {get('failed', 0)} | {module.offloaded} | "
            f"{module.local} | {module.seconds:.1f} | {module.seconds_without:.1f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Run from the command line; return 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*", help="packages or modules; all of modules.toml by default")
    parser.add_argument("--quick", action="store_true", help="only the part that is run for every change")
    parser.add_argument("--jobs", type=int, default=2, help="how many to run at a time (default: 2)")
    parser.add_argument("--results", type=Path, help="directory that keeps what each target gave")
    options = parser.parse_args()
    if options.results is not None:
        options.results.mkdir(parents=True, exist_ok=True)
    targets = options.targets or ([name for part in PLAN["quick"] for name in part] if options.quick else PLAN["whole"])
    left_out = PLAN["quick_without"] if options.quick else ""
    with ThreadPoolExecutor(options.jobs) as pool:
        offloaded = [pool.submit(_run_or_read, target, True, options.results, left_out) for target in targets]
        without = (
            [] if options.quick else [pool.submit(_run_or_read, one, False, options.results, "") for one in targets]
        )
        tests = {place: test for future in offloaded for place, test in future.result().items()}
        before = {place: test for future in without for place, test in future.result().items()} or None
    modules = sorted(summarize(tests, before).values(), key=lambda module: module.name)
    print(f"scikit-learn {version('scikit-learn')}, numpy {version('numpy')}, Python {sys.version.split()[0]}\n")
    print(table(modules))
    wrong = problems(modules)
    print(f"\n{len(wrong)} problems", *wrong, sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
