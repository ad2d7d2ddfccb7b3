"""The commands that run a worker: on this Linux, or through ``wsl.exe`` in a distribution."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from sklearn_wsl_gpu.launch import wsl

#: The front is up in a fraction of a second; a loaded machine may take longer.
_LOCAL_SECONDS = 30.0
#: A virtual machine that was asleep starts first.
_WSL_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Command:
    """How a worker is run.

    Attributes
    ----------
    words : list of str
    where : str
        The distribution that it runs in; empty for this system.
    seconds : float
        Within which it is ready.
    environment : dict of str to str
    python : str
        Its interpreter, there.
    """

    words: list[str]
    where: str
    seconds: float
    environment: dict[str, str]
    python: str

    @property
    def hint(self) -> str:
        """What to type to see for oneself that the worker can be run."""
        words = [self.python, "-m", "wsl_worker", "--help"]
        if not self.where:
            return shlex.join(words)
        return f"wsl -d {wsl.typed(self.where)} --exec {subprocess.list2cmdline(words)}"


def worker(distribution: str | None, interpreter: str | None, arguments: Sequence[str]) -> Command:
    """Return the command of a worker.

    Parameters
    ----------
    distribution, interpreter : str or None
        The settings of these names.
    arguments : sequence of str
        For ``python -m wsl_worker``.

    Raises
    ------
    WorkerStartError
        If there is no distribution, or no worker in it.
    """
    # -P: modules of the directory that this process happens to be in are not the worker's.
    rest = ["-P", "-m", "wsl_worker", *arguments]
    if not wsl.is_between():
        python = os.path.expanduser(interpreter or sys.executable)
        return Command([python, *rest], "", _LOCAL_SECONDS, dict(os.environ), python)
    name = wsl.choose(wsl.distributions(), distribution).name
    python = wsl.interpreter(name, interpreter)
    words = [wsl.executable(), *wsl.inside(name, python, *rest)]
    return Command(words, name, _WSL_SECONDS, wsl.environment(), python)
