"""What a contestant is, and the work that is the same for all."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from one_pass import pages

#: Worker processes that begin with nothing of the client's.
processes = multiprocessing.get_context("spawn")


def work(mode: str, X: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return the sum of one element of each page of X ("touch"), or 2 X ("out")."""
    total = pages(X).sum()
    return np.atleast_1d(total) if mode == "touch" else np.multiply(X, 2, out=out)


class Contestant(ABC):
    """One client and its worker; lives in a process of its own.

    `call` is what is timed. Everything that it needs and that can be kept between calls is made in `start`.
    """

    #: What it can do, each a row in the table.
    modes: tuple[str, ...] = ("touch", "out")
    #: Whether what it returns is that of `work`.
    verifies = True

    def __init__(self) -> None:
        #: Begins the name of what it makes on file systems, so that it can be removed if this process is killed.
        self.mark = f"transport-{os.getpid()}-"
        self.directory = tempfile.mkdtemp(prefix=self.mark)
        self._workers: list[Any] = []

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def call(self, mode: str, X: Any) -> np.ndarray:
        """Have the work of a mode done on an array, and return what comes of it."""

    def place(self, mode: str, X: np.ndarray) -> Any:
        """Return X as it lies before a call of this mode begins."""
        return X

    def phases(self) -> dict[str, float]:
        """Return the seconds of the last call by phase, where that is known."""
        return {}

    def stop(self) -> None:
        """End the worker; what does not end is killed by whoever runs this contestant."""
        for worker in self._workers:
            worker.terminate()
        shutil.rmtree(self.directory, ignore_errors=True)

    def spawn(self, target: Callable[..., None], *arguments: Any) -> Any:
        """Start a worker process, and return this side's end of a pipe whose other end is its first argument."""
        here, there = processes.Pipe()
        worker = processes.Process(target=target, args=(there, *arguments), daemon=True)
        worker.start()
        there.close()
        self._workers.append(worker)
        return here
