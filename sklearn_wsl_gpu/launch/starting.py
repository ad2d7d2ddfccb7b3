"""Start a process that runs a worker, hand it keys and settings, and wait until it can be talked to."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from typing import IO, Any

from sklearn_wsl_gpu.errors import WorkerStartError
from sklearn_wsl_gpu.launch import wsl
from sklearn_wsl_gpu.launch.commands import Command
from sklearn_wsl_gpu.saying import say

_LOG_TAIL_BYTES = 2000
#: After which a person is told that a start takes its time.
_NEWS_SECONDS = 5.0
#: A port that is opened in WSL can be reached from Windows after a moment.
_FORWARD_SECONDS = 10.0
#: What has closed its output, and is about to end, does so within this time.
_END_SECONDS = 5.0


class WorkerProcess:
    """A process that runs a worker, or the ``wsl.exe`` that stands for one; ready once it is made.

    Parameters
    ----------
    command : Command
        With ``--embedded`` or ``--keys -`` among its arguments.
    given : dict
        What it reads from its standard input, as one line of JSON.
    log : file or None
        Takes its messages; None lets them go to this process's standard error.
    verbose : int
        Above zero it is told on standard error how the start goes.

    Attributes
    ----------
    endpoint : str
    child : subprocess.Popen

    Raises
    ------
    WorkerStartError
        If it does not come up; the message ends with what it printed last.
    """

    def __init__(self, command: Command, given: dict[str, Any], log: IO[bytes] | None, verbose: int) -> None:
        self._command = command
        self._log = log
        self._printed = b""
        self._told = threading.Event()
        self.endpoint = ""
        #: How long it took from here until its port could be reached, where it is of another system.
        self.reach_seconds: float | None = None
        begin = time.monotonic()
        self._news = begin + _NEWS_SECONDS if verbose else float("inf")
        if verbose:
            say(f"starting a worker with {command.python} in {command.where or 'this system'}")
        try:
            self.child = subprocess.Popen(
                command.words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                env=command.environment,
                # Out of the terminal's group: Ctrl-C is for this process, which then cancels.
                creationflags=wsl.HIDDEN,
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerStartError(
                f"The worker cannot be started: {error}. Command: {' '.join(command.words)}"
            ) from error
        try:
            self._start_to_listen()
            # Keys go by the child's standard input: not by its command line or environment, which others see.
            self._hand_over(given)
            self._wait_until_ready(begin + command.seconds)
            if command.where:
                listening = time.monotonic()
                self._wait_until_reached()
                self.reach_seconds = time.monotonic() - listening
        except BaseException:
            self.child.kill()
            self.child.wait()
            self.close()
            raise
        if verbose:
            say(f"the worker at {self.endpoint} was ready after {time.monotonic() - begin:.1f} s")

    def _start_to_listen(self) -> None:
        try:
            threading.Thread(target=self._listen, name="sklearn_wsl_gpu-start", daemon=True).start()
        except RuntimeError as error:
            self._told.set()
            raise WorkerStartError(f"No worker can be waited for at this moment: {error}.") from error

    def _hand_over(self, given: dict[str, Any]) -> None:
        assert self.child.stdin is not None
        with contextlib.suppress(OSError):  # it has ended: the wait for its first word tells how
            self.child.stdin.write(json.dumps(given).encode("ascii") + b"\n")

    def _listen(self) -> None:
        # wsl.exe may have something to say first, in UTF-16.
        assert self.child.stdout is not None
        for line in iter(self.child.stdout.readline, b""):
            try:
                self.endpoint = str(json.loads(line.strip(b"\0\r\n "))["endpoint"])
                break
            except (ValueError, KeyError, TypeError):
                self._printed += line
        self._told.set()

    def _wait_until_ready(self, deadline: float) -> None:
        while not self._told.wait(wsl.LOOK_SECONDS):
            now = time.monotonic()
            if now > deadline:
                raise self._failure(f"was not ready within {self._command.seconds:.0f} s")
            if now > self._news:
                self._news = now + _NEWS_SECONDS
                say(f"still waiting for the worker, for {deadline - now:.0f} s at most")
        if not self.endpoint:
            raise self._failure(self._how_it_ended())

    def _how_it_ended(self) -> str:
        deadline = time.monotonic() + _END_SECONDS
        while self.child.poll() is None:
            if time.monotonic() > deadline:
                return "closed its standard output before it was ready, and did not end"
            time.sleep(wsl.LOOK_SECONDS / 4)
        return f"ended with exit code {self.child.returncode} before it was ready"

    def _failure(self, what: str) -> WorkerStartError:
        self.child.kill()
        self.child.wait()
        return WorkerStartError(
            f"The worker {what}. Check that this runs: {self._command.hint}. It printed last:\n{self._log_tail()}"
        )

    def _wait_until_reached(self) -> None:
        host, _, port = self.endpoint.removeprefix("tcp://").rpartition(":")
        deadline = time.monotonic() + _FORWARD_SECONDS
        while True:
            try:
                socket.create_connection((host.strip("[]"), int(port)), 1.0).close()
                return
            except OSError as error:
                if time.monotonic() > deadline or self.child.poll() is not None:
                    raise WorkerStartError(
                        f"The worker runs in {self._command.where} and listens at {self.endpoint}, but this side does "
                        f"not reach it there ({error}). Look for localhostForwarding and networkingMode in "
                        ".wslconfig, and for a firewall; `sklearn-wsl-gpu doctor` looks for the cause."
                    ) from error
            time.sleep(wsl.LOOK_SECONDS / 4)

    def _log_tail(self) -> str:
        if self._log is None:
            return f"{wsl.decode(self._printed)}(see above)"
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(size - _LOG_TAIL_BYTES, 0))
        return (wsl.decode(self._printed) + wsl.decode(self._log.read()))[-_LOG_TAIL_BYTES:]

    def end_input(self) -> None:
        """Close its standard input: the end of a worker that watches it."""
        with contextlib.suppress(OSError):
            if self.child.stdin is not None:
                self.child.stdin.close()

    def close(self) -> None:
        """Close this side's ends of its streams."""
        self.end_input()
        # What is still read from is closed by its reader, or not at all: another file might get its number.
        if self._told.wait(wsl.LOOK_SECONDS) and self.child.stdout is not None:
            self.child.stdout.close()

    def let_go(self) -> None:
        """Close the streams of a process that goes on, and for whose end nobody here waits."""
        self.close()
        self.child.returncode = 0
