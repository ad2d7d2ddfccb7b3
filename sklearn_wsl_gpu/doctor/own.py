"""What this package itself keeps on a machine: keys, and what dead sessions have left."""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sklearn_wsl_gpu import config, standing
from sklearn_wsl_gpu.carriers import file_reply
from sklearn_wsl_gpu.doctor import windows
from sklearn_wsl_gpu.doctor.asking import read
from sklearn_wsl_gpu.doctor.checks import Circumstances, Finding, failed, information, ok, warning
from sklearn_wsl_gpu.doctor.filesystems import FOREIGN, mount_of
from sklearn_wsl_gpu.errors import OffloadError
from sklearn_wsl_gpu.keys import HOME, has_curve
from sklearn_wsl_gpu.launch import kept
from sklearn_wsl_gpu.pool import files, memory


def look_at_configuration(circumstances: Circumstances) -> Finding:
    found, default = asdict(config.resolve(circumstances.arguments)), asdict(config.Settings())
    told = ", ".join(f"{name} is {value!r}" for name, value in found.items() if value != default[name])
    return ok(f"Settings: {told}." if told else "All settings have their defaults.")


def judge_keys(directory: str, there: Sequence[str], wide: Sequence[str], has_curve: bool, kind: str) -> Finding:
    """Decide on keys.

    Parameters
    ----------
    directory : str
        Where they are looked for.
    there, wide : sequence of str
        Names of those that are there, and of those among them that others can read.
    has_curve : bool
        Whether the ZeroMQ library has CURVE.
    kind : str
        Of the file system, on Linux; ``"windows"`` there.
    """
    if not has_curve:
        return failed("pyzmq has no CURVE security.", "Run: pip install --force-reinstall --only-binary :all: pyzmq")
    if not there:
        return ok(f"CURVE; there are no key files in {directory}: an embedded worker needs none")
    if kind.startswith(FOREIGN):
        return warning(
            f"{directory} is on {kind}, where permissions do not protect keys.",
            "Name a directory in the distribution's own file system with SKLEARN_WSL_GPU_KEYS.",
        )
    if wide:
        remedy = shlex.join(["chmod", "600", *(f"{directory}/{name}" for name in wide)])
        if kind == "windows":
            remedy = f'icacls "{directory}" /inheritance:r /grant:r "%USERNAME%":(OI)(CI)F'
        return failed(f"Others can read keys in {directory}: {', '.join(wide)}", f"Run: {remedy}")
    return ok(f"CURVE; keys in {directory}, not readable by others")


def look_at_keys(circumstances: Circumstances) -> Finding:
    directory = Path(config.resolve(circumstances.arguments).keys or HOME)
    there = [name for name in ("worker.json", "client.json") if (directory / name).exists()]
    if os.name == "nt":
        wide, kind = windows.open_to_all(directory), "windows"
    else:
        wide = [name for name in there if stat.S_IMODE((directory / name).stat().st_mode) & 0o077]
        kind = mount_of(os.path.abspath(directory), read("/proc/mounts")).kind
    return judge_keys(str(directory), there, wide, has_curve(), kind)


def judge_kept(worker: kept.Kept | None, state: Mapping[str, Any] | None, error: str) -> Finding:
    """Decide on the worker that is kept for all processes.

    Parameters
    ----------
    worker : Kept or None
        What is noted of it.
    state : mapping or None
        What it told, as `standing.status` returns it; None if it is gone.
    error : str
        Why it does not tell; empty if it did, or is gone.
    """
    if worker is None:
        return information("None is kept: each process has its own, which ends with it.")
    if error:
        return warning(error, "Then: sklearn-wsl-gpu worker start")
    if state is None:
        return warning(
            f"The worker at {worker.endpoint} is gone: each process looks for it in vain, and starts its own.",
            "Run sklearn-wsl-gpu worker start; or worker stop, which forgets it.",
        )
    engines = ", ".join(state["engines"]) or "none that is ready"
    return ok(f"{worker.endpoint} answers: engine {engines}, {len(state['sessions'])} sessions")


def look_at_kept(circumstances: Circumstances) -> Finding:
    settings = config.resolve(circumstances.arguments)
    worker, state, error = kept.read(Path(settings.keys or HOME)), None, ""
    try:
        state = None if worker is None else standing.status(settings.keys, None)
    except OffloadError as problem:
        error = str(problem)
    return judge_kept(worker, state, error)


def judge_leftovers(paths: Sequence[str], orphans: Sequence[int]) -> Finding:
    """Decide on what dead sessions have left.

    Parameters
    ----------
    paths : sequence of str
        Pools, and directories for replies, of processes that were killed.
    orphans : sequence of int
        Workers that have lost the process that they belong to.
    """
    found, remedies = [], []
    if paths:
        found.append(f"files of dead sessions, which the next session there removes: {', '.join(paths)}")
        remedies.append(shlex.join(["rm", "-r", *paths]))
    if orphans:
        found.append(f"workers without a client: processes {', '.join(map(str, orphans))}")
        remedies.append(f"kill {' '.join(map(str, orphans))}")
    if not found:
        return ok("Nothing is left of dead sessions.")
    # cmd.exe and PowerShell have no command in common that deletes directories.
    remedy = "Delete them in the Explorer." if os.name == "nt" else f"Run: {'; '.join(remedies)}"
    return information(f"There are {'; '.join(found)}.", remedy)


def look_at_leftovers(circumstances: Circumstances) -> Finding:
    settings = config.resolve(circumstances.arguments)
    bases = {Path(base) for base in (memory.directory_of(settings.pool_dir, named=True), tempfile.gettempdir()) if base}
    left = [str(path) for base in sorted(bases) for path in [*file_reply.abandoned(base), *files.abandoned(base)]]
    return judge_leftovers(left, _orphans())


def _orphans() -> list[int]:
    found: list[int] = []
    if sys.platform != "linux":
        return found
    for path in Path("/proc").glob("[0-9]*"):
        words = read(f"{path}/cmdline").split("\0")
        if "wsl_worker" in words and "--embedded" in words:
            status = dict(line.split(":", 1) for line in read(f"{path}/status").splitlines() if ":" in line)
            is_own = path.stat().st_uid == os.getuid()
            # In a container the first process may be its client, who then holds the other end of its input.
            if status.get("PPid", "").strip() == "1" and is_own and not _has_client(path):
                found.append(int(path.name))
    return found


def _has_client(process: Path) -> bool:
    """Tell whether another process of this user holds the other end of a worker's standard input."""
    try:
        pipe = os.readlink(process / "fd" / "0")
    except OSError:
        return True  # it has just ended
    for other in Path("/proc").glob("[0-9]*"):
        if other != process and "wsl_worker" not in read(f"{other}/cmdline").split("\0") and pipe in _open_in(other):
            return True
    return False


def _open_in(process: Path) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):  # of another user
        for path in (process / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed just now
                found.add(os.readlink(path))
    return found
