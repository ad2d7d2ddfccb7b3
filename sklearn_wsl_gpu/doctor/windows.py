"""What is looked at on Windows only: its build, elevation, where pools lie, and who may read the keys."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sklearn_wsl_gpu import config, paths
from sklearn_wsl_gpu import windows as system
from sklearn_wsl_gpu.doctor.asking import ask
from sklearn_wsl_gpu.doctor.checks import Circumstances, Finding, failed, ok, warning
from sklearn_wsl_gpu.pool import memory

#: Windows 10 21H2, the first whose WSL has GPUs (Microsoft, "Enable NVIDIA CUDA on WSL").
_LEAST_BUILD = 19044
#: Well-known security identifiers: Everyone, Authenticated Users, BUILTIN\Users.
_ALL_USERS = ("S-1-1-0", "S-1-5-11", "S-1-5-32-545")


def judge_build(build: int, bits: int) -> Finding:
    """Decide on Windows and its Python: build, and bits of a pointer."""
    evidence = f"Windows, build {build}; Python of {bits} bit"
    if build < _LEAST_BUILD:
        return failed(evidence, f"Update Windows to build {_LEAST_BUILD} (10, 21H2) or later: WSL has no GPU before.")
    if bits != 64:
        return failed(evidence, "Install a 64-bit Python: there are no wheels for this one, and no room for a pool.")
    return ok(evidence)


def look_at_build(_: Circumstances) -> Finding:
    python: Any = sys
    return judge_build(python.getwindowsversion().build, struct.calcsize("P") * 8)


def judge_elevation(is_elevated: bool) -> Finding:
    """Decide on whether this process is an administrator's: those see other drives in WSL, and other files there."""
    if is_elevated:
        return warning(
            "Python runs as administrator; WSL mounts the drives for administrators apart from those for others.",
            "Run client and worker alike, best neither as administrator.",
        )
    return ok("Python does not run as administrator; nor does a worker that it starts.")


def look_at_elevation(_: Circumstances) -> Finding:
    library: Any = ctypes
    return judge_elevation(bool(library.windll.shell32.IsUserAnAdmin()))


def judge_directory(path: str, facts: tuple[int, int] | None, synchronized: Sequence[str], free: int) -> Finding:
    """Decide on where pools lie.

    Parameters
    ----------
    path : str
    facts : tuple of int or None
        Kind of its drive, and its attributes; None where Windows does not tell.
    synchronized : sequence of str
        Directories that are kept the same elsewhere.
    free : int
        Bytes that are free there.
    """
    why = f"Windows does not tell about {path}." if facts is None else paths.why_no_pool(path, *facts, synchronized)
    if why is not None:
        return warning(why, "Set pool_dir (SKLEARN_WSL_GPU_POOL_DIR) to a directory on a local NTFS drive.")
    return ok(f"{path}, on a local drive with {free / 2**30:.1f} GiB free")


def look_at_directory(circumstances: Circumstances) -> Finding:
    wanted = Path(memory.directory_of(config.resolve(circumstances.arguments).pool_dir) or tempfile.gettempdir())
    path = str(next(one for one in (wanted, *wanted.parents) if one.exists()))
    synchronized = [value for name, value in os.environ.items() if name.upper().startswith("ONEDRIVE")]
    return judge_directory(path, system.volume(path), synchronized, shutil.disk_usage(path).free)


def open_to_all(directory: Path) -> list[str]:
    """Return the names of the key files in a directory that all users have access to."""
    found = []
    for path in directory.glob("*.json"):
        # It names the files whose list has the identifier, each on a line.
        asked = [ask(["icacls.exe", str(path), "/findsid", f"*{identifier}"], 5.0) for identifier in _ALL_USERS]
        if any(path.name in answer.out for answer in asked):
            found.append(path.name)
    return found
