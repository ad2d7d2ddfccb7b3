"""Starts the executor, notices its death, starts it again: the front's only way to it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

from wsl_worker.link import DEVICE_LOST, Link

#: An executor that lived this long started well.
_STABLE_SECONDS = 10.0
#: So many bad starts in a row mean that the next one waits.
_BAD_STARTS = 5
_PAUSE_SECONDS = 10.0
_END_SECONDS = 10.0


def _is_clients(name: str) -> bool:
    """Tell whether a variable is for clients: this package's switch, and scikit-learn's settings, which calls bring."""
    own = name.startswith("SKLEARN_WSL_GPU_")
    return name.startswith("SKLEARN_") and not own


class Supervisor:
    """One executor process at a time.

    Parameters
    ----------
    engine : str
        Name of the engine that it runs.
    device : str
        What the engine computes on.
    model_bytes : int
        Memory for kept models.
    """

    def __init__(self, engine: str, device: str, model_bytes: int) -> None:
        self._command = [engine, device, str(model_bytes)]
        self.link: Link | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.pidfd = -1
        self._started_at = 0.0
        self._bad_starts = 0
        self._excused = False
        self.starts = 0

    @property
    def running(self) -> bool:
        """Whether there is an executor, ready or not."""
        return self.process is not None

    def may_start(self, now: float) -> bool:
        """Whether a new executor may be started: not while they keep dying."""
        return self._bad_starts < _BAD_STARTS or now - self._started_at > _PAUSE_SECONDS

    def start(self) -> Link:
        """Start an executor and return the link to it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs, contextlib.ExitStack() as otherwise:
            otherwise.callback(ours.close)
            # -P: modules of the directory that the client happens to be in are not the worker's.
            command = [sys.executable, "-P", "-m", "wsl_worker.executor", str(theirs.fileno())]
            process = subprocess.Popen(
                [*command, *self._command, str(os.getpid())],
                env={name: value for name, value in os.environ.items() if not _is_clients(name)},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Out of the terminal's group: Ctrl-C there is the client's business.
                start_new_session=True,
            )
            otherwise.callback(process.wait)
            otherwise.callback(process.kill)
            self.pidfd = os.pidfd_open(process.pid)
            otherwise.pop_all()
        self.process, self._excused = process, False
        self.link = Link(ours, blocking=False)
        self._started_at = time.monotonic()
        self.starts += 1
        return self.link

    def interrupt(self) -> None:
        """Ask the running job to stop."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End the executor at once, which is not its fault; `bury` follows when its death is seen."""
        self._excused = True
        self.finish()

    def finish(self) -> None:
        """Make sure that an executor ends that is about to: it may still have to free what it has on a device."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()

    def bury(self) -> str:
        """Take note of an executor's death, and return how it died in words."""
        assert self.process is not None
        assert self.link is not None
        self.process.kill()
        code = self.process.wait()
        if not self._excused:
            lived = time.monotonic() - self._started_at
            self._bad_starts = 0 if lived > _STABLE_SECONDS else self._bad_starts + 1
        os.close(self.pidfd)
        self.link.close()
        self.process, self.link, self.pidfd = None, None, -1
        if code < 0:
            return f"was ended by signal {-code} ({signal.strsignal(-code) or 'unknown'})"
        if code == DEVICE_LOST:
            return "lost its device, which no longer answered,"
        return f"ended with exit code {code}"

    def stop(self) -> None:
        """End the executor, for good."""
        if self.process is not None:
            self.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # a device that hangs is not waited for
                self.process.wait(_END_SECONDS)
                self.bury()
