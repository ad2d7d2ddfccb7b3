"""What is told on standard error, where there is one: `pythonw` has none, and a pipe may have lost its reader."""

from __future__ import annotations

import contextlib
import sys


def say(words: str) -> None:
    """Tell something; that it cannot be told is no reason for a call to fail."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(f"sklearn_wsl_gpu: {words}", file=sys.stderr, flush=True)
