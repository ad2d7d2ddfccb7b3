"""Memory of a process and all that it has started."""

from __future__ import annotations

import contextlib
import time

from measuring.runner import tree


def memory_of(root: int) -> tuple[int, int]:
    """Return the bytes that a process and its descendants have of all memory, and of shared memory."""
    found = {"Pss:": 0, "Pss_Shmem:": 0}
    for pid in tree(root):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as lines:
            for line in lines:
                name, *rest = line.split()
                if name in found:
                    found[name] += int(rest[0]) * 1024
    return found["Pss:"], found["Pss_Shmem:"]


def settle(root: int, seconds: float = 30.0) -> None:
    """Wait until the memory of a process and its descendants does not grow any more: nothing is prefaulted now."""
    end, before, same = time.monotonic() + seconds, -1, 0
    while same < 5 and time.monotonic() < end:
        time.sleep(0.1)
        now = memory_of(root)[0] // 2**20
        same, before = (same + 1 if now == before else 0), now
