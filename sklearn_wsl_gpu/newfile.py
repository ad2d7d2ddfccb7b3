"""Files that several processes may want to write first: one does, and nobody reads half of one."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_new(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON to a file that only this user may read, whole or not at all.

    Raises
    ------
    FileExistsError
        If there is one already; it stays as it is.
    OSError
        If it cannot be written.
    """
    written = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            json.dump(content, file)
        _name(written, path)
    finally:
        written.unlink(missing_ok=True)


def _name(written: Path, path: Path) -> None:
    if sys.platform == "win32":
        written.rename(path)  # which fails there if there is one
        return
    try:
        path.hardlink_to(written)
    except FileExistsError:
        raise
    except OSError:  # a file system without such links: for a moment the file is empty
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        written.replace(path)
