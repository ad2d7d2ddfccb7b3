"""Which processors are near which memory, from sysfs: so that a page lies where it is read.

Linux places a page of shared memory on the node of the thread that asks for it first, by touching it or by reserving
it. So who prefaults input slots does it from the node of what reads them: of the GPU, or of the worker's processors.

References
----------
Linux, Documentation/admin-guide/mm/numa_memory_policy.rst; Documentation/ABI/stable/sysfs-devices-node;
Documentation/ABI/testing/sysfs-bus-pci (numa_node).
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

#: A node that is not known.
UNKNOWN = -1
_ROOT = Path("/")
_NODE = re.compile(r"node([0-9]+)")
_PCI = re.compile(r"([0-9a-f]{1,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])", re.IGNORECASE)


def nodes(root: Path = _ROOT) -> dict[int, frozenset[int]]:
    """Return the processors of each node that has any; empty where the system does not tell.

    Parameters
    ----------
    root : Path
        Where /sys is looked for.
    """
    found = {}
    with contextlib.suppress(OSError):
        for directory in sorted((root / "sys/devices/system/node").iterdir()):
            name = _NODE.fullmatch(directory.name)
            if name is not None:
                with contextlib.suppress(OSError, ValueError):
                    found[int(name[1])] = _processors((directory / "cpulist").read_text("ascii"))
    return {node: cpus for node, cpus in found.items() if cpus}


def node_of_gpu(bus_id: str, root: Path = _ROOT) -> int:
    """Return the node that a GPU is attached to, or -1.

    Parameters
    ----------
    bus_id : str
        Address on the PCI bus, as CUDA writes it: ``"0000:65:00.0"``.
    root : Path
        Where /sys is looked for.
    """
    parts = _PCI.fullmatch(bus_id.strip())
    if parts is not None:
        domain, bus, device, function = (int(part, 16) for part in parts.groups())
        name = f"{domain:04x}:{bus:02x}:{device:02x}.{function}"
        with contextlib.suppress(OSError, ValueError):
            return max(int((root / "sys/bus/pci/devices" / name / "numa_node").read_text("ascii")), UNKNOWN)
    return UNKNOWN


def node_of_cpus(cpus: Collection[int], known: Mapping[int, frozenset[int]]) -> int:
    """Return the node that all of these processors are on, or -1."""
    having = [node for node, own in known.items() if own.issuperset(cpus)] if cpus else []
    return having[0] if len(having) == 1 else UNKNOWN


def cpus_for(node: int, known: Mapping[int, frozenset[int]], allowed: Collection[int]) -> frozenset[int] | None:
    """Return the processors that a thread should run on for its pages to lie on a node.

    Parameters
    ----------
    node : int
        Of what reads the pages; -1 if not known.
    known : mapping of int to frozenset of int
        From `nodes`.
    allowed : collection of int
        Processors that the process may use.

    Returns
    -------
    cpus : frozenset of int or None
        None where it should run as it does: there is only one node, it is not known, or the process may not run there.
    """
    if len(known) < 2 or node not in known:
        return None
    return known[node].intersection(allowed) or None


def allowed_cpus() -> frozenset[int]:
    """Return the processors that the calling thread may use; empty where the system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return frozenset()
    return frozenset(os.sched_getaffinity(0))


@contextlib.contextmanager
def near(node: int, root: Path = _ROOT) -> Iterator[frozenset[int] | None]:
    """Run the calling thread, and it alone, on the processors of a node.

    Does nothing on a machine with one node, or where the node is not known or not allowed.

    Parameters
    ----------
    node : int
        Of what will read the pages that are touched in the block; -1 if not known.
    root : Path
        Where /sys is looked for.

    Yields
    ------
    cpus : frozenset of int or None
        Where it runs; None for as before.
    """
    before = allowed_cpus()
    cpus = cpus_for(node, nodes(root), before) if node != UNKNOWN else None
    if cpus is None or not _run_on(cpus):
        yield None
        return
    try:
        yield cpus
    finally:
        _run_on(before)


def _run_on(cpus: frozenset[int]) -> bool:
    if sys.platform == "linux":
        # 0 is the calling thread. What is allowed may change at any time, and then this is refused.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cpus)
            return True
    return False


def _processors(text: str) -> frozenset[int]:
    """Return the numbers of a list such as ``"0-3,8"``."""
    found: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
