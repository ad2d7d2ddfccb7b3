"""What a check is, and how checks are run: one after the other, each until its own time-out."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sklearn_wsl_gpu.errors import OffloadError

OK, WARNING, FAILED, INFORMATION, SKIPPED = RESULTS = ("ok", "warning", "failed", "information", "skipped")

#: How long a wait may be at a time: before Python 3.14 Windows does not hear Ctrl-C meanwhile (python/cpython#125541).
_LOOK_SECONDS = 0.2
#: What it means that a check cannot be carried out, by its severity.
_UNKNOWN = {"fatal": FAILED, "warning": WARNING, "information": WARNING}


class Finding(NamedTuple):
    """What a check found.

    Attributes
    ----------
    result : str
        One of `RESULTS`.
    evidence : str
        What was seen.
    remedy : str
        What to do about it, in one line; empty where there is nothing to do.
    """

    result: str
    evidence: str
    remedy: str = ""


def ok(evidence: str) -> Finding:
    """Return the finding that all is well."""
    return Finding(OK, evidence)


def warning(evidence: str, remedy: str) -> Finding:
    """Return the finding that something costs time or may fail."""
    return Finding(WARNING, evidence, remedy)


def failed(evidence: str, remedy: str) -> Finding:
    """Return the finding that offloading, or its GPU, does not work because of this."""
    return Finding(FAILED, evidence, remedy)


def information(evidence: str, remedy: str = "") -> Finding:
    """Return a finding that is neither good nor bad."""
    return Finding(INFORMATION, evidence, remedy)


def skipped(reason: str) -> Finding:
    """Return the finding that this was not looked at."""
    return Finding(SKIPPED, reason)


class Row(NamedTuple):
    """A finding with what was looked at.

    Attributes
    ----------
    name : str
        Of the check; stable.
    side : str
        Where it was looked at: ``"windows"``, ``"wsl"`` or ``"linux"``.
    severity : str
        ``"fatal"``, ``"warning"`` or ``"information"``: the worst that the check can mean.
    result, evidence, remedy : str
        See `Finding`.
    seconds : float
        What it took.
    """

    name: str
    side: str
    severity: str
    result: str
    evidence: str
    remedy: str
    seconds: float


@dataclass(slots=True)
class Circumstances:
    """What all checks of one run go by.

    Attributes
    ----------
    arguments : dict
        Settings by name that were given to the command; all others are the environment's.
    is_wsl : bool
        Whether this is Linux inside WSL.
    noted : dict
        What checks leave for those that need them.
    results : dict
        Of the checks so far, by their names.
    """

    arguments: dict[str, Any]
    is_wsl: bool
    results: dict[str, str] = field(default_factory=dict)
    noted: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """Something to look at.

    Attributes
    ----------
    name : str
        Stable: programs may go by it.
    where : str
        Where it applies: ``"windows"``; ``"between"``, on the client's side of ``wsl.exe``; ``"linux"``, which is
        WSL's side too; ``"wsl"``, only there; ``"client"``, wherever the client is; ``"both"``, on each side.
    severity : str
        See `Row`.
    seconds : float
        After which it is given up.
    look : callable
        Returns the finding.
    remedy : str
        What to do if it does not end, or cannot be carried out.
    needs : tuple of str
        Checks without whose success this one is skipped.
    """

    name: str
    where: str
    severity: str
    seconds: float
    look: Callable[[Circumstances], Finding]
    remedy: str
    needs: tuple[str, ...] = ()


def carry_out(check: Check, circumstances: Circumstances) -> Finding:
    """Carry out a check; one that does not end in time, or that fails, is a finding too."""
    answers: queue.SimpleQueue[Finding] = queue.SimpleQueue()

    def look() -> None:
        try:
            answers.put(check.look(circumstances))
        except OffloadError as error:
            answers.put(Finding(_UNKNOWN[check.severity], str(error), check.remedy))
        except Exception as error:  # whatever it is, the other checks are worth more than a traceback
            words = f"It cannot be looked at: {type(error).__name__}: {error}"
            answers.put(Finding(_UNKNOWN[check.severity], words, check.remedy))

    # A thread that hangs in a system call is left behind, and ends with the process.
    threading.Thread(target=look, name=f"doctor-{check.name}", daemon=True).start()
    end = time.monotonic() + check.seconds
    while time.monotonic() < end:
        with contextlib.suppress(queue.Empty):
            return answers.get(timeout=_LOOK_SECONDS)
    words = f"There was no answer within {check.seconds:.0f} s."
    return Finding(_UNKNOWN[check.severity], words, check.remedy)


def missing(needs: Iterable[str], results: Mapping[str, str]) -> str | None:
    """Return the first check of those needed that was carried out, and not with success; None if there is none."""
    return next((name for name in needs if results.get(name, OK) not in (OK, WARNING)), None)


def run(checks: Iterable[Check], circumstances: Circumstances, side: str) -> Iterator[Row]:
    """Carry out checks in their order.

    Parameters
    ----------
    checks : iterable of Check
    circumstances : Circumstances
    side : str
        For the rows.

    Yields
    ------
    row : Row
        As soon as it is known.
    """
    for check in checks:
        begin = time.monotonic()
        lacking = missing(check.needs, circumstances.results)
        finding = carry_out(check, circumstances) if lacking is None else skipped(f"It depends on {lacking}.")
        circumstances.results[check.name] = finding.result
        yield Row(check.name, side, check.severity, *finding, round(time.monotonic() - begin, 3))


def exit_code(rows: Iterable[Row]) -> int:
    """Return 1 if something failed, else 0."""
    return int(any(row.result == FAILED for row in rows))


def places(is_windows: bool, is_wsl: bool, is_between: bool, is_worker_side: bool) -> set[str]:
    """Return where checks may apply for them to be carried out here; see `Check`.

    Parameters
    ----------
    is_windows : bool
        Whether this is Windows.
    is_wsl : bool
        Whether it is Linux inside WSL.
    is_between : bool
        Whether workers are on the other side of ``wsl.exe``.
    is_worker_side : bool
        Whether a doctor on the other side asks.
    """
    found = {"both"} if is_worker_side else {"both", "client"}
    if is_between and not is_worker_side:
        found.add("between")
    if is_windows:
        return found | {"windows"}
    if not is_between or is_worker_side:
        found.add("linux")
        if is_wsl:
            found.add("wsl")
    return found
