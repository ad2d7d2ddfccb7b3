"""What exists on Windows only: the registry, jobs, in which processes end together, drives, and administrators."""

from __future__ import annotations

import ctypes
import importlib
import ntpath
import os
import struct
from typing import Any

_LXSS = r"Software\Microsoft\Windows\CurrentVersion\Lxss"
_RUN = r"Software\Microsoft\Windows\CurrentVersion\Run"
_INSTALLED = 1
_VM_MODE = 0x8
_KILL_ON_JOB_CLOSE = 0x2000
_EXTENDED_LIMITS = 9
_INVALID_ATTRIBUTES = _INVALID_SIZE = 0xFFFFFFFF
_SET_QUOTA_AND_TERMINATE = 0x0101
#: Else a handle would be cut to 32 bits.
_handle = ctypes.c_void_p

#: Mode of a directory for one user alone. On Windows Python would leave it to whoever owns it, which is all
#: administrators if one of them made it (python/cpython#157876); there, what is in a user's profile is the user's own.
PRIVATE = 0o777 if os.name == "nt" else 0o700


def registered_distributions() -> list[tuple[str, int, bool]] | None:
    r"""Return name, version of WSL and whether it is the default, of each installed distribution of this user.

    Returns
    -------
    found : list of tuple, or None
        Empty where WSL was never set up; None where the registry cannot be read.

    References
    ----------
    ``HKCU\Software\Microsoft\Windows\CurrentVersion\Lxss`` has a key for each distribution, by its GUID. What is
    called Version there is that of its file system; microsoft/WSL, ``src/windows/service/exe/LxssUserSession.cpp``,
    tells WSL 2 by a flag.
    """
    winreg: Any = importlib.import_module("winreg")
    found = []
    try:
        with winreg.OpenKey(winreg.HKEY_CURRENT_USER, _LXSS) as key:
            try:
                default = str(winreg.QueryValueEx(key, "DefaultDistribution")[0]).casefold()
            except FileNotFoundError:
                default = ""
            for number in range(winreg.QueryInfoKey(key)[0]):
                guid = winreg.EnumKey(key, number)
                with winreg.OpenKey(key, guid) as entry:
                    try:
                        name, flags, state = (
                            winreg.QueryValueEx(entry, value)[0] for value in ("DistributionName", "Flags", "State")
                        )
                    except FileNotFoundError:
                        continue  # not one of a distribution
                    if state == _INSTALLED:
                        found.append((str(name), 2 if flags & _VM_MODE else 1, guid.casefold() == default))
    except FileNotFoundError:
        return []
    except OSError:
        return None
    return found


def logon_command(name: str) -> str | None:
    """Return what Windows runs under a name when this user logs on, or None.

    References
    ----------
    Microsoft, "Run and RunOnce Registry Keys".
    """
    winreg: Any = importlib.import_module("winreg")
    try:
        with winreg.OpenKey(winreg.HKEY_CURRENT_USER, _RUN) as key:
            return str(winreg.QueryValueEx(key, name)[0])
    except FileNotFoundError:
        return None


def set_logon_command(name: str, command: str | None) -> None:
    """Have Windows run a command under a name when this user logs on; None for no more."""
    winreg: Any = importlib.import_module("winreg")
    # A user for whom nothing was ever to be run has no such key.
    with winreg.CreateKeyEx(winreg.HKEY_CURRENT_USER, _RUN, 0, winreg.KEY_SET_VALUE) as key:
        if command is None:
            winreg.DeleteValue(key, name)
        else:
            winreg.SetValueEx(key, name, 0, winreg.REG_SZ, command)


def end_with_this_process(pid: int) -> int:
    """Have Windows end a process when this one ends, however it ends; return the job's handle, 0 for none.

    References
    ----------
    Microsoft, "Job Objects": a job with ``JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE`` ends its processes with its last handle,
    and Windows closes the handles of a process that ends.
    """
    kernel32 = _kernel32()
    if kernel32 is None:
        return 0
    job = kernel32.CreateJobObjectW(None, None)
    process = kernel32.OpenProcess(_SET_QUOTA_AND_TERMINATE, False, pid)
    # JOBOBJECT_EXTENDED_LIMIT_INFORMATION of 64-bit Windows; of its fields only LimitFlags is not zero.
    limits = struct.pack("<16xI124x", _KILL_ON_JOB_CLOSE)
    is_set = kernel32.SetInformationJobObject(_handle(job), _EXTENDED_LIMITS, limits, len(limits))
    is_in = is_set and kernel32.AssignProcessToJobObject(_handle(job), _handle(process))
    close(process or 0)
    if not is_in:
        close(job or 0)
    return int(job) if is_in else 0


def close(handle: int) -> None:
    """Close a handle, if it is one."""
    if handle:
        _kernel32().CloseHandle(_handle(handle))


def _kernel32() -> Any:
    """Return the library, or None elsewhere."""
    library = getattr(ctypes, "WinDLL", None)
    if library is None:
        return None
    kernel32 = library("kernel32")
    kernel32.CreateJobObjectW.restype = kernel32.OpenProcess.restype = ctypes.c_void_p
    return kernel32


def volume(path: str) -> tuple[int, int] | None:
    """Return what kind of drive a directory is on, and its attributes; None where Windows does not tell.

    References
    ----------
    Microsoft, "GetDriveTypeW" and "GetFileAttributesW"; what the numbers mean: `sklearn_wsl_gpu.paths`.
    """
    kernel32 = _kernel32()
    if kernel32 is None:
        return None
    attributes = kernel32.GetFileAttributesW(path) & _INVALID_ATTRIBUTES
    if attributes == _INVALID_ATTRIBUTES:
        return None
    return int(kernel32.GetDriveTypeW(ntpath.splitdrive(path)[0] + "\\")), attributes


def size_on_disk(path: str) -> int | None:
    """Return the bytes that a file takes; None where Windows does not tell.

    References
    ----------
    Microsoft, "GetCompressedFileSizeW": of a sparse file that is less than its size.
    """
    kernel32 = _kernel32()
    if kernel32 is None:
        return None
    high = ctypes.c_uint32()
    low = kernel32.GetCompressedFileSizeW(path, ctypes.byref(high)) & _INVALID_SIZE
    return None if low == _INVALID_SIZE else (high.value << 32) + low


def is_elevated() -> bool:
    """Tell whether this process is an administrator's; False elsewhere.

    References
    ----------
    Microsoft, "IsUserAnAdmin".
    """
    libraries = getattr(ctypes, "windll", None)
    return libraries is not None and bool(libraries.shell32.IsUserAnAdmin())
