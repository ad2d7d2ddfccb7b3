"""A worker as a child of this process: gone when this process ends, however it ends."""

from __future__ import annotations

import os
import subprocess
import tempfile
from typing import IO, Any

from sklearn_wsl_gpu import windows
from sklearn_wsl_gpu.keys import ClientKeys
from sklearn_wsl_gpu.launch.commands import Command
from sklearn_wsl_gpu.launch.starting import WorkerProcess

_STOP_SECONDS = 5.0


class ChildWorker:
    """A started worker of this process's own.

    Parameters
    ----------
    command : Command
        With ``--embedded`` among its arguments.
    settings : dict
        ``engine``, ``device`` and ``model_bytes``.
    verbose : int
        Above zero its messages go to this process's standard error.

    Raises
    ------
    WorkerStartError
        If it does not come up; the message ends with what it printed last.
    """

    def __init__(self, command: Command, settings: dict[str, Any], verbose: int) -> None:
        from sklearn_wsl_gpu.sockets import new_keys

        self.keys: ClientKeys
        self.keys, secret = new_keys()
        self._log: IO[bytes] | None = None if verbose else tempfile.TemporaryFile()
        # A process number means nothing on the other side of wsl.exe; there the end of the input tells.
        parent = {} if command.where else {"parent": os.getpid()}
        try:
            given = {"secret": secret, "clients": [self.keys.public], **settings, **parent}
            self._process = WorkerProcess(command, given, self._log, verbose)
        except BaseException:
            self._close_log()
            raise
        self._job = windows.end_with_this_process(self.pid)

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return self._process.endpoint

    @property
    def reach_seconds(self) -> float | None:
        """How long its port could not be reached after it listened; None where it is of this system."""
        return self._process.reach_seconds

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.child.poll() is None

    @property
    def pid(self) -> int:
        """Process number of the front, or of its ``wsl.exe``."""
        return self._process.child.pid

    def stop(self) -> None:
        """End the worker and wait for its end."""
        child = self._process.child
        self._process.end_input()
        try:
            child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        self._process.close()
        windows.close(self._job)
        self._close_log()

    def kill(self) -> None:
        """End a worker that may not listen any more."""
        self._process.child.kill()
        self.stop()

    def abandon(self) -> None:
        """Let go of a worker that belongs to the parent process."""
        self._process.let_go()
        self._close_log()

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.close()
