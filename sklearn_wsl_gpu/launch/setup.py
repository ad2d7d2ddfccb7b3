"""``sklearn-wsl-gpu setup``: a virtual environment with the worker, in a distribution of WSL or on this Linux.

What is done already is seen by looking, not remembered: so a run that failed is run again, and goes on from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from sklearn_wsl_gpu import costfile
from sklearn_wsl_gpu.errors import ConfigurationError, OffloadError
from sklearn_wsl_gpu.launch import wsl, wslpath

_PACKAGE = "sklearn-wsl-gpu"
#: Oldest driver and compute capability of a release of CUDA, and the extra for it; the newest first.
#: NVIDIA, "RAPIDS Platform Support".
_EXTRAS = ((580, 7.5, "cuml-cu13"), (535, 7.0, "cuml-cu12"))
_LOOK_SECONDS = 120.0
_HANGS = "no cuML: nvidia-smi does not end. Restart this side (of a worker in WSL: wsl --shutdown), and run this again"
#: This side's own version first: what is installed here is there for it, too.
_PYTHONS = (f"python3.{sys.version_info[1]}", "python3", "python3.13", "python3.12", "python3.11")
_VERSION_SCRIPT = b"import sys; print('%d.%d' % sys.version_info[:2])"
#: What is installed in the environment, and whether it can be imported.
_STATE_SCRIPT = b"""
import json
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
import pip
found = {"errors": []}
for name in ("sklearn-wsl-gpu", "scikit-learn", "cuml-cu13", "cuml-cu12"):
    try:
        found[name] = distribution(name).version
    except PackageNotFoundError:
        found[name] = ""
if found["sklearn-wsl-gpu"]:
    origin = json.loads(distribution("sklearn-wsl-gpu").read_text("direct_url.json") or "{}")
    found["hash"] = origin.get("archive_info", {}).get("hash", "")
    wanted = ["sklearn_wsl_gpu", "wsl_worker", "sklearn", "msgpack", "zmq"]
    for name in wanted + ["cuml"] * bool(found["cuml-cu13"] or found["cuml-cu12"]):
        try:
            import_module(name)
        except Exception as error:
            found["errors"].append(f"{name}: {type(error).__name__}: {error}")
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where commands are run: in a distribution, or in this system if its name is empty."""

    distribution: str
    say: Callable[[str], None]

    def words(self, *command: str) -> list[str]:
        """Return the whole command."""
        return [wsl.executable(), *wsl.inside(self.distribution, *command)] if self.distribution else list(command)

    def tell(self, *command: str) -> None:
        """Show a command as it is typed."""
        words = self.words(*command)
        self.say(f"$ {subprocess.list2cmdline(words) if os.name == 'nt' else shlex.join(words)}")

    def look(self, *command: str, script: bytes = b"") -> wsl.Completed:
        """Run a command that changes nothing, and return what it prints."""
        self.tell(*command)
        if self.distribution:
            return wsl.run(wsl.inside(self.distribution, *command), _LOOK_SECONDS, script)
        try:
            done = subprocess.run(command, input=script, capture_output=True, timeout=_LOOK_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return wsl.Completed(127, "", str(error), isinstance(error, subprocess.TimeoutExpired))
        return wsl.Completed(done.returncode, wsl.decode(done.stdout), wsl.decode(done.stderr), False)

    def do(self, *command: str) -> int:
        """Run a command whose output is for the person who waits, and return its exit code."""
        self.tell(*command)
        words = self.words(*command)
        return subprocess.run(words, stdin=subprocess.DEVNULL, env=wsl.environment(), check=False).returncode


def extra_for(gpus: str) -> tuple[str, str]:
    """Return the extra of this package that fits the GPUs of a machine, empty if none does, and words that say why.

    Parameters
    ----------
    gpus : str
        What ``nvidia-smi --query-gpu=driver_version,compute_cap --format=csv,noheader`` prints: a line for each.
    """
    found = re.findall(r"^\s*([0-9]+)\.[0-9.]+\s*,\s*([0-9]+\.[0-9]+)\s*$", gpus, re.MULTILINE)
    if not found:
        return "", "no cuML: nvidia-smi shows no NVIDIA GPU"
    driver, capability = int(found[0][0]), max(float(gpu) for _, gpu in found)
    for least_driver, least_capability, extra in _EXTRAS:
        if driver >= least_driver and capability >= least_capability:
            return extra, f"cuML by the extra {extra}: driver {driver}, compute capability {capability}"
    least_driver, least_capability, _ = _EXTRAS[-1]
    if driver < least_driver:
        return "", (
            f"no cuML: the NVIDIA driver {driver} is older than {least_driver}. Install a newer one (on Windows, if "
            "the worker is in WSL), and run this again"
        )
    return "", f"no cuML: the GPU has compute capability {capability}, and {least_capability} is needed"


def requirement(source: str | None, extra: str) -> str:
    """Return what pip is to install: this version, or what is named, with an extra.

    Parameters
    ----------
    source : str or None
        A path where the worker is (it begins with a slash), a URL, or a requirement such as ``sklearn-wsl-gpu==0.1.0``.
    extra : str
        From `extra_for`.
    """
    brackets = f"[{extra}]" if extra else ""
    if source is None:
        return f"{_PACKAGE}{brackets}=={version(_PACKAGE)}"
    if source.startswith("/"):
        return f"{source}{brackets}"
    if "://" in source:
        return f"{_PACKAGE}{brackets}@{source}"
    return re.sub(r"^[A-Za-z0-9._-]+", lambda name: f"{name[0]}{brackets}", source)


def setup(distribution: str | None, source: str | None, dry_run: bool, say: Callable[[str], None]) -> str:
    """Prepare the side of the worker, or only show how.

    Parameters
    ----------
    distribution : str or None
        Setting ``distribution``.
    source : str or None
        Path of a wheel or a checkout, URL or requirement to install; None takes this version from pip's index.
    dry_run : bool
        Whether commands that change something are shown only; what is there is looked at all the same.
    say : callable
        Takes each line for the person who waits.

    Returns
    -------
    python : str
        Path of the worker's Python, there.

    Raises
    ------
    OffloadError
        If a step fails; the message says what to do before it is run again.
    """
    is_here = source is not None and _is_here(source)
    place = Place(wsl.choose(wsl.distributions(), distribution).name if wsl.is_between() else "", say)
    if place.distribution:
        place.tell("pwd")
    home = wsl.home(place.distribution) if place.distribution else os.path.expanduser("~")
    venv = f"{home}/{wsl.VENV}"
    python = f"{venv}/bin/python"
    say(f"The worker's environment is {venv} in {_told(place, venv)}.")
    gpus = _gpus(place)
    extra, why = ("", _HANGS) if gpus is None else extra_for(gpus)
    say(f"It gets {why}.")
    digest = ""
    if source is not None and is_here:
        digest = _digest(source)
        source = wslpath.posix_path(place.look, os.path.abspath(source))

    state = _state(place, python)
    say("[1/3] a virtual environment" + (": done" if state else ""))
    if not state:
        _make(place, venv, dry_run)
    say("[2/3] the packages" + (": done" if _fits(state, extra, digest) else ""))
    if not _fits(state, extra, digest):
        if state.get(_PACKAGE) == version(_PACKAGE) and digest not in ("", state["hash"]):
            _run(place, dry_run, "", python, "-m", "pip", "uninstall", "-y", _PACKAGE)
        _run(
            place, dry_run,
            "Read above what pip says, and run this again: it goes on from here. Where this version is on no index, "
            f"name a wheel with --from. Where there is no scikit-learn {version('scikit-learn')} for the Python there, "
            "install a newer one here, or take a distribution with an older Python (wsl --install -d Ubuntu-24.04) by "
            "--distribution.",
            python, "-m", "pip", "install", "--only-binary", "numpy,scipy,scikit-learn",
            f"scikit-learn=={version('scikit-learn')}", requirement(source, extra),
        )  # fmt: skip
    say("[3/3] do they work, and do they fit this side?")
    place.tell(python, "-") if dry_run else _prove(place, python, extra)
    return python


def _prove(place: Place, python: str, extra: str) -> None:
    _check(_state(place, python), python, extra)
    costfile.forget_engines()


def _told(place: Place, path: str) -> str:
    """Return the name of a place; with what a path in a distribution is called in the Explorer, if it can be."""
    if not place.distribution:
        return "this system"
    with contextlib.suppress(ConfigurationError):
        return f"{place.distribution} ({wslpath.windows_path(place.look, place.distribution, path)})"
    return place.distribution


def _gpus(place: Place) -> str | None:
    """Return what ``nvidia-smi`` prints; nothing if there is none, and None if it does not end."""
    query = ("--query-gpu=driver_version,compute_cap", "--format=csv,noheader")
    for program in ("/usr/lib/wsl/lib/nvidia-smi", "nvidia-smi"):
        done = place.look(program, *query)
        if done.timed_out:
            return None
        if not done.code:
            return done.out
    return ""


def _is_here(source: str) -> bool:
    """Tell whether it is a path on this side; one that is nowhere is refused before anything is done."""
    if os.path.exists(source):
        return True
    is_path = "://" not in source and re.search(r"[/\\]|\.(whl|zip|gz)$", source) is not None
    if is_path and not (wsl.is_between() and source.startswith("/")):
        raise OffloadError(f"There is no {source}. Name a wheel or a checkout that exists, or leave --from out.")
    return False


def _digest(path: str) -> str:
    """Return how pip notes which file it has installed; of a directory that nothing is known."""
    if os.path.isdir(path):
        return "directory"
    with open(path, "rb") as file:
        return f"sha256={hashlib.file_digest(file, 'sha256').hexdigest()}"


def _state(place: Place, python: str) -> dict[str, Any]:
    """Return what is installed, nothing if there is no environment, or one without pip."""
    done = place.look(python, "-", script=_STATE_SCRIPT)
    try:
        found: dict[str, Any] = json.loads(done.out.splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return found if not done.code else {}


def _fits(state: dict[str, Any], extra: str, digest: str) -> bool:
    if not state or state["errors"] or (extra and not state[extra]):
        return False
    same = all(state[name] == version(name) for name in (_PACKAGE, "scikit-learn"))
    return same and digest in ("", state["hash"])


def _run(place: Place, dry_run: bool, remedy: str, *command: str) -> None:
    if dry_run:
        place.tell(*command)
    elif code := place.do(*command):
        raise OffloadError(f"That failed, with exit code {code}. {remedy}".rstrip())


def _make(place: Place, venv: str, dry_run: bool) -> None:
    root = f"wsl -d {wsl.typed(place.distribution)} -u root --exec" if place.distribution else "sudo"
    versions = []
    for name in _PYTHONS if place.distribution else (sys.executable,):
        done = place.look(name, "-", script=_VERSION_SCRIPT)
        found = re.fullmatch(r"3\.([0-9]+)", done.out.strip())
        if found is not None and int(found[1]) >= 11:
            remedy = (
                f"If it says that ensurepip is not there: {root} apt-get update, then {root} apt-get install -y "
                f"python3.{found[1]}-venv (or what your distribution calls it). Then run this again."
            )
            _run(place, dry_run, remedy, name, "-m", "venv", "--clear", venv)
            return
        versions += [found[0]] if found is not None and found[0] not in versions else []
    raise OffloadError(
        f"{place.distribution} has {'Python ' + ', '.join(versions) if versions else 'no Python'}, and 3.11 or later "
        f"is needed. Install one ({root} apt-get update, then {root} apt-get install -y python3.12 python3.12-venv, "
        "where there is one), or a newer distribution (wsl --install -d Ubuntu-24.04) and name it with --distribution."
    )


def _check(state: dict[str, Any], python: str, extra: str) -> None:
    if not state:
        raise OffloadError(f"{python} does not run. Delete its directory, and run this again.")
    wrong = list(state["errors"])
    for name in (_PACKAGE, "scikit-learn"):
        if state[name] != version(name):
            wrong.append(f"{name} is {state[name] or 'not there'}, and {version(name)} here")
    if extra and not state[extra]:
        wrong.append(f"{extra} is not there")
    if wrong:
        raise OffloadError("What is installed does not work with this side: " + "; ".join(wrong) + ".")
