"""What exists on Windows only: WSL's entries in the registry."""

from __future__ import annotations

import importlib
from typing import Any

_LXSS = r"Software\Microsoft\Windows\CurrentVersion\Lxss"
_INSTALLED = 1
_VM_MODE = 0x8


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
