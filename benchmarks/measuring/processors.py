"""Time of the processors: of a process and all that it has started, by process and kind of thread."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from measuring.memory import settle
from measuring.rounds import Field
from measuring.runner import tree

_CALL_SECONDS = 120.0


def seconds_of(root: int) -> dict[str, float]:
    """Return the seconds that processors have worked for a process and its descendants, as the kernel counts them.

    Returns
    -------
    seconds : dict
        By names such as ``"executor"`` (its main thread), ``"front, ZeroMQ"`` and ``"client, other threads"``.
    """
    found: dict[str, float] = {}
    for pid in tree(root):
        with contextlib.suppress(OSError):
            process = _name_of(pid, root)
            for task in Path(f"/proc/{pid}/task").iterdir():
                thread = (task / "comm").read_text().strip()
                kind = "" if task.name == str(pid) else ", ZeroMQ" if thread.startswith("ZMQ") else ", other threads"
                nanoseconds = int((task / "schedstat").read_text().split()[0])
                found[process + kind] = found.get(process + kind, 0.0) + nanoseconds / 1e9
    return found


def _name_of(pid: int, root: int) -> str:
    if pid == root:
        return "client"
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return "executor" if b"wsl_worker.executor" in command else "front"


def profile(field: Field, name: str, mode: str, nbytes: int, calls: int) -> dict[str, Any]:
    """Measure what a call costs the processors, where; and how long it takes, of which how long the engine."""
    runner = field.fresh(name)
    try:
        runner.use(_CALL_SECONDS, nbytes, "C")
        runner.call(_CALL_SECONDS, mode, False, calls)
        settle(runner.pid)
        before = seconds_of(runner.pid)
        seconds, phases = runner.call(_CALL_SECONDS, mode, False, calls)
        after = seconds_of(runner.pid)
    finally:
        runner.stop()
    spent = {part: (after[part] - before.get(part, 0.0)) / calls for part in sorted(after)}
    about = {"contestant": name, "mode": mode, "bytes": nbytes, "calls": calls, "cores": os.cpu_count()}
    return {**about, "seconds": seconds, "engine": phases.get("compute"), "processors": spent}
