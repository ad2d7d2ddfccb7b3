"""The first conversation of a session: who both sides are, and how arrays get across."""

from __future__ import annotations

import contextlib
import os
import time
from importlib.metadata import version

from sklearn_wsl_gpu import launch
from sklearn_wsl_gpu.carriers import shared
from sklearn_wsl_gpu.carriers.file_reply import ReplyDirectory
from sklearn_wsl_gpu.carriers.moving import Moving
from sklearn_wsl_gpu.errors import (
    DeadlineExceeded,
    OffloadError,
    ProtocolError,
    VersionMismatch,
    WorkerStartError,
    WorkerUnavailable,
)
from sklearn_wsl_gpu.pool import Pool
from sklearn_wsl_gpu.protocol import messages as m
from sklearn_wsl_gpu.protocol.version import FILE_REPLIES, PROTOCOL, agree
from sklearn_wsl_gpu.sockets import Wire

#: An executor that imports a GPU library takes its time.
_ENGINE_START_SECONDS = 120.0

_REFUSALS: dict[str, type[OffloadError]] = {"version-mismatch": VersionMismatch, "engine-broken": WorkerStartError}


def greet(
    where: launch.Address, pool: Pool, moving: Moving, timeout: float | None, base: str | None
) -> tuple[m.Welcome, int, ReplyDirectory | None]:
    """Open a session.

    Parameters
    ----------
    where : Address
        Of the worker.
    pool : Pool
        The session's.
    moving : Moving
        Its carriers; opened here.
    timeout : float or None
        Seconds that it may take.
    base : str or None
        Where the directory of an older worker's replies is made, if there has to be one.

    Returns
    -------
    welcome : Welcome
    process : int
        A descriptor that becomes readable when the worker ends, or -1.
    files : ReplyDirectory or None
        Where the worker answers, if it speaks the older protocol whose replies are files. The caller closes it.

    Raises
    ------
    OffloadError
        If the worker cannot be reached, or does not fit.
    """
    versions = {"scikit-learn": version("scikit-learn"), "sklearn_wsl_gpu": version("sklearn-wsl-gpu")}
    offer, named = moving.offer(0, pool.segment), [list(pair) for pair in versions.items()]
    hello = m.Hello(PROTOCOL, named, os.getpid(), shared.boot_id(), offer)
    end = time.monotonic() + _ENGINE_START_SECONDS
    if timeout is not None:
        end = min(end, time.monotonic() + timeout)
    answer, files = _ask(where, hello, end), None
    try:
        if isinstance(answer, m.Refused) and answer.code == VersionMismatch.code:
            files = ReplyDirectory(base)
            hello = hello._replace(protocol=FILE_REPLIES, offer=[*offer, files.path])
            again = _ask(where, hello, end)
            answer = again if isinstance(again, m.Welcome) else answer
        if isinstance(answer, m.Refused):
            raise _REFUSALS.get(answer.code, WorkerUnavailable)(answer.words, answer.code)
        if not isinstance(answer, m.Welcome):
            raise ProtocolError("The worker did not welcome this client.")
        others = dict((name, text) for name, text in answer.versions)
        agree(hello.protocol, versions, answer.protocol, others, "worker")
        moving.open(answer, host_of(where.endpoint))
    except BaseException:
        if files is not None:
            files.close()
        raise
    if answer.boot and answer.boot == shared.boot_id() and hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            return answer, os.pidfd_open(answer.pid), files
    return answer, -1, files


def host_of(endpoint: str) -> str:
    """Return name or address of the host in ``tcp://HOST:PORT``."""
    return endpoint.partition("://")[2].rpartition(":")[0].strip("[]")


def _ask(where: launch.Address, hello: m.Hello, end: float) -> m.Message:
    wire = Wire(where.endpoint, where.keys, -1, greeted=False)
    try:
        wire.connect(end)
        answer, _ = wire.ask(hello, b"", end)
        while isinstance(answer, m.Running):
            if time.monotonic() > end:
                raise DeadlineExceeded("The worker's engine did not start in time. Raise timeout.")
            answer, _ = wire.ask(hello, b"", end)
        return answer
    finally:
        wire.close()
