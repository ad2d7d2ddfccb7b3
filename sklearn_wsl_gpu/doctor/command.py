"""The command: which checks apply here, carried out and shown."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

from sklearn_wsl_gpu.doctor import asking, linux, packages, printing
from sklearn_wsl_gpu.doctor.checks import SKIPPED, Circumstances, Row, exit_code, places, run
from sklearn_wsl_gpu.doctor.table import BEFORE, CHECKS
from sklearn_wsl_gpu.launch import wsl


def show(arguments: dict[str, Any], as_json: bool, mask: bool) -> int:
    """Carry out the checks that apply here, and show them; return the exit code.

    Parameters
    ----------
    arguments : dict
        Settings by name; those that are None, and all others, are the environment's.
    as_json : bool
        Whether it is for programs: then all comes at the end.
    mask : bool
        Whether names of users are left out.
    """
    names = printing.own_names() if mask else None
    rows = []
    width = shutil.get_terminal_size((120, 24)).columns
    try:
        for row in look({name: value for name, value in arguments.items() if value is not None}):
            rows.append(row if names is None else printing.masked(row, names))
            if not as_json and row.result != SKIPPED:
                print(printing.as_lines(rows[-1], width), flush=True)
    except KeyboardInterrupt:
        return 130  # as a shell says of who was interrupted
    finally:
        asking.end_all()
    print(printing.as_json(rows, packages.versions()) if as_json else f"\n{printing.summary(rows)}")
    return exit_code(rows)


def look(arguments: dict[str, Any]) -> Iterator[Row]:
    """Carry out the checks that apply here.

    Parameters
    ----------
    arguments : dict
        Settings by name; all others are the environment's.

    Yields
    ------
    row : Row
    """
    circumstances = Circumstances(arguments, linux.is_wsl())
    where = places(os.name == "nt", circumstances.is_wsl, wsl.is_between(), is_worker_side=False)
    side = "windows" if os.name == "nt" else "wsl" if circumstances.is_wsl else "linux"
    yield from run([check for check in BEFORE if check.where in where], circumstances, side)
    yield from circumstances.noted.get("there", [])
    yield from run([check for check in CHECKS if check.where in where], circumstances, side)


def tell() -> None:
    """Carry out the checks of the worker's side for a doctor on the other side: a line of JSON for each row."""
    circumstances = Circumstances({}, linux.is_wsl())
    print(json.dumps({"versions": packages.versions()}), flush=True)
    where = places(False, circumstances.is_wsl, is_between=False, is_worker_side=True)
    side = "wsl" if circumstances.is_wsl else "linux"
    for row in run([check for check in CHECKS if check.where in where], circumstances, side):
        print(json.dumps(row._asdict()), flush=True)
