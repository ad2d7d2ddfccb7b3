"""A worker as a child of this process: gone when this process ends, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from typing import IO

from sklearn_wsl_gpu.errors import WorkerStartError
from sklearn_wsl_gpu.keys import ClientKeys

#: The front is up in a fraction of a second; a loaded machine may take longer.
_START_SECONDS = 30.0
_STOP_SECONDS = 5.0
_LOG_TAIL_BYTES = 2000


class LocalWorker:
    """A started worker process.

    Parameters
    ----------
    engine : str
        Engine that it computes with.
    device : str
        What the engine computes on.
    model_bytes : int
        Memory for kept models.
    verbose : int
        Above zero its messages go to this process's standard error.

    Raises
    ------
    WorkerStartError
        If it does not come up; the message ends with what it printed last.
    """

    def __init__(self, engine: str, device: str, model_bytes: int, verbose: int) -> None:
        from sklearn_wsl_gpu.sockets import new_keys

        self.keys: ClientKeys
        self.keys, secret = new_keys()
        self._log: IO[bytes] | None = None if verbose else tempfile.TemporaryFile()
        # -P: modules of the directory that this process happens to be in are not the worker's.
        command = [sys.executable, "-P", "-m", "wsl_worker", "--embedded", "--engine", engine]
        command += ["--device", device, "--model-bytes", str(model_bytes)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                # Out of the terminal's group: Ctrl-C is for this process, which then cancels.
                start_new_session=True,
            )
        except OSError as error:
            if self._log is not None:
                self._log.close()
            raise WorkerStartError(f"The worker cannot be started: {error}. Command: {' '.join(command)}") from error
        try:
            self.endpoint = self._shake_hands(secret)
        except BaseException:
            self.stop()
            raise

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process number of the front."""
        return self._process.pid

    def _shake_hands(self, secret: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # The keys go by the child's standard input: not by its command line or environment, which others see.
        settings = {"secret": secret, "clients": [self.keys.public], "parent": os.getpid()}
        giving_up = threading.Timer(_START_SECONDS, self._process.kill)
        giving_up.daemon = True
        giving_up.start()
        try:
            self._process.stdin.write(json.dumps(settings).encode("ascii") + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            return str(json.loads(line)["endpoint"])
        except (OSError, ValueError, KeyError) as error:
            self._process.kill()
            code = self._process.wait()
            raise WorkerStartError(
                f"The worker ended with exit code {code} before it was ready. Check that this Python can run "
                f"{sys.executable} -m wsl_worker --help. It printed last:\n{self._log_tail()}"
            ) from error
        finally:
            giving_up.cancel()

    def _log_tail(self) -> str:
        if self._log is None:
            return "(see above)"
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(size - _LOG_TAIL_BYTES, 0))
        return self._log.read().decode("utf-8", "replace")

    def stop(self) -> None:
        """End the worker and wait for its end."""
        process = self._process
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._close_files()

    def kill(self) -> None:
        """End a worker that may not listen any more."""
        self._process.kill()
        self.stop()

    def abandon(self) -> None:
        """Let go of a worker that belongs to the parent process."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._close_files()
        # Nobody here waits for a process that is no child of this one.
        self._process.returncode = 0

    def _close_files(self) -> None:
        if self._process.stdout is not None:
            self._process.stdout.close()
        if self._log is not None:
            self._log.close()
