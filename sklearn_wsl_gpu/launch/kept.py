"""What is noted of the worker that ``sklearn-wsl-gpu worker start`` keeps, in the directory of its keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from sklearn_wsl_gpu.config import Settings, checked
from sklearn_wsl_gpu.keys import HOME
from sklearn_wsl_gpu.newfile import write_new

_LAST_PID = 2**31 - 1


class Kept(NamedTuple):
    """A worker that outlives who started it.

    Attributes
    ----------
    endpoint : str
        Where it listens.
    pid : int
        Its process; 0 if that is one of another system.
    engine, device, distribution, interpreter : str or None
        What it was asked to be, as the settings of these names.
    elevated : bool
        Whether an administrator's process has started it.
    """

    endpoint: str
    pid: int = 0
    engine: str = "auto"
    device: str = "auto"
    distribution: str | None = None
    interpreter: str | None = None
    elevated: bool = False


def path_in(directory: Path) -> Path:
    """Return the file of the note."""
    return directory / "running.json"


def write(directory: Path, worker: Kept) -> None:
    """Write the note.

    Raises
    ------
    FileExistsError
        If there is one already.
    """
    write_new(path_in(directory), worker._asdict())


def read(directory: Path) -> Kept | None:
    """Return what is noted; None if nothing is, or nothing that can be understood."""
    try:
        noted = json.loads(path_in(directory).read_text("ascii"))
        found = Kept(**{name: noted[name] for name in Kept._fields if name in noted})
        found = found._replace(endpoint=checked("endpoint", found.endpoint), pid=int(found.pid))
    except (OSError, ValueError, TypeError, OverflowError):
        return None
    return found if found.endpoint and 0 <= found.pid <= _LAST_PID else None


def find(settings: Settings) -> Kept | None:
    """Return the worker that is kept, if it is what these settings ask for; whether it still runs is not looked at.

    What they leave open (an engine or a device that is ``"auto"``, a distribution or an interpreter that is None) may
    be anything.
    """
    found, default = read(Path(settings.keys or HOME)), Settings()
    if found is None or settings.model_bytes != default.model_bytes:
        return None
    for name in ("engine", "device", "distribution", "interpreter"):
        asked = getattr(settings, name)
        if asked not in (getattr(default, name), getattr(found, name)):
            return None
    return found
