"""What integration tests share: a long fit, waiting for a condition, killing at the right moment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
from sklearn.cluster import KMeans

from sklearn_wsl_gpu.context import OffloadSession

POINTS = np.random.default_rng(0).normal(size=(20_000, 10))


def long_fit() -> KMeans:
    """Return an estimator whose fit on POINTS takes seconds."""
    return KMeans(n_clusters=30, n_init=3, max_iter=200, tol=0.0, random_state=0)


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Return the first true value of a condition."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("it did not happen in time")


@contextlib.contextmanager
def during_a_job(session: OffloadSession, act: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Do something, from another thread, as soon as the worker runs a job of the block."""

    def watch() -> None:
        def running() -> dict[str, Any] | None:
            status = session.status()
            return status if status["running"] else None

        act(until(running))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        thread.join()


#: What ends a process at once; Windows has no other way.
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def kill(number: int, how: int = KILL) -> None:
    """Send a signal to a process that may be gone."""
    assert number > 0, "That would be many processes."
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, how)


def has_ended(number: int) -> bool:
    """Tell whether a process is gone, or has ended and waits for its parent to look."""
    try:
        return bool(psutil.Process(number).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def living_children() -> list[psutil.Process]:
    """Return this process's descendants that have not ended."""
    return [child for child in psutil.Process().children(recursive=True) if not has_ended(child.pid)]


@contextlib.contextmanager
def standalone_worker(keys: Any, *more: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run ``python -m wsl_worker`` with keys in a directory; yield its endpoint and process."""
    command = [sys.executable, "-m", "wsl_worker", "--keys", str(keys), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split('"')[3], process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
    )
