"""The state of a worker for people, of the data of `standing.status`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklearn_wsl_gpu.tables import size


def worker_line(found: Mapping[str, Any]) -> str:
    """Return a line on a worker."""
    state = "ready" if found["ready"] else found["broken"] or "starting"
    return (
        f"Worker at {found['endpoint']}, process {found['pid']}: {state}, "
        f"engine {', '.join(found['engines']) or 'unknown'}, "
        f"{len(found['sessions'])} sessions, {found['running']} calls running, {found['queued']} queued, "
        f"{found['done']} done."
    )


def executor_line(executor: Mapping[str, Any]) -> str:
    """Return a line on one of several executors of a worker."""
    state = "ready" if executor["ready"] else executor["broken"] or "starting"
    return (
        f"  on {executor['device']}, process {executor['pid'] or 'none'}: {state}, {executor['sessions']} sessions, "
        f"{executor['done']} done"
    )


def session_lines(session: Mapping[str, Any]) -> str:
    """Return lines on a session: its pool, and a map of the slots."""
    counters, left_out = session["counters"], session["slots_left_out"]
    waiting = ", ".join(f"{count} {priority}" for priority, count in counters["waiting"].items() if count)
    lines = [
        f"\nSession {session['number']} of process {session['pid']}: {session['calls']} calls, last heard "
        f"{session['silent_seconds']:.1f} s ago",
        f"  pool of {session['pool']}",
        f"  {counters['leases']} leases of {size(counters['leased_bytes'])}, at most {size(counters['peak_bytes'])} at "
        f"once; {counters['waits']['total']} waits for room of {counters['waits']['seconds']:.1f} s; "
        f"{waiting or 'nobody'} waiting",
        f"  {'segment':>7}  {'slot':>4}  {'kind':7}  {'state':6}  {'size':>9}  {'used':>9}  {'age':>9}  owner",
    ]
    for slot in session["slots"]:
        age = f"{slot['age']:.1f} s" if slot["used"] else "-"
        line = (
            f"  {slot['segment']:>7}  {slot['number']:>4}  {slot['kind']:7}  {slot['state']:6}  {size(slot['size']):>9}"
            f"  {size(slot['used']):>9}  {age:>9}  {slot['owner']}"
        )
        lines.append(line.rstrip())
    return "\n".join([*lines, *([f"  and {left_out} slots more"] if left_out else [])])
