"""The memory that there is, on either side, for a pool and for what is computed with it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from sklearn_wsl_gpu import config
from sklearn_wsl_gpu.doctor.asking import read
from sklearn_wsl_gpu.doctor.checks import Circumstances, Finding, ok, warning
from sklearn_wsl_gpu.pool import machine, memory, sizing

_LITTLE_BYTES = 4 * 2**30
_GIVE = "Close programs, or give WSL more: memory= in .wslconfig on Windows, then wsl --shutdown."


def judge_memory(bounds: Sequence[sizing.Bound], choice: sizing.Choice, others: Mapping[str, int]) -> Finding:
    """Decide on memory.

    Parameters
    ----------
    bounds : sequence of Bound
        What a pool has to fit in.
    choice : Choice
        Of a pool's slots.
    others : mapping of str to int
        Bytes of what else is told, by its name.
    """
    pool, room = choice.geometry.pool_bytes, min((bound.room for bound in bounds), default=None)
    told = [f"{_gib(bound.room)} free of {_gib(bound.size)} of {bound.what}" for bound in bounds]
    told += [f"{name} {_gib(nbytes)}" for name, nbytes in others.items()]
    evidence = f"A pool has {_gib(pool)} ({choice.why}). {'; '.join(told)}."
    if room is not None and pool > room:
        return warning(f"{evidence} The pool does not fit in what is free.", f"Make slot_bytes smaller. {_GIVE}")
    if room is not None and room < _LITTLE_BYTES:
        return warning(f"{evidence} Arrays of gigabytes will not fit.", _GIVE)
    return ok(evidence)


def look_at_memory(circumstances: Circumstances) -> Finding:
    settings, others = config.resolve(circumstances.arguments), {}
    swap = re.search(r"^SwapTotal: +([0-9]+) kB$", read("/proc/meminfo"), re.MULTILINE)
    if swap is not None:
        others["swap"] = int(swap[1]) * 1024
    if os.path.isdir("/dev/shm") and hasattr(os, "statvfs"):
        found = os.statvfs("/dev/shm")
        others["/dev/shm"] = found.f_frsize * found.f_blocks
    return judge_memory(machine.bounds(memory.directory_of(settings.pool_dir)), settings.pool_size(), others)


def _gib(nbytes: float) -> str:
    return f"{nbytes / 2**30:.1f} GiB"
