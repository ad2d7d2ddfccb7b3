"""What was done, noted in the reports that are open, and told if so it is set."""

from __future__ import annotations

import time

from sklearn_wsl_gpu import measuring
from sklearn_wsl_gpu.config import Frame
from sklearn_wsl_gpu.predictions import Work
from sklearn_wsl_gpu.reporting import CallRecord
from sklearn_wsl_gpu.saying import say
from sklearn_wsl_gpu.session import Reply


def record_remote(
    frame: Frame,
    what: tuple[str, str, str],
    work: Work,
    reply: Reply,
    times: tuple[float, float, float],
) -> None:
    """Note a call that the worker has done.

    Parameters
    ----------
    frame : Frame
    what : tuple of str
        Estimator, method and engine.
    work : Work
    reply : Reply
    times : tuple of float
        `time.perf_counter` values: when the call began, when there was a session, and when the reply was there.
    """
    (estimator, method, engine), (begin, ready, answered) = what, times
    seconds = {
        "start": ready - begin,
        "gather": answered - ready - reply.send_seconds - reply.wait_seconds,
        "send": reply.send_seconds,
        "compute": reply.body.seconds,
        "receive": max(reply.wait_seconds - reply.body.seconds, 0.0),
        "adopt": time.perf_counter() - answered,
    }
    done = CallRecord(estimator, method, "worker", engine, None, seconds, reply.sent_bytes, reply.nbytes)
    # A worker is started once: that is no cost of this call.
    crossing, whole = seconds["send"] + seconds["receive"], done.total_seconds - seconds["start"]
    if reply.has_queued:
        measuring.note_engine(work, engine, seconds["compute"])
    else:
        measuring.note_remote(work, engine, whole, crossing, reply.sent_bytes + reply.nbytes)
    for report in frame.reports:
        report.note_carriers(reply.ways)
    record(frame, done)


def record(frame: Frame, done: CallRecord) -> None:
    """Note a call, wherever it was done."""
    for report in frame.reports:
        report.add(done)
    if frame.settings.verbose:
        why = f" [{done.reason.code}]" if done.reason else ""
        say(f"{done.estimator}.{done.method} {done.where} ({done.engine}){why} {done.total_seconds:.4f} s")
