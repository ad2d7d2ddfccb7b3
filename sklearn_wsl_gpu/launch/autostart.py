"""A worker that starts when the user logs on to Windows, as one that `standing.start` starts."""

from __future__ import annotations

import ntpath
import os
import subprocess
import sys
from collections.abc import Mapping

from sklearn_wsl_gpu import windows
from sklearn_wsl_gpu.errors import OffloadError

#: Where it is noted, for people to find.
NAME = "sklearn_wsl_gpu"
PLACE = rf"HKEY_CURRENT_USER\Software\Microsoft\Windows\CurrentVersion\Run, value {NAME}"
#: Known beforehand, because nobody sees what a worker prints that starts at logon.
ENDPOINT = "tcp://127.0.0.1:47474"
_MAX_CHARACTERS = 260


def command(options: Mapping[str, str | None], python: str) -> str:
    """Return the command that starts a worker with these options of ``worker start``, for Windows to run.

    Parameters
    ----------
    options : mapping
        Name without dashes → value; those that are None or empty are left out.
    python : str
        Path of this Python. Its ``pythonw.exe`` is run, which opens no window.

    Raises
    ------
    OffloadError
        If it is longer than Windows allows.
    """
    head, tail = ntpath.split(python)
    silent = ntpath.join(head, "pythonw.exe") if tail.lower() == "python.exe" else python
    words = [silent, "-P", "-m", "sklearn_wsl_gpu.cli", "worker", "start", "--detach"]
    words += [word for name, value in options.items() if value for word in (f"--{name}", value)]
    text = subprocess.list2cmdline(words)
    if len(text) > _MAX_CHARACTERS:
        raise OffloadError(
            f"The command to run at logon has {len(text)} characters, and Windows takes {_MAX_CHARACTERS}: {text}. "
            "Shorten the paths in it, or leave options out."
        )
    return text


def turn_on(options: Mapping[str, str | None]) -> str:
    """Have a worker start at each logon; return the command.

    Raises
    ------
    OffloadError
        If this is not Windows, or it does not let this user.
    """
    _check()
    text = command(options, sys.executable)
    _note(text)
    return text


def turn_off() -> str | None:
    """Undo `turn_on`; return the command that is not run any more, or None if there was none."""
    _check()
    found = windows.logon_command(NAME)
    if found is not None:
        _note(None)
    return found


def _note(text: str | None) -> None:
    try:
        windows.set_logon_command(NAME, text)
    except OSError as error:
        raise OffloadError(f"Windows does not let you change {PLACE}: {error.strerror}.") from error


def _check() -> None:
    if os.name != "nt":
        raise OffloadError(
            "Starting a worker at logon is for Windows. On Linux a user unit of systemd does it, with\n"
            f"ExecStart={sys.executable} -m wsl_worker --listen {ENDPOINT} --keys %h/.sklearn_wsl_gpu"
        )
