"""The client's side of ``wsl.exe``: WSL itself, the distribution, its settings, and the doctor in there."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sklearn_wsl_gpu import config
from sklearn_wsl_gpu.doctor.checks import RESULTS, Circumstances, Finding, Row, failed, information, ok, warning
from sklearn_wsl_gpu.launch import wsl

#: From this one on, a distribution tells the id of its virtual machine (microsoft/WSL, src/linux/init/wslinfo.cpp).
_RECOMMENDED = (2, 5, 10)
_KNOWN_BAD = {
    (2, 7, 0): "files on virtiofs fail with EIO (microsoft/WSL#14301)",
    (2, 9, 3): "streams into WSL are slow in mirrored mode (microsoft/WSL#40965)",
}
#: What a message of WSL holds in any language, and what it means (microsoft/WSL, src/windows/common/wslutil.cpp).
_CODES = (
    (("HCS_E_HYPERV_NOT_INSTALLED", "0x80370102"),
     "Switch on virtualization in the BIOS, and the Windows feature Virtual Machine Platform; then restart."),
    (("HCS_E_SERVICE_NOT_AVAILABLE", "0x80370114", "WSL_E_VIRTUAL_MACHINE_PLATFORM_REQUIRED"),
     "Switch on the Windows feature Virtual Machine Platform (as administrator: wsl --install --no-distribution)."),
    (("HCS_E_CONNECTION_TIMEOUT", "0x80370109"), "Run wsl --shutdown, and try again; if that hangs, restart Windows."),
    (("ERROR_SERVICE_DISABLED", "0x80070422"), "As administrator: sc config WslService start= demand"),
    (("ERROR_NO_SYSTEM_RESOURCES", "E_OUTOFMEMORY", "0x800705aa", "0x8007000e"),
     "Close programs, or make memory= in .wslconfig smaller: Windows has no memory for the virtual machine."),
    (("ERROR_FILE_NOT_FOUND", "ERROR_PATH_NOT_FOUND", "0x80070002", "0x80070003"),
     "The distribution's disk is gone: restore it, or wsl --unregister and install it again."),
)  # fmt: skip
_SHUTDOWN = "Run wsl --shutdown, and try again; if that hangs too, restart Windows."
_VERSION_SECONDS = 20.0
_START_SECONDS = 60.0
_SKEW_SECONDS = 2.0
THERE_SECONDS = 300.0


def judge_version(done: wsl.Completed) -> Finding:
    """Decide on what ``wsl --version`` said: its first number is WSL's own, in any language."""
    if done.timed_out:
        return failed(f"wsl --version did not end within {_VERSION_SECONDS:.0f} s.", _SHUTDOWN)
    found = re.search(r"\b([0-9]+\.[0-9]+\.[0-9]+)", done.out)
    if done.code or found is None:
        # Workers start in it all the same; if they do not, the checks of that tell why.
        return warning(
            f"wsl --version ends with exit code {done.code}: this WSL is the old one of Windows, too old for streams "
            "over hvsocket.",
            "Run wsl --update, which installs the one of the Store.",
        )
    version = tuple(int(number) for number in found[1].split("."))
    if version in _KNOWN_BAD:
        return warning(f"WSL {found[1]}: {_KNOWN_BAD[version]}", "Run wsl --update.")
    if version < _RECOMMENDED:
        return warning(f"WSL {found[1]}: too old for streams over hvsocket.", "Run wsl --update.")
    return ok(f"WSL {found[1]}")


def look_at_version(_: Circumstances) -> Finding:
    return judge_version(wsl.run(["--version"], _VERSION_SECONDS))


def judge_distribution(found: Sequence[wsl.Distribution], chosen: wsl.Distribution) -> Finding:
    """Decide on the distribution that a worker runs in, of those that there are."""
    others = ", ".join(f"{item.name} (WSL {item.version})" for item in found if item != chosen)
    evidence = f"{chosen.name}, WSL {chosen.version}{'; others: ' if others else ''}{others}"
    default = next((item for item in found if item.is_default), None)
    if default is not None and default.is_foreign:
        return warning(
            f"{evidence}. The default is {default.name}, a part of another program.",
            f"Run wsl --set-default {wsl.typed(chosen.name)}, or set distribution.",
        )
    return ok(evidence)


def look_at_distribution(circumstances: Circumstances) -> Finding:
    found = wsl.distributions()
    chosen = wsl.choose(found, config.resolve(circumstances.arguments).distribution)
    circumstances.noted["distribution"] = chosen.name
    return judge_distribution(found, chosen)


def judge_start(done: wsl.Completed, seconds: float) -> Finding:
    """Decide on how the distribution started."""
    if done.timed_out:
        return failed(f"The distribution does not start within {_START_SECONDS:.0f} s.", _SHUTDOWN)
    if not done.code:
        return ok(f"It answered after {seconds:.1f} s.")
    for codes, remedy in _CODES:
        if any(code in done.words for code in codes):
            return failed(f"{done.words} (exit code {done.code})", remedy)
    return failed(f"{done.words} (exit code {done.code})", "Run wsl --update, then wsl --shutdown, and try again.")


def look_at_start(circumstances: Circumstances) -> Finding:
    begin = time.monotonic()
    done = wsl.run(wsl.inside(circumstances.noted["distribution"], "/bin/true"), _START_SECONDS)
    return judge_start(done, time.monotonic() - begin)


def look_at_interpreter(circumstances: Circumstances) -> Finding:
    settings = config.resolve(circumstances.arguments)
    python = wsl.interpreter(circumstances.noted["distribution"], settings.interpreter)
    circumstances.noted["interpreter"] = python
    return ok(python)


def judge_clock(skew: float) -> Finding:
    """Decide on how many seconds the distribution's clock is ahead."""
    if abs(skew) > _SKEW_SECONDS:
        return warning(
            f"The clock of WSL is {abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}, as happens after sleep.",
            "In WSL: sudo hwclock -s. Or run wsl --shutdown.",
        )
    return ok("Both clocks agree.")


def look_at_clock(circumstances: Circumstances) -> Finding:
    before = time.time()
    done = wsl.ask(circumstances.noted["distribution"], "date", "+%s.%N")
    after, there = time.time(), float(done.out)
    return judge_clock(min(there - before, there - after, key=abs) if not before <= there <= after else 0.0)


def judge_hvsocket(version: tuple[int, int], has_family: bool, machine_id: str) -> Finding:
    """Decide on whether a stream over hvsocket is possible.

    Parameters
    ----------
    version : tuple of int
        Of this Python.
    has_family : bool
        Whether its sockets know that address family.
    machine_id : str
        Of the virtual machine; empty where WSL does not tell it.
    """
    if not has_family:
        return information(
            f"Python {version[0]}.{version[1]} has no AF_HYPERV: streams go over TCP.",
            "Python 3.12 or later on Windows has it." if version < (3, 12) else "",
        )
    if not machine_id:
        return information("WSL does not tell the id of its virtual machine: streams go over TCP.", "Run wsl --update.")
    return information(f"Possible: AF_HYPERV to virtual machine {machine_id}.")


def look_at_hvsocket(circumstances: Circumstances) -> Finding:
    done = wsl.ask(circumstances.noted["distribution"], "wslinfo", "--vm-id", seconds=10.0)
    found = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", done.out, re.IGNORECASE)
    has_family = hasattr(socket, "AF_HYPERV")
    version = (sys.version_info[0], sys.version_info[1])
    return judge_hvsocket(version, has_family, found[0] if found and not done.code else "")


def parse_rows(text: str) -> tuple[list[Row], dict[str, str]]:
    """Return the rows, and the versions, that a doctor on the other side has printed; what is neither is left out."""
    rows, versions = [], {}
    for line in text.splitlines():
        with contextlib.suppress(ValueError, TypeError):
            told: Any = json.loads(line)
            if isinstance(told, Mapping) and isinstance(told.get("versions"), Mapping):
                versions = {str(name): str(number) for name, number in told["versions"].items()}
            elif isinstance(told, Mapping):
                row = Row(**told)
                if row.result in RESULTS and all(isinstance(value, str) for value in row[:-1]):
                    rows.append(row._replace(seconds=float(row.seconds)))
    return rows, versions


def judge_there(done: wsl.Completed, count: int, has_ended: bool) -> Finding:
    """Decide on how the doctor on the other side did."""
    if done.timed_out:
        return failed(f"It did not end within {THERE_SECONDS:.0f} s; {count} checks were carried out.", _SHUTDOWN)
    if done.code or not has_ended:
        return failed(
            f"It ends with exit code {done.code}: {done.words[-300:]}",
            "Run sklearn-wsl-gpu setup, which installs this version of the package in WSL.",
        )
    return ok(f"{count} checks were carried out in the distribution.")


def look_there(circumstances: Circumstances) -> Finding:
    noted = circumstances.noted
    words = [noted["interpreter"], "-P", "-m", "sklearn_wsl_gpu.doctor"]
    done = wsl.run(wsl.inside(noted["distribution"], *words), THERE_SECONDS)
    rows, versions = parse_rows(done.out)
    noted["there"], noted["versions"] = rows, versions
    return judge_there(done, len(rows), bool(versions) and bool(rows))
