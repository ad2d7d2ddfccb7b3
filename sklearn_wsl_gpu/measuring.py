"""The cost table of this process: noted under every policy, read by "auto", kept for the next run where "auto" is used.

A process that never asks for a prediction reads and writes no file.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sklearn_wsl_gpu import costfile, sessions
from sklearn_wsl_gpu.config import Settings
from sklearn_wsl_gpu.costs import Table
from sklearn_wsl_gpu.predictions import Prediction, Work

#: Less than this is not looked for in the pool.
_LEAST_LYING = 2**16
#: Contexts that follow each other at once do not all write.
_SECONDS_BETWEEN = 10.0


@dataclass(slots=True)
class _Measured:
    table: Table = field(default_factory=lambda: Table(int(time.time() // 86400)))
    lock: threading.Lock = field(default_factory=threading.Lock)
    loaded: bool = False
    changed: bool = False
    kept: float = -_SECONDS_BETWEEN


_measured = _Measured()


def predict(work: Work) -> Prediction:
    """Return what a call is expected to cost."""
    with _measured.lock:
        if not _measured.loaded:
            _measured.loaded = True
            _take_over()
        return _measured.table.predict(work)


def placed(work: Work, settings: Settings, data: Any) -> Work:
    """Return it with what an open session knows: the engines, and what of its data the worker can read already."""
    session = sessions.peek(settings)
    if session is None:
        return work
    work = work._replace(engine=",".join(session.engines))
    if work.nbytes < _LEAST_LYING or type(data) is not np.ndarray:
        return work
    if not session.moving.is_shared or session.pool.find_kept(data) is None:
        return work
    return work._replace(lying=work.nbytes)


def note_local(work: Work, seconds: float) -> None:
    """Note what a call took that was done here."""
    with _measured.lock:
        _measured.table.note_local(work, seconds)
        _measured.changed = True


def note_remote(work: Work, engine: str, seconds: float, crossing: float, nbytes: int) -> None:
    """Note what a call took that a worker did; as `Table.note_remote`."""
    with _measured.lock:
        _measured.table.note_remote(work, engine, seconds, crossing, nbytes)
        _measured.changed = True


def note_engine(work: Work, engine: str, seconds: float) -> None:
    """Note what an engine took for a call that has waited for others before; as `Table.note_engine`."""
    with _measured.lock:
        _measured.table.note_engine(work, engine, seconds)
        _measured.changed = True


def keep(*, at_once: bool = False) -> None:
    """Write the table, if anything was predicted in this process and noted since; not more often than in 10 s."""
    now = time.monotonic()
    with _measured.lock:
        if not (_measured.loaded and _measured.changed):
            return
        if not at_once and now - _measured.kept < _SECONDS_BETWEEN:
            return
        _measured.changed, _measured.kept = False, now
        _take_over()  # what another process has written meanwhile
        data = _measured.table.to_data()
    costfile.save(data)


def _take_over() -> None:
    kept = costfile.load()
    if kept is not None:
        with contextlib.suppress(ValueError):
            _measured.table.take_over(kept)


def _after_fork() -> None:
    _measured.lock = threading.Lock()


atexit.register(keep, at_once=True)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
