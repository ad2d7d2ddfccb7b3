"""Programs run offloaded: a script, a module or a text of code, as ``python`` itself would run it."""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from sklearn_wsl_gpu import autoload, windows
from sklearn_wsl_gpu.errors import ConfigurationError
from sklearn_wsl_gpu.keys import HOME
from sklearn_wsl_gpu.reporting import process_report

LAST_RUN = HOME / "last_run.json"


def run_script(path: str, arguments: Sequence[str]) -> int:
    """Run a script, or a directory or zip file with a ``__main__.py``; return the exit code."""
    if not os.path.exists(path):
        raise ConfigurationError(f"There is no script {path}.")
    first = path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path))
    return _run([path, *arguments], first, lambda: runpy.run_path(path, run_name="__main__"))


def run_module(name: str, arguments: Sequence[str]) -> int:
    """Run a module, as ``python -m`` does; return the exit code."""
    return _run(["-m", *arguments], os.getcwd(), lambda: runpy.run_module(name, run_name="__main__", alter_sys=True))


def run_code(code: str, arguments: Sequence[str]) -> int:
    """Run a text of Python, as ``python -c`` does; return the exit code."""

    def run() -> None:
        module = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), vars(module))

    return _run(["-c", *arguments], "", run)


def last_run() -> dict[str, Any]:
    """Return what was saved of the last run: ``command``, ``began``, ``seconds``, ``report`` (see `Report.to_dict`).

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    try:
        found: dict[str, Any] = json.loads(LAST_RUN.read_text("utf-8"))
        if not isinstance(found["report"]["calls"], list) or not {"command", "began", "seconds"} <= found.keys():
            raise ValueError(f"{LAST_RUN} is damaged")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"There is no report of a run ({error}). Run a program first: sklearn-wsl-gpu run script.py"
        ) from None
    return found


def _run(arguments: list[str], first_of_path: str, run: Callable[[], object]) -> int:
    # Like the variable: scikit-learn and numpy are imported by the program, when and if it wants to, in the
    # environment that it has made for them; and its children are offloaded too.
    os.environ[autoload.VARIABLE] = "1"
    autoload.install()
    command, began, start = list(sys.argv), datetime.now().astimezone(), time.perf_counter()
    sys.argv = arguments
    if not sys.flags.safe_path:
        sys.path[0] = first_of_path
    try:
        run()
    except SystemExit:
        raise
    except BaseException as error:
        error.__traceback__ = _of_the_program(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    finally:
        _save(
            {
                "command": command,
                "began": began.isoformat(timespec="seconds"),
                "seconds": time.perf_counter() - start,
                "report": process_report.to_dict(),
            }
        )
    return 0


def _of_the_program(trace: TracebackType | None) -> TracebackType | None:
    # As if python had been started with the program: without the frames of this file and of runpy.
    while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, runpy.__file__, "<frozen runpy>"):
        trace = trace.tb_next
    return trace


def _save(run: dict[str, Any]) -> None:
    try:
        Path(LAST_RUN).parent.mkdir(mode=windows.PRIVATE, parents=True, exist_ok=True)
        written = LAST_RUN.with_name(f"{LAST_RUN.name}.{os.getpid()}")
        written.write_text(json.dumps(run), "utf-8")
        written.replace(LAST_RUN)
    except OSError as error:
        sys.stderr.write(f"sklearn_wsl_gpu: the report of this run is not saved: {error}\n")
