"""Programs that are asked for facts, each until a time-out: a hanging one is ended, and so is what it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sklearn_wsl_gpu.launch import wsl

_KILLED_SECONDS = 1.0
#: Programs that run now, for `end_all`.
_running: set[subprocess.Popen[bytes]] = set()


class Answer(NamedTuple):
    """How a program ended: exit code, what it printed, and whether it was ended for taking too long."""

    code: int
    out: str
    err: str
    timed_out: bool = False

    @property
    def words(self) -> str:
        """What it printed last, on one line."""
        lines = [line.strip() for line in f"{self.out}\n{self.err}".splitlines() if line.strip()]
        return lines[-1][-300:] if lines else "nothing"


def ask(command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None) -> Answer:
    """Run a program in the root directory, and wait for its end.

    A program that is not there has the exit code 127, as a shell says it.
    """
    pipe = subprocess.PIPE
    hidden: int = getattr(subprocess, "CREATE_NO_WINDOW", 0)
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, cwd=os.path.abspath(os.sep),
            env=None if environment is None else dict(environment), start_new_session=True, creationflags=hidden,
        )  # fmt: skip
    except OSError as error:
        return Answer(127, "", f"{command[0]}: {error.strerror}")
    timed_out, output = False, (b"", b"")
    _running.add(process)
    try:
        output = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        timed_out = True
        _end(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            output = process.communicate(timeout=_KILLED_SECONDS)
    finally:
        _running.discard(process)
        if process.returncode is None:
            _end(process)
            # One that cannot be killed now, because it waits for a device, is not waited for.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_KILLED_SECONDS)
        if sys.platform != "win32":  # elsewhere threads that still read close them
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
    code = -1 if process.returncode is None else process.returncode
    out, err = (part.decode("utf-8", "replace") for part in output)
    return Answer(code, out, err, timed_out)


def end_all() -> None:
    """End the programs that run still, because nobody waits for their answers any more."""
    for process in [*_running, *wsl.running]:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        if sys.platform != "win32":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def ask_probe(
    name: str, arguments: Mapping[str, Any], seconds: float, environment: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], Answer]:
    """Run one of the functions of `sklearn_wsl_gpu.doctor.probes` in a process of its own.

    Returns
    -------
    facts : dict
        What it told, all of it or what it had told when it ended; empty if nothing.
    answer : Answer
        How it ended.
    """
    command = [sys.executable, "-P", "-m", "sklearn_wsl_gpu.doctor.probes", name, json.dumps(arguments)]
    answer = ask(command, seconds, environment)
    facts: dict[str, Any] = {}
    for line in answer.out.splitlines():
        with contextlib.suppress(ValueError):
            told = json.loads(line)
            if isinstance(told, dict):
                facts.update(told)
    return facts, answer


def tell(**facts: Any) -> None:
    """Print facts, in a process that `ask_probe` has started."""
    print(json.dumps(facts), flush=True)


def describe(answer: Answer, seconds: float) -> str:
    """Return in words how a program ended that did not do what it should."""
    if answer.timed_out:
        return f"There was no answer within {seconds:.0f} s."
    if answer.code < 0:
        with contextlib.suppress(ValueError):
            return f"It was ended by {signal.Signals(-answer.code).name}; it printed last: {answer.words}"
    return f"It ended with exit code {answer.code}; it printed last: {answer.words}"


def read(path: str) -> str:
    """Return the text of a file, or nothing where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
