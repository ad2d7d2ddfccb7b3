"""Where what was measured is kept between runs: files for each machine, in the user's cache directory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import stat
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sklearn_wsl_gpu import costs, windows

#: Name of what calls cost.
COSTS = "costs"
_MAX_BYTES = 8 * 2**20


def directory() -> Path:
    """Return the directory of this package among the user's caches, as the platform has it."""
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        # A relative path is to be ignored, says the specification.
        given = os.environ.get("XDG_CACHE_HOME", "")
        base = given if os.path.isabs(given) else home / ".cache"
    return Path(base) / "sklearn_wsl_gpu"


def path(name: str = COSTS, more: Sequence[str] = ()) -> Path:
    """Return the file of this machine and these versions; it need not exist.

    Parameters
    ----------
    name : str
        What is kept.
    more : sequence of str
        What else it is only true for.
    """
    digest = hashlib.blake2b(json.dumps(_key(more)).encode(), digest_size=8).hexdigest()
    return directory() / f"{name}-{digest}.json"


def load(name: str = COSTS, more: Sequence[str] = ()) -> Any:
    """Return what is kept, or None if that cannot be read or is of another machine; see `path`."""
    try:
        # A pipe in its place would be waited for.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(path(name, more), flags), "rb") as file:
            content = file.read(_MAX_BYTES + 1) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
        found = json.loads(content) if len(content) <= _MAX_BYTES else None
        return found["table"] if isinstance(found, dict) and found.get("key") == _key(more) else None
    except (OSError, ValueError, KeyError, RecursionError):
        return None


def save(data: Any, name: str = COSTS, more: Sequence[str] = ()) -> None:
    """Keep plain data in the place of what is kept, as a whole or not at all; a failure to write is none.

    See `path`.
    """
    with contextlib.suppress(OSError):
        target = path(name, more)
        target.parent.mkdir(mode=windows.PRIVATE, parents=True, exist_ok=True)
        # Readable by the user alone, as mkstemp makes it.
        number, name = tempfile.mkstemp(prefix=target.stem, suffix=".tmp", dir=target.parent)
        try:
            with open(number, "w", encoding="utf-8") as file:
                json.dump({"key": _key(more), "table": data}, file, separators=(",", ":"))
            os.replace(name, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


def forget_engines() -> None:
    """Have calls that have stayed because of a slower engine try the one that there is now."""
    with contextlib.suppress(ValueError):
        save(costs.without_engines(load()))


def _key(more: Sequence[str]) -> list[str]:
    versions = [version("sklearn-wsl-gpu"), version("scikit-learn")]
    return [*versions, sys.platform, platform.machine(), _processor(), str(os.cpu_count()), *more]


def _processor() -> str:
    if sys.platform == "linux":
        with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    return os.environ.get("PROCESSOR_IDENTIFIER", "")
