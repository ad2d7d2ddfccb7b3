"""Runs Windows Python under Wine: python lab/wine.py [ARGUMENTS OF PYTHON]."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO

from paths import PREFIX, WINDOWS_PYTHON

#: Of this machine, and wrong there.
_FOREIGN = ("DISPLAY", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "TMPDIR", "TEMP", "TMP")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a program that runs under Wine."""
    kept = {key: value for key, value in os.environ.items() if key not in _FOREIGN}
    wine = {"WINEPREFIX": str(PREFIX), "WINEARCH": "win64", "WINEDLLOVERRIDES": "mscoree,mshtml=", "WINEDEBUG": "-all"}
    return {**kept, **wine, **(more or {})}


def start(arguments: Sequence[str], more: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start Windows Python; its output comes through pipes, because under Wine 8 it dies at its start of a file."""
    command, pipe = ["wine", str(WINDOWS_PYTHON / "python.exe"), *arguments], subprocess.PIPE
    return subprocess.Popen(
        command, env=environment(more), stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT
    )


def run(arguments: Sequence[str], more: Mapping[str, str] | None = None, shown: IO[bytes] | None = None) -> int:
    """Run Windows Python to its end; return its exit code. What it prints goes to `shown`."""
    process = start(arguments, more)
    assert process.stdout is not None
    target = shown or sys.stdout.buffer

    def pass_on(pipe: IO[bytes]) -> None:
        while data := os.read(pipe.fileno(), 65536):
            target.write(data)
            target.flush()

    reader = threading.Thread(target=pass_on, args=[process.stdout], daemon=True)
    reader.start()
    try:
        code = process.wait()
    except BaseException:
        process.terminate()
        raise
    reader.join(10)  # a process that it left behind may hold the pipe still
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(run(sys.argv[1:]))
