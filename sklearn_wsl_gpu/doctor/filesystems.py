"""What is mounted on the worker's side: where pools lie, and the drives of Windows."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from sklearn_wsl_gpu import config
from sklearn_wsl_gpu.doctor.asking import Answer, ask, describe, read
from sklearn_wsl_gpu.doctor.checks import Circumstances, Finding, failed, information, ok, warning
from sklearn_wsl_gpu.pool import memory

#: File systems of another kernel or machine: what is mapped there goes stale.
FOREIGN = ("9p", "virtiofs", "drvfs", "fuse", "nfs", "cifs", "smb")


class Mount(NamedTuple):
    """A line of ``/proc/mounts``: what is mounted, where, its kind, its options."""

    source: str
    point: str
    kind: str
    options: dict[str, str]


def parse_mounts(text: str) -> list[Mount]:
    """Return the mounts that ``/proc/mounts`` tells, the last of each place last (fstab(5), proc(5))."""
    found = []
    for line in text.splitlines():
        fields = [re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), field) for field in line.split(" ")]
        if len(fields) >= 4:
            options = dict(option.partition("=")[::2] for option in re.split(r"[,;]", fields[3]))
            found.append(Mount(fields[0], fields[1], fields[2], options))
    return found


def mount_of(path: str, text: str) -> Mount:
    """Return the mount that a path lies on, without touching any; of an unknown kind if none is told."""
    best = Mount("", "", "unknown", {})
    for mount in parse_mounts(text):
        point = mount.point.rstrip("/") + "/"
        if f"{path.rstrip('/')}/".startswith(point) and len(mount.point) >= len(best.point):
            best = mount
    return best


def judge_pool(directory: str | None, mount: Mount) -> Finding:
    """Decide on where pools lie.

    Parameters
    ----------
    directory : str or None
        Of pools; None for memory without a file system.
    mount : Mount
        What it lies on.
    """
    if directory is None:
        return ok("Pools are anonymous memory: they lie in no file system.")
    options = [f"{name}={mount.options[name]}" for name in ("cache", "msize", "size") if name in mount.options]
    evidence = f"Pools lie in {directory}, on {' '.join([mount.kind, *options])}."
    if mount.kind.startswith(FOREIGN):
        return failed(
            f"{evidence} What is mapped there goes stale.",
            "Unset pool_dir (SKLEARN_WSL_GPU_POOL_DIR), or name /dev/shm.",
        )
    if mount.kind not in ("tmpfs", "hugetlbfs", "ramfs"):
        return warning(
            f"{evidence} That is a disk, not memory.", "Unset pool_dir (SKLEARN_WSL_GPU_POOL_DIR), or name /dev/shm."
        )
    return ok(evidence)


def look_at_pool(circumstances: Circumstances) -> Finding:
    directory = memory.directory_of(config.resolve(circumstances.arguments).pool_dir)
    return judge_pool(directory, mount_of(os.path.abspath(directory or "/"), read("/proc/mounts")))


def judge_drives(mounts: Sequence[Mount], answers: dict[str, Answer], seconds: float) -> Finding:
    """Decide on the drives of Windows as WSL shows them.

    Parameters
    ----------
    mounts : sequence of Mount
        Those of drives.
    answers : dict
        How asking for the free space of each mount ended.
    seconds : float
        Time-out of that.
    """
    if not mounts:
        return information("No drive of Windows is mounted: a file cannot carry arrays, a stream can.")
    told = []
    for mount in mounts:
        options = [f"{name} {mount.options[name]}" for name in ("cache", "msize") if name in mount.options]
        told.append(f"{mount.point} ({', '.join([mount.kind, *options])})")
    broken = [f"{point}: {describe(answer, seconds)}" for point, answer in answers.items() if answer.code]
    if broken:
        return warning(" ".join(broken), "On Windows: wsl --shutdown, then try again.")
    return ok(f"{', '.join(told)}: each answers. Nothing of this package maps files there.")


_DRIVE_SECONDS = 5.0


def look_at_drives(_: Circumstances) -> Finding:
    mounts = [
        mount
        for mount in parse_mounts(read("/proc/mounts"))
        if mount.options.get("aname") == "drvfs" or mount.kind == "drvfs" or mount.source.startswith("drvfs")
    ]
    answers = {mount.point: ask(["stat", "-f", mount.point], _DRIVE_SECONDS) for mount in mounts[:4]}
    return judge_drives(mounts, answers, _DRIVE_SECONDS)
