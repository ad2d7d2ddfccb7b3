"""What is looked at on Windows only: its build, elevation, where pools lie, and who may read the keys."""

from __future__ import annotations

import ntpath
import os
import re
import shutil
import struct
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sklearn_wsl_gpu import config, paths
from sklearn_wsl_gpu import windows as system
from sklearn_wsl_gpu.doctor.asking import Answer, ask, describe
from sklearn_wsl_gpu.doctor.checks import Circumstances, Finding, failed, information, ok, warning
from sklearn_wsl_gpu.errors import ConfigurationError
from sklearn_wsl_gpu.launch import kept
from sklearn_wsl_gpu.pool import files, memory

#: Windows 10 21H2, the first whose WSL has GPUs (Microsoft, "Enable NVIDIA CUDA on WSL").
_LEAST_BUILD = 19044
#: Size of a sparse file that is made to see whether there are such.
TRIAL_BYTES = 64 * 2**20
_OTHER = "Set pool_dir (SKLEARN_WSL_GPU_POOL_DIR) to a directory on a local NTFS drive."
_SMI_SECONDS = 20.0
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


def judge_elevation(is_elevated: bool, is_kept_elevated: bool | None) -> Finding:
    """Decide on whether this process is an administrator's: those see other drives in WSL, and other files there.

    Parameters
    ----------
    is_elevated : bool
    is_kept_elevated : bool or None
        Whether one has started the worker that is kept; None where there is none.
    """
    names = ("not as administrator", "as administrator")
    if is_kept_elevated not in (None, is_elevated):
        return warning(
            f"Python runs {names[is_elevated]}; the worker that is kept was started {names[bool(is_kept_elevated)]}: "
            "WSL mounts the drives for each apart.",
            "Run sklearn-wsl-gpu worker stop, then worker start from a terminal as you use for Python.",
        )
    if is_elevated:
        return warning(
            "Python runs as administrator; WSL mounts the drives for administrators apart from those for others.",
            "Run client and worker alike, best neither as administrator.",
        )
    return ok("Python does not run as administrator; nor does its worker.")


def look_at_elevation(circumstances: Circumstances) -> Finding:
    worker = kept.find(config.resolve(circumstances.arguments))
    return judge_elevation(system.is_elevated(), None if worker is None else worker.elevated)


def judge_directory(
    path: str, facts: tuple[int, int] | None, synchronized: Sequence[str], free: int, taken: int | None
) -> Finding:
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
    taken : int or None
        Bytes that a sparse file of `TRIAL_BYTES` takes there; None where there can be none.
    """
    why = f"Windows does not tell about {path}." if facts is None else paths.why_no_pool(path, *facts, synchronized)
    if why is not None:
        return warning(why, _OTHER)
    if taken is None:
        return warning(f"{path} is on a drive that has no sparse files: no pool can be a file there.", _OTHER)
    if taken > TRIAL_BYTES // 2:
        return warning(
            f"{path} is on a drive where a sparse file takes all its space at once, and so does a pool.", _OTHER
        )
    return ok(f"{path}, on a local drive with sparse files and {free / 2**30:.1f} GiB free")


def _trial(directory: str) -> int | None:
    # In a directory of its own: what dead sessions have left beside it would be removed, and a doctor changes nothing.
    try:
        with tempfile.TemporaryDirectory(dir=directory) as own:
            descriptor, path = files.create(own, TRIAL_BYTES)
            try:
                return system.size_on_disk(path)
            finally:
                os.close(descriptor)
                files.remove(path)
    except PermissionError as error:
        raise ConfigurationError(
            f"{directory} does not let you write to it. If a run as administrator made it, delete it as administrator."
        ) from error
    except OSError:
        return None


def look_at_directory(circumstances: Circumstances) -> Finding:
    wanted = Path(memory.directory_of(config.resolve(circumstances.arguments).pool_dir) or tempfile.gettempdir())
    path = str(next(one for one in (wanted, *wanted.parents) if one.exists()))
    synchronized = memory.synchronized()
    facts = system.volume(path)
    is_local = facts is not None and paths.why_no_pool(path, *facts, synchronized) is None
    taken = _trial(path) if is_local else None  # nothing is written where no pool may be
    return judge_directory(path, facts, synchronized, shutil.disk_usage(path).free, taken)


def parse_programs(text: str) -> list[str]:
    """Return the names of the programs that ``nvidia-smi -q -d PIDS`` lists, each once, without their directories."""
    names = re.findall(r"^ *Name +: (.*\S) *$", text, re.MULTILINE)
    return sorted({ntpath.basename(name) or name for name in names}, key=str.casefold)


def judge_programs(answer: Answer) -> Finding:
    """Tell which programs of Windows use the GPU, by ``nvidia-smi -q -d PIDS``: inside WSL they are not seen."""
    if answer.code or answer.timed_out:
        words = describe(answer, _SMI_SECONDS)
        return information(f"nvidia-smi does not tell: {words}", "Install NVIDIA's current driver on Windows.")
    names = parse_programs(answer.out)
    if not names:
        return information("No program of Windows uses the GPU.")
    return information(
        f"On Windows the GPU is used by {', '.join(names)}: what they take of its memory a worker does not have."
    )


def look_at_programs(_: Circumstances) -> Finding:
    return judge_programs(ask(["nvidia-smi.exe", "-q", "-d", "PIDS"], _SMI_SECONDS))


def open_to_all(directory: Path) -> list[str]:
    """Return the names of the key files in a directory that all users have access to."""
    found = []
    for path in directory.glob("*.json"):
        # It names the files whose list has the identifier, each on a line.
        asked = [ask(["icacls.exe", str(path), "/findsid", f"*{identifier}"], 5.0) for identifier in _ALL_USERS]
        if any(path.name in answer.out for answer in asked):
            found.append(path.name)
    return found
