"""What memory there is, per platform: of the machine, of control groups, of the address space, of a file system."""

from __future__ import annotations

import configparser
import contextlib
import ctypes
import os
import re
import shutil
import sys
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath

from sklearn_wsl_gpu.pool.sizing import Bound

_ROOT = Path("/")
#: Above this a limit of a control group of the first version says that there is none.
_NO_LIMIT = 2**60
_UNITS = {"": 1, "B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}
#: What is wrong with a file of a kernel that differs from what is known: then it tells nothing.
_UNREADABLE = (OSError, ValueError, LookupError)


def bounds(directory: str | None) -> list[Bound]:
    """Return all that a pool has to fit in.

    Parameters
    ----------
    directory : str or None
        Where its memory comes from, see `sklearn_wsl_gpu.pool.memory.directory_of`; None for a memfd, which the size
        of /dev/shm does not limit.
    """
    found = memory_bounds()
    found += _address_space()
    found += _wsl_setting(Path.home(), found) if sys.platform == "win32" else []
    return found if directory is None else [*found, *_file_system(directory)]


def memory_bounds(root: Path = _ROOT) -> list[Bound]:
    """Return the memory of the machine, and that of the control groups of this process that have a limit.

    Parameters
    ----------
    root : Path
        Where /proc and /sys are looked for, on Linux.
    """
    if sys.platform == "win32":
        return _windows_memory()
    if sys.platform != "linux":
        with contextlib.suppress(OSError, ValueError):
            return [Bound("memory", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
        return []
    return [*_linux_memory(root), *_control_groups(root)]


def total_memory() -> int | None:
    """Return the bytes of memory that this process could ever have, or None where the system does not tell."""
    return min((bound.size for bound in memory_bounds()), default=None)


def available_memory() -> int | None:
    """Return the bytes that can be had without swapping, or None where the system does not tell."""
    return min((bound.free for bound in memory_bounds() if bound.free is not None), default=None)


def _linux_memory(root: Path) -> list[Bound]:
    with contextlib.suppress(*_UNREADABLE):
        found = dict(
            re.findall(r"^(MemTotal|MemAvailable): +([0-9]+) kB$", _read(f"{root}/proc/meminfo"), re.MULTILINE)
        )
        free = int(found["MemAvailable"]) * 1024 if "MemAvailable" in found else None
        return [Bound(_kind_of_memory(root), int(found["MemTotal"]) * 1024, free)]
    return []


@cache
def _kind_of_memory(root: Path) -> str:
    with contextlib.suppress(*_UNREADABLE):
        if "microsoft" in _read(f"{root}/proc/sys/kernel/osrelease").lower():
            return "memory that WSL was given (.wslconfig)"
    return "memory"


def _control_groups(root: Path) -> list[Bound]:
    found: list[Bound] = []
    with contextlib.suppress(*_UNREADABLE):
        for directory, name, is_unified in _groups(root, _read(f"{root}/proc/self/cgroup")):
            found += _limit(directory, name, is_unified)
    return found


@lru_cache(maxsize=16)
def _groups(root: Path, own: str) -> list[tuple[str, str, bool]]:
    """Return directory, name and version (whether the second) of the groups of this process and those around them.

    References
    ----------
    cgroups(7); proc_pid_mountinfo(5).
    """
    paths = {}
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            paths[not controllers] = PurePosixPath(path)
    found = []
    for line in _read(f"{root}/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields = [re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), field) for field in before.split()]
        kind, _, options = after.split(None, 2)
        is_unified = kind == "cgroup2"
        if is_unified in paths and (is_unified or (kind == "cgroup" and "memory" in options.split(","))):
            # In a container the mount shows a part of the tree, and the path may be told from outside of it.
            whole, shown = paths[is_unified], fields[3]
            inside = whole.is_relative_to(shown) and ".." not in whole.parts
            inner = whole.relative_to(shown) if inside else PurePosixPath()
            for group in [inner, *inner.parents]:
                name = f"control group {PurePosixPath('/') / group}"
                found.append((f"{root}{fields[4]}/{group}", name, is_unified))
    return found


def _limit(group: str, name: str, is_unified: bool) -> list[Bound]:
    """Return the limit of a group.

    References
    ----------
    Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
    """
    files = ("memory.max", "memory.high") if is_unified else ("memory.limit_in_bytes",)
    limits: list[int] = []
    for file in files:
        with contextlib.suppress(*_UNREADABLE):
            text = _read(f"{group}/{file}").strip()
            limits += [int(text)] if text != "max" and 0 <= int(text) < _NO_LIMIT else []
    if not limits:
        return []
    free = None
    with contextlib.suppress(*_UNREADABLE):
        used = int(_read(f"{group}/memory.{'current' if is_unified else 'usage_in_bytes'}"))
        # Pages of files that nobody has used for a while are given up before anything fails. What is used without
        # them is the "working set" that Kubernetes goes by.
        wanted = "inactive_file" if is_unified else "total_inactive_file"
        found = re.search(rf"^{wanted} ([0-9]+)$", _statistics(group), re.MULTILINE)
        idle = int(found[1]) if found else 0
        free = max(min(limits) - max(used - idle, 0), 0)
    return [Bound(f"memory of {name}", min(limits), free)]


def _statistics(group: str) -> str:
    with contextlib.suppress(*_UNREADABLE):
        return _read(f"{group}/memory.stat")
    return ""


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _address_space() -> list[Bound]:
    # A pool is mapped as a whole, however little of it is used.
    if sys.platform == "linux":
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            with contextlib.suppress(*_UNREADABLE):
                pages = int(_read("/proc/self/statm").split()[0])
                left = max(limit - pages * os.sysconf("SC_PAGE_SIZE"), 0)
                return [Bound("the address space that this process may still have (ulimit -v)", left, left)]
    return []


def _file_system(directory: str) -> list[Bound]:
    with contextlib.suppress(OSError):
        found = shutil.disk_usage(directory)
        if found.total:  # a tmpfs without a limit says 0
            return [Bound(f"the file system of {directory!r}", found.total, found.free)]
    return []


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API (sysinfoapi.h)."""

    _fields_ = (
        ("dwLength", ctypes.c_uint32),
        ("dwMemoryLoad", ctypes.c_uint32),
        *[
            (name, ctypes.c_uint64)
            for name in ("ullTotalPhys", "ullAvailPhys", "ullTotalPageFile", "ullAvailPageFile", "ullTotalVirtual",
                         "ullAvailVirtual", "ullAvailExtendedVirtual")
        ],
    )  # fmt: skip


def _windows_memory() -> list[Bound]:
    status = _MemoryStatus(dwLength=ctypes.sizeof(_MemoryStatus))
    library = getattr(ctypes, "windll", None)
    if library is None or not library.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return []
    return [Bound("memory", status.ullTotalPhys, status.ullAvailPhys)]


def _wsl_setting(home: Path, machine: list[Bound]) -> list[Bound]:
    """Return, on Windows, the memory that WSL is given: as its settings say, else half of the machine's.

    References
    ----------
    Microsoft, "Advanced settings configuration in WSL", section wsl2 of .wslconfig.
    """
    if not machine:
        return []
    size, where = machine[0].size // 2, "its default"
    with contextlib.suppress(OSError, UnicodeDecodeError, configparser.Error, ValueError, KeyError):
        parser = configparser.ConfigParser(strict=False, interpolation=None, inline_comment_prefixes=("#",))
        parser.read_string((home / ".wslconfig").read_text("utf-8-sig"))
        found = re.fullmatch(r"([0-9]+)\s*([KMGT]?B)?", parser["wsl2"]["memory"].strip(), re.IGNORECASE)
        if found is not None and int(found[1]):
            size, where = int(found[1]) * _UNITS[(found[2] or "").upper()], ".wslconfig"
    return [Bound(f"memory for WSL ({where})", min(size, machine[0].size))]
