"""What a user has around the client: the settings of WSL, the name of the home directory, scanners of files."""

from __future__ import annotations

import configparser
import os
import tempfile
from pathlib import Path

from sklearn_wsl_gpu import config
from sklearn_wsl_gpu.doctor.asking import ask
from sklearn_wsl_gpu.doctor.checks import Circumstances, Finding, information, ok, warning
from sklearn_wsl_gpu.pool import memory


def judge_settings(text: str, is_there: bool) -> Finding:
    """Decide on ``.wslconfig``.

    References
    ----------
    Microsoft, "Advanced settings configuration in WSL".
    """
    parser = configparser.ConfigParser(strict=False, interpolation=None, inline_comment_prefixes=("#",))
    try:
        parser.read_string(text)
    except configparser.Error as error:
        return warning(f".wslconfig cannot be read: {error.message}", "Correct that line; WSL ignores it as it is.")
    keys = {f"{section}.{name}".lower(): value.strip() for section in parser for name, value in parser[section].items()}
    told = ", ".join(f"{name}={value}" for name, value in sorted(keys.items())) or "nothing"
    evidence = f".wslconfig sets {told}." if is_there else "There is no .wslconfig: all is as WSL has it."
    mode = keys.get("wsl2.networkingmode", "nat").lower()
    if mode == "nat" and keys.get("wsl2.localhostforwarding", "true").lower() == "false":
        return warning(evidence, "Remove localhostForwarding=false: Windows cannot reach the worker by 127.0.0.1.")
    if keys.get("wsl2.kernel"):
        return warning(evidence, "If something of the GPU fails, remove kernel=, then run wsl --shutdown.")
    idle = keys.get("general.instanceidletimeout", "15000"), keys.get("wsl2.vmidletimeout", "60000")
    kept = [number.startswith("-") for number in idle]
    words = "never stops" if all(kept) else f"stops when idle ({idle[0]} and {idle[1]} ms)"
    return ok(f"{evidence} A distribution without programs from Windows {words}; a worker's wsl.exe is one.")


def look_at_settings(_: Circumstances) -> Finding:
    path = Path.home() / ".wslconfig"
    is_there = path.exists()
    return judge_settings(path.read_text("utf-8-sig", "replace") if is_there else "", is_there)


def judge_profile(home: str) -> Finding:
    """Decide on the name of the user's directory."""
    if not home.isascii():
        return warning(
            f"{home} is not ASCII: some libraries that others bring cannot open files there.",
            "If a temporary file fails: set TEMP to a directory such as C:\\Temp.",
        )
    return ok(home)


def look_at_profile(_: Circumstances) -> Finding:
    return judge_profile(os.path.expanduser("~"))


def judge_antivirus(is_defender: bool, directory: str) -> Finding:
    """Give the hint about scanners of files."""
    name = "Microsoft Defender runs" if is_defender else "Microsoft Defender does not run; another scanner may"
    return information(
        f"{name}. Scanners read files that are opened or closed, through WSL's file server too.",
        f"If files carry arrays and are slow, exclude {directory} (as administrator; nothing here changes settings).",
    )


def look_at_antivirus(circumstances: Circumstances) -> Finding:
    directory = memory.directory_of(config.resolve(circumstances.arguments).pool_dir) or tempfile.gettempdir()
    state = ask(["sc.exe", "query", "WinDefend"], 10.0)  # the number of a state is the same in any language
    return judge_antivirus(any(line.split(":")[-1].split()[:1] == ["4"] for line in state.out.splitlines()), directory)
