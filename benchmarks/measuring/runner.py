"""A process for each contestant, driven by a pipe: what is slow or broken is killed with all that it has started.

The arrays are made before these processes are, and are theirs by copy-on-write: ordinary warm private memory, there
once for all of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import deque
from pathlib import Path
from typing import Any

import contestants
import numpy as np
from one_pass import PAGE, pages

from measuring.arrays import Arrays

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class TooSlow(Exception):
    """A contestant did not answer in time; it is gone."""


class Broken(Exception):
    """A contestant failed; it is gone."""


def adopt_orphans() -> None:
    """Become the parent of processes whose own parent has ended, so that none is lost sight of."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def tree(root: int) -> list[int]:
    """Return a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def kill(pids: list[int]) -> None:
    """Kill processes, and wait for those that are this one's children."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def kill_orphans(known: set[int]) -> None:
    """Kill what descends from this process and from none of the known ones."""
    mine = set(tree(os.getpid())) - {os.getpid()}
    kept = {pid for root in known for pid in tree(root)}
    kill(sorted(mine - kept))


class Runner:
    """A contestant in a process of its own.

    Parameters
    ----------
    name : str
    arrays : Arrays
    log : Path
        Takes what it prints.
    environment : dict
        Variables that are set in it.
    """

    def __init__(self, name: str, arrays: Arrays, log: Path, environment: dict[str, str] | None = None) -> None:
        self.name, self._log = name, log
        self._pipe, there = multiprocessing.Pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._pipe.close()
            os.environ.update(environment or {})
            _run(name, arrays, there, log)
        there.close()
        self.modes: tuple[str, ...] = ()

    def start(self, limit: float) -> None:
        """Start the contestant's worker."""
        self.modes = self.ask(limit, "start")

    def use(self, limit: float, nbytes: int, layout: str) -> None:
        """Let the next calls be about an array of this size and layout."""
        self.ask(limit, "use", nbytes, layout)

    def call(self, limit: float, mode: str, check: bool = False, repeats: int = 1) -> tuple[float, dict[str, float]]:
        """Do a call; return its seconds, and those of its phases."""
        return self.ask(limit, "call", mode, check, repeats)

    def ask(self, limit: float, *command: Any) -> Any:
        """Send a command and wait for its answer."""
        self.tell(*command)
        return self.wait(limit)

    def tell(self, *command: Any) -> None:
        """Send a command."""
        with contextlib.suppress(OSError):
            self._pipe.send(command)

    def has_answered(self, seconds: float) -> bool:
        """Tell whether the answer is there, after at most so many seconds."""
        return self._pipe.poll(seconds)

    def wait(self, limit: float) -> Any:
        """Return the answer to the last command.

        Raises
        ------
        TooSlow
            After so many seconds. The contestant is killed, as with any other failure.
        Broken
            If it failed.
        """
        try:
            has_answered = self._pipe.poll(max(limit, 0))
            is_right, answer = self._pipe.recv() if has_answered else (False, None)
        except (EOFError, OSError):
            self.kill()
            raise Broken(f"its process ended; it printed last: {self._last_line()}") from None
        if not has_answered:
            self.kill()
            raise TooSlow(self.name)
        if not is_right:
            self.kill()
            raise Broken(answer)
        return answer

    def stop(self, limit: float = 20.0) -> None:
        """End it in good order, if it can."""
        with contextlib.suppress(TooSlow, Broken):
            self.ask(limit, "stop")
        self.kill()

    def kill(self) -> None:
        """End it and all that it has started."""
        if self.pid > 0:
            kill(tree(self.pid))
            _remove_what_is_left_of(self.pid)
            self._pipe.close()
            self.pid = 0

    def _last_line(self) -> str:
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "nothing"


def _remove_what_is_left_of(pid: int) -> None:
    """Remove files in memory, and directories, of a contestant that may have been killed: the others need the room."""
    made = re.compile(rf"(transport|sem\.loky)-{pid}-|joblib_memmapping_folder_{pid}_")
    for base in {"/dev/shm", tempfile.gettempdir()}:
        for path in Path(base).glob("*") if os.path.isdir(base) else ():
            if made.match(path.name):
                # Python's own processes for that may be at it, too.
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _run(name: str, arrays: Arrays, pipe: Any, log: Path) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    try:
        _serve(_Side(name, arrays), pipe)
    except EOFError:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _serve(side: _Side, pipe: Any) -> None:
    while True:
        kind, *arguments = pipe.recv()
        try:
            answer = True, getattr(side, kind)(*arguments)
        except Exception as error:
            traceback.print_exc()
            answer = False, f"{type(error).__name__}: {str(error).strip()[:300]}"
        pipe.send(answer)
        if kind == "stop":
            return


class _Side:
    """What a runner's process does for each command."""

    def __init__(self, name: str, arrays: Arrays) -> None:
        self._name, self._arrays = name, arrays
        self._placed: tuple[str, Any] = ("", None)

    def start(self) -> tuple[str, ...]:
        self._contestant = contestants.make(self._name)
        self._contestant.start()
        return self._contestant.modes

    def use(self, nbytes: int, layout: str) -> None:
        self._placed = ("", None)
        self._X = self._arrays.of(nbytes, layout)

    def call(self, mode: str, check: bool, repeats: int) -> tuple[float, dict[str, float]]:
        if self._placed[0] != mode:
            self._placed = ("", None)
            self._placed = (mode, self._contestant.place(mode, self._X))
        X = self._placed[1]
        total = 0.0
        for _ in range(repeats):
            X[0, 0] += 1  # another array each time: nobody may have kept it
            begin = time.perf_counter()
            y = self._contestant.call(mode, X)
            touched = pages(np.atleast_2d(y)).sum()
            total += time.perf_counter() - begin
        if self._contestant.verifies and (check or repeats == 1):
            _verify(mode, X, y, touched, check)
        return total / repeats, self._contestant.phases()

    def mixed(self, sizes: list[int]) -> list[float]:
        kept: deque[np.ndarray] = deque(maxlen=4)
        seconds = []
        for nbytes in sizes:
            X = self._arrays.of(nbytes, "C")
            begin = time.perf_counter()
            kept.append(self._contestant.call("out", X))
            seconds.append(time.perf_counter() - begin)
        return seconds

    def stop(self) -> None:
        self._placed = ("", None)
        self._contestant.stop()


def _verify(mode: str, X: np.ndarray, y: np.ndarray, touched: float, thoroughly: bool) -> None:
    if "out" not in mode:
        # What is not C-ordered may have been made so on the way, and then other elements begin a page.
        in_c_order = X[:: max(PAGE // (X.shape[1] * X.itemsize), 1), 0]
        right = any(np.allclose(touched, found.sum(), rtol=1e-4) for found in (pages(X), in_c_order))
    else:
        step = 1 if thoroughly else max(len(X) // 16, 1)
        right = y.shape == X.shape and all(
            np.array_equal(y[at : at + 1024 : step], 2 * X[at : at + 1024 : step])
            for at in range(0, len(X), 1024 * step)
        )
    if not right:
        raise ValueError(f"{mode}: the result is wrong")
