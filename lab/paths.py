"""Where the lab keeps what it makes, and what its parts are called."""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
#: Not below /run, /mnt, /dev or /var/tmp, which are the guest's own.
STATE = Path(os.environ.get("LAB") or Path.home() / ".cache" / "sklearn_wsl_gpu-lab").absolute()
PREFIX = STATE / "wine"
#: ``C:\`` of Windows Python; ``/mnt/c`` of the guest.
SHARE = PREFIX / "drive_c"
WINDOWS_PYTHON = SHARE / "python"
SITE_PACKAGES = WINDOWS_PYTHON / "Lib" / "site-packages"
#: Linux's Python with the same versions.
VENV = STATE / "venv"
KERNEL = STATE / "kernel"
INITRAMFS = STATE / "initramfs.gz"


def windows_path(path: Path) -> str:
    """Return the path of a file for Windows Python."""
    if path.is_relative_to(SHARE):
        return "C:\\" + str(path.relative_to(SHARE)).replace("/", "\\")
    return "Z:" + str(path.absolute()).replace("/", "\\")
