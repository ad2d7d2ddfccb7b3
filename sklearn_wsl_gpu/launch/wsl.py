"""``wsl.exe``, as a program that is run: what it prints, its distributions, and the worker's Python in one of them.

Its own messages are in the language of Windows, so they are shown and never understood: what counts are exit codes,
names and columns.

References
----------
Microsoft, "Basic commands for WSL"; microsoft/WSL, ``src/windows/common/WslClient.cpp`` (``WSL_UTF8``).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from sklearn_wsl_gpu import windows
from sklearn_wsl_gpu.errors import WorkerStartError

#: Names a program to use as ``wsl.exe``. On Linux it has workers start through it, as on Windows.
NAMED = "SKLEARN_WSL_GPU_WSL"
#: Where `setup` makes the worker's virtual environment, below the home directory in the distribution.
VENV = ".local/share/sklearn_wsl_gpu/venv"
#: No window flashes up, and Ctrl-C in the console of this process does not reach the child; nothing elsewhere.
HIDDEN: int = getattr(subprocess, "CREATE_NO_WINDOW", 0) | getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
#: How long a wait may be at a time: before Python 3.14 Windows does not hear Ctrl-C meanwhile (python/cpython#125541).
LOOK_SECONDS = 0.2
#: A virtual machine that has to start first takes some seconds, on a busy machine many.
ANSWER_SECONDS = 60.0

#: Distributions that serve other programs, and have no place for a worker.
_FOREIGN = ("docker-desktop", "rancher-desktop", "podman-")
_LIST_SECONDS = 30.0
#: Those that run now, for who ends before they do.
running: set[subprocess.Popen[bytes]] = set()
_KILLED_SECONDS = 1.0
_INSTALL = "Run `wsl --install -d Ubuntu` in a terminal, restart Windows if it says so, then `sklearn-wsl-gpu setup`."


class Completed(NamedTuple):
    """How a run of ``wsl.exe`` ended: exit code, what it printed, and whether it was ended for taking too long."""

    code: int
    out: str
    err: str
    timed_out: bool

    @property
    def words(self) -> str:
        """What it printed, on one line; a message of its own may come by either stream."""
        return " ".join(f"{self.out} {self.err}".split()) or "nothing"


class Distribution(NamedTuple):
    """A Linux that is installed in WSL.

    Attributes
    ----------
    name : str
    version : int
        Of WSL: 2, or 1, which has no GPU.
    is_default : bool
    state : str
        As ``wsl.exe`` words it, in the language of Windows; empty where the registry told of the distribution.
    """

    name: str
    version: int
    is_default: bool
    state: str

    @property
    def is_foreign(self) -> bool:
        """Whether it is a part of another program, such as Docker Desktop."""
        return self.name.casefold().startswith(_FOREIGN)


def is_between() -> bool:
    """Tell whether workers are on the other side of ``wsl.exe``: on Windows, or where a variable names one."""
    return sys.platform == "win32" or bool(os.environ.get(NAMED))


def executable() -> str:
    """Return the path of ``wsl.exe``.

    Raises
    ------
    WorkerStartError
        If there is none.
    """
    named = os.environ.get(NAMED)
    if named:
        found = shutil.which(named)
        if found is None:
            raise WorkerStartError(f"{NAMED}={named} is no program that can be run. Unset it, or name a wsl.exe.")
        return found
    root = os.environ.get("SYSTEMROOT", r"C:\Windows")
    # A 32-bit Python sees other files as System32, and only there is a Sysnative.
    for directory in ("Sysnative", "System32"):
        path = os.path.join(root, directory, "wsl.exe")
        if os.path.exists(path):
            return path
    raise WorkerStartError(f"There is no wsl.exe in {os.path.join(root, 'System32')}: WSL is not installed. {_INSTALL}")


def environment() -> dict[str, str]:
    """Return the environment for ``wsl.exe``: this process's, and the wish that it speak UTF-8."""
    return {**os.environ, "WSL_UTF8": "1"}


def inside(distribution: str, *words: str) -> list[str]:
    """Return the arguments that run a command in the home directory of a distribution, without a shell."""
    return ["-d", distribution, "--cd", "~", "--exec", *words]


def typed(distribution: str) -> str:
    """Return the name of a distribution as it is typed: without quotes if it can be, for cmd.exe leaves them on it."""
    return distribution if re.fullmatch(r"[A-Za-z0-9._-]+", distribution) else f'"{distribution}"'


def run(arguments: Sequence[str], seconds: float, stdin: bytes = b"") -> Completed:
    """Run ``wsl.exe`` and wait for its end.

    Parameters
    ----------
    arguments : sequence of str
        Without a shell on either side, if they begin as those of `inside`. Plain words only: quotes, ``$`` and a
        backslash at an end do not survive all that reads them.
    seconds : float
        After which it is ended.
    stdin : bytes
        For its standard input.

    Raises
    ------
    WorkerStartError
        If it cannot be started.
    """
    command = [executable(), *arguments]
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment(), creationflags=HIDDEN,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise WorkerStartError(f"{command[0]} cannot be started: {error.strerror}. {_INSTALL}") from error
    timed_out, output = False, (b"", b"")
    running.add(process)
    try:
        output = _communicate(process, stdin, seconds)
    except subprocess.TimeoutExpired:
        timed_out = True
        process.kill()
        try:
            output = process.communicate(timeout=_KILLED_SECONDS)
        except subprocess.TimeoutExpired as late:
            # What it has started may hold the pipes for longer than it lives.
            output = late.output or b"", late.stderr or b""
        process.wait()
    finally:
        running.discard(process)
        if process.returncode is None:
            process.kill()
            process.wait()
        if sys.platform != "win32":  # there, threads that read on close them
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
    code = process.returncode
    return Completed(code - 2**32 if code >= 2**31 else code, decode(output[0]), decode(output[1]), timed_out)


def _communicate(process: subprocess.Popen[bytes], stdin: bytes, seconds: float) -> tuple[bytes, bytes]:
    end = time.monotonic() + seconds
    given: bytes | None = stdin
    while True:
        try:
            return process.communicate(given, min(LOOK_SECONDS, seconds))
        except subprocess.TimeoutExpired:
            if time.monotonic() > end:
                raise
            given = None


def decode(raw: bytes) -> str:
    """Return what ``wsl.exe`` or a command in it printed: UTF-16 of its own messages, UTF-8 of all else."""
    # Of a long message in Chinese or Japanese, only the end of its line may tell.
    encoding = "utf-16-le" if b"\0" in raw[:64] or raw.endswith(b"\n\0") else "utf-8"
    return raw.decode(encoding, "replace").removeprefix("\ufeff").replace("\r\n", "\n")


def distributions() -> list[Distribution]:
    """Return the installed distributions: from the registry, else as ``wsl.exe`` lists them.

    Raises
    ------
    WorkerStartError
        If ``wsl.exe`` cannot be run or does not list them.
    """
    if sys.platform == "win32" and not os.environ.get(NAMED):
        # Where WSL is not set up, wsl.exe may offer to install it, and wait for an answer.
        found = windows.registered_distributions()
        if found is not None:
            return [Distribution(*entry, "") for entry in found]
    names = [line.strip() for line in _listing("-l", "-q").splitlines() if line.strip()]
    return parse_list(_listing("-l", "-v"), names)


def _listing(*arguments: str) -> str:
    done = run(arguments, _LIST_SECONDS)
    if done.timed_out:
        raise WorkerStartError(
            f"`wsl {' '.join(arguments)}` did not end within {_LIST_SECONDS:.0f} s. It said: {done.words}. Run "
            "`wsl --shutdown` and try again; if that hangs too, restart Windows."
        )
    if done.code:
        raise WorkerStartError(
            f"WSL does not list its distributions (exit code {done.code}). It says: {done.words}. If there is none: "
            f"{_INSTALL}"
        )
    return done.out


def parse_list(text: str, names: Sequence[str]) -> list[Distribution]:
    """Return the distributions of a table.

    Parameters
    ----------
    text : str
        What ``wsl -l -v`` prints: ``*`` before the default, name, state, version; words in any language.
    names : sequence of str
        Those of ``wsl -l -q``; a name may hold spaces.
    """
    found = []
    for line in text.splitlines():
        is_default, row = line.lstrip().startswith("*"), line.strip().lstrip("*").strip()
        matching = [name for name in names if row.startswith(name) and row[len(name) : len(name) + 1] in (" ", "\t")]
        version = re.search(r"\s([0-9]+)$", row)
        if matching and version is not None:
            name = max(matching, key=len)
            found.append(Distribution(name, int(version[1]), is_default, row[len(name) : version.start()].strip()))
    return found


def choose(found: Sequence[Distribution], wanted: str | None = None) -> Distribution:
    """Return the distribution for the worker: the one that is wanted, else the default, else the first that will do.

    Parameters
    ----------
    found : sequence of Distribution
        From `distributions`.
    wanted : str or None
        Setting ``distribution``.

    Raises
    ------
    WorkerStartError
        If none will do; the message says what to type next.
    """
    names = ", ".join(item.name for item in found)
    if not found:
        raise WorkerStartError(f"No Linux distribution is installed in WSL. {_INSTALL}")
    if wanted is not None:
        named = [item for item in found if item.name.casefold() == wanted.casefold()]
        if not named:
            raise WorkerStartError(
                f"There is no distribution {wanted!r} in WSL, only: {names}. Set distribution (or "
                "SKLEARN_WSL_GPU_DISTRIBUTION) to one of these, or leave it unset."
            )
        return _of_version_2(named[0])
    own = [item for item in found if not item.is_foreign]
    if not own:
        raise WorkerStartError(
            f"WSL has only distributions that are part of other programs: {names}. {_INSTALL} To use one of them all "
            "the same, set distribution (or SKLEARN_WSL_GPU_DISTRIBUTION) to its name."
        )
    usable = [item for item in own if item.version == 2] or own
    return _of_version_2(next((item for item in usable if item.is_default), usable[0]))


def _of_version_2(distribution: Distribution) -> Distribution:
    if distribution.version != 2:
        raise WorkerStartError(
            f"The distribution {distribution.name!r} runs under WSL {distribution.version}, which has no GPU. Run "
            f"`wsl --set-version {typed(distribution.name)} 2`, which takes some minutes and keeps its files."
        )
    return distribution


def interpreter(distribution: str, named: str | None = None) -> str:
    """Return the absolute path of the worker's Python in a distribution, which is started for that.

    Parameters
    ----------
    distribution : str
        Its name.
    named : str or None
        Setting ``interpreter``: an absolute path, or one that begins with ``~/``; None takes the one that
        ``sklearn-wsl-gpu setup`` installs.

    Raises
    ------
    WorkerStartError
        If the distribution does not start, or has no such file.
    """
    path = named or f"~/{VENV}/bin/python"
    if path.startswith("~/"):
        path = f"{home(distribution)}/{path[2:]}"
    done = ask(distribution, "test", "-x", path)
    if done.code:
        home(distribution)  # raises if it is the distribution that does not start
        raise WorkerStartError(
            f"There is no Python for the worker at {path} in {distribution}. Run `sklearn-wsl-gpu setup`, which "
            "installs one there, or set interpreter (or SKLEARN_WSL_GPU_INTERPRETER) to the path of another."
        )
    return path


def home(distribution: str) -> str:
    """Return the home directory in a distribution, which is started for that.

    Raises
    ------
    WorkerStartError
        If it does not start.
    """
    done = ask(distribution, "pwd")
    lines = done.out.splitlines()
    if done.code or not lines or not lines[-1].startswith("/"):
        raise WorkerStartError(
            f"The distribution {distribution} does not start (exit code {done.code}). WSL says: {done.words}. Try "
            f"`wsl -d {typed(distribution)}` in a terminal; `sklearn-wsl-gpu doctor` looks for the cause."
        )
    return lines[-1].rstrip("/")


def ask(distribution: str, *words: str, seconds: float = ANSWER_SECONDS) -> Completed:
    """Run a short command in a distribution.

    Raises
    ------
    WorkerStartError
        If it does not end in time.
    """
    done = run(inside(distribution, *words), seconds)
    if done.timed_out:
        raise WorkerStartError(
            f"The distribution {distribution} did not answer `{' '.join(words)}` within {seconds:.0f} s. It said: "
            f"{done.words}. Run `wsl --shutdown` and try again; `sklearn-wsl-gpu doctor` looks for the cause."
        )
    return done
