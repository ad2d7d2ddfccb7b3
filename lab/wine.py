"""Runs Windows Python under Wine: python lab/wine.py [ARGUMENTS OF PYTHON]."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from paths import PREFIX, WINDOWS_PYTHON

#: Of this machine, and wrong there.
_FOREIGN = ("DISPLAY", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "TMPDIR", "TEMP", "TMP")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a program that runs under Wine."""
    kept = {key: value for key, value in os.environ.items() if key not in _FOREIGN}
    wine = {"WINEPREFIX": str(PREFIX), "WINEARCH": "win64", "WINEDLLOVERRIDES": "mscoree,mshtml=", "WINEDEBUG": "-all"}
    return {**kept, **wine, **(more or {})}


def run(
    arguments: Sequence[str],
    more: Mapping[str, str] | None = None,
    shown: IO[bytes] | None = None,
    folder: Path | None = None,
) -> int:
    """Run Windows Python to its end, and return its exit code.

    Parameters
    ----------
    arguments : sequence of str
        Of Python.
    more : mapping or None
        Further variables of its environment.
    shown : file or None
        Where what it prints goes. It is given a pipe in any case: under Wine 8 it dies at its start of a file.
    folder : Path or None
        Where it runs.
    """
    process = subprocess.Popen(
        ["wine", str(WINDOWS_PYTHON / "python.exe"), *arguments], env=environment(more), cwd=folder,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
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
