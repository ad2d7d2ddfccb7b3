"""What a path is called on the other side of ``wsl.exe``: by ``wslpath``, else by the table of mounts there."""

from __future__ import annotations

import ntpath
from typing import Protocol

from sklearn_wsl_gpu import paths
from sklearn_wsl_gpu.launch.wsl import Completed


class Look(Protocol):
    """Runs a command that changes nothing, and returns what it prints."""

    def __call__(self, *command: str) -> Completed: ...


def posix_path(look: Look, path: str) -> str:
    """Return what a path of Windows is called in a distribution; what begins with a slash is its own.

    Parameters
    ----------
    look : callable
        Runs a command there.
    path : str

    Raises
    ------
    ConfigurationError
        If the distribution does not see it.
    """
    if path.startswith("/"):
        return path
    # With slashes: a backslash at the end of a word does not survive all that reads it.
    done = look("wslpath", "-u", paths.plain(path).replace("\\", "/"))
    if not done.code and done.out.startswith("/"):
        return done.out.splitlines()[0]
    return paths.to_posix(path, *_mounts(look))


def windows_path(look: Look, distribution: str, path: str) -> str:
    """Return what a whole path in a distribution is called on Windows.

    Parameters
    ----------
    look : callable
        Runs a command there.
    distribution, path : str

    Raises
    ------
    ConfigurationError
        If Windows has no name for it.
    """
    done = look("wslpath", "-w", path)  # it may only know what is there already
    if not done.code and ntpath.splitdrive(done.out)[0]:
        return done.out.splitlines()[0]
    return paths.to_windows(path, distribution, *_mounts(look))


def _mounts(look: Look) -> tuple[str, str]:
    conf = look("cat", "/etc/wsl.conf").out
    return look("cat", "/proc/mounts").out, paths.automount_root(conf)
