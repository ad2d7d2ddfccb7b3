"""A pool's memory as a file that another kernel can open: it has a random name, and goes with its owner.

On Windows the system removes it with its owner's last handle, however the process ends; elsewhere the owner does. What
is left all the same (of a killed process, after a loss of power) is removed by the next owner of such a file in that
directory. Proof that nobody owns it is a lock on Linux, on Windows that it can be opened at all: its owner may delete
it, which who opens it otherwise does not allow.

References
----------
Microsoft, "CreateFileW", FILE_FLAG_DELETE_ON_CLOSE and FILE_SHARE_DELETE; "FSCTL_SET_SPARSE". flock(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import stat
import sys
from pathlib import Path

_PREFIX = "sklearn_wsl_gpu-pool-"
_FSCTL_SET_SPARSE = 0x900C4
_ZEROS = bytes(64 * 1024)


def create(directory: str, nbytes: int) -> tuple[int, str]:
    """Make a sparse file that only this user may open; return its descriptor, and its path.

    Raises
    ------
    OSError
        If the directory cannot hold it.
    """
    _sweep(Path(directory))
    while True:
        path = os.path.join(directory, f"{_PREFIX}{os.urandom(8).hex()}.bin")
        descriptor = os.open(path, _flags("O_RDWR", "O_CREAT", "O_EXCL", "O_TEMPORARY", "O_SHORT_LIVED"), 0o600)
        try:
            with contextlib.suppress(BlockingIOError):  # another process sweeps it away before it is held
                _hold(descriptor)
                if os.path.exists(path):
                    _extend(descriptor, nbytes)
                    return descriptor, path
        except BaseException:
            remove(path)
            os.close(descriptor)
            raise
        os.close(descriptor)


def remove(path: str) -> None:
    """Remove the name of a file, if it is there still; who maps it keeps its bytes."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def write_zeros(descriptor: int, offset: int, nbytes: int) -> None:
    """Make a run of a sparse file take the space that it needs.

    Raises
    ------
    OSError
        If there is no space.
    """
    os.lseek(descriptor, offset, os.SEEK_SET)
    while nbytes:
        nbytes -= os.write(descriptor, _ZEROS[:nbytes])


def _flags(*names: str) -> int:
    flags = 0
    for name in (*names, "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_NOINHERIT"):
        flags |= getattr(os, name, 0)
    return flags


def _hold(descriptor: int) -> None:
    """Lock a file for as long as the descriptor is open; on Windows its being open is enough."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _extend(descriptor: int, nbytes: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        kernel, count = ctypes.WinDLL("kernel32", use_last_error=True), ctypes.c_uint32()
        handle = ctypes.c_void_p(msvcrt.get_osfhandle(descriptor))
        if not kernel.DeviceIoControl(handle, _FSCTL_SET_SPARSE, None, 0, None, 0, ctypes.byref(count), None):
            raise ctypes.WinError(ctypes.get_last_error())
        # The C library's way to make a file longer writes zeros to all of it; a mapping only sets its end.
        mmap.mmap(descriptor, nbytes).close()
    else:
        os.truncate(descriptor, nbytes)


def abandoned(directory: Path) -> list[Path]:
    """Return the files in a directory that nobody owns any more."""
    found = []
    for path in directory.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            os.close(_take(path))
            found.append(path)
    return found


def _sweep(directory: Path) -> None:
    for path in directory.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            _remove_abandoned(path)


def _remove_abandoned(path: Path) -> None:
    descriptor = _take(path)
    try:
        if sys.platform != "win32":
            path.unlink()
    finally:
        os.close(descriptor)
    if sys.platform == "win32":
        path.unlink()  # not while it is open


def _take(path: Path) -> int:
    """Return a descriptor that holds a file of this user which nobody owns; raise `OSError` if it is none."""
    descriptor = os.open(path, _flags("O_RDWR"))
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or (hasattr(os, "getuid") and about.st_uid != os.getuid()):
            raise OSError(0, "it is another's")
        _hold(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
