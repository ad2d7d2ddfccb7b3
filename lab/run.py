"""What can be known of Windows without one: python lab/run.py [alone] [linux] [guest].

Windows Python runs the project's wheel: alone, against a worker in Linux, and against one in a second kernel; see
README.md. Prints a table, and exits with 1 if a row of it failed. What each row printed lies in the lab's directory, in
``logs``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO, NamedTuple

import setup
import wine
from paths import PROJECT, SHARE, STATE, VENV, windows_path
from vm import MEMORY_MIB, MOUNT, Guest

_WORK = SHARE / "lab"
_CHECKOUT, _KEYS, _LOGS = _WORK / "checkout", _WORK / "keys", STATE / "logs"
_PORTS = {"Linux": 47711, "guest": 47722}
_CARRIERS = ("stream", "file")
_CASES = ("quickstart", "estimators")
_Run = Callable[[list[str], IO[bytes]], int]
_START_SECONDS = 180.0
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # as the client has
#: What a worker may do by mapping, and what the client then says.
_MAPPED = {
    "read": "What this process writes there the worker reads otherwise",
    "write": "What the worker writes there (by synced) this process reads otherwise",
}

_COMPARED = ".* to the last bit|.*Error.*", "^<(Stream|File).*"
_VSOCK = "<Stream stream .vsock.>"
_TOLD = r"The pool's file is not coherent\. [^.]*|.*Error.*"

#: Of the client's tests, those that need no worker.
_ALONE = (
    "tests/pool", "tests/protocol", "tests/carriers", "tests/state/test_mutated.py", "tests/state/test_values.py",
    "tests/state/test_values_refused.py", "tests/test_public_api.py", "tests/test_waiting.py",
    "tests/client/test_costfile.py", "tests/client/test_costs.py", "tests/client/test_keys.py",
    "tests/client/test_paths.py",
    "tests/client/test_windows.py", "tests/client/test_windows_itself.py", "tests/client/test_workload.py",
    "tests/doctor/test_on_windows.py",
)  # fmt: skip
#: And those that any worker does for.
_WITH_WORKER = (
    "tests/state/test_forged.py", "tests/client/test_config.py", "tests/client/test_inheritance.py",
    "tests/client/test_patching.py", "tests/client/test_precision.py", "tests/client/test_report.py",
    "tests/integration/test_policy.py",
)  # fmt: skip
#: Of these, what cannot be here: a worker that is this process's child, and the same bits from libraries for Windows.
_LEFT_OUT = (
    "tests/client/test_report.py::test_repr_of_a_session_and_status_tell_the_state_of_the_worker",
    "tests/client/test_inheritance.py::test_a_subclass_that_changes_nothing_of_the_computation_is_offloaded",
    "tests/client/test_inheritance.py::test_scikit_learns_own_subclasses_are_no_exception",
    "tests/integration/test_policy.py::test_what_is_measured_to_be_cheaper_is_done_and_the_result_is_the_same",
)
#: A mode of 9P in which a file is read from the kernel's memory, and what is written plainly arrives when it likes.
_LAX = "loose"


class Row(NamedTuple):
    """A row of the table."""

    name: str
    passed: bool
    seconds: float
    told: str


class Table:
    """Runs what makes a row, and notes how it went."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def row(self, name: str, run: Callable[[IO[bytes]], int], *picks: str) -> None:
        """Run something; of what it prints the last match is shown, for each of `picks`."""
        print(f"lab: {name} …", file=sys.stderr, flush=True)
        path, begin = _LOGS / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.log", time.monotonic()
        with path.open("wb") as log:
            code = run(log)
        lines = path.read_text("utf-8", "replace").splitlines()
        found = [next((match for line in reversed(lines) if (match := re.search(pick, line))), None) for pick in picks]
        told = ". ".join(match[0] for match in found if match is not None) or f"exit code {code}"
        self.rows.append(Row(name, code == 0, time.monotonic() - begin, told))
        print(f"lab: {'passed' if code == 0 else f'FAILED, see {path}'}: {told}", file=sys.stderr, flush=True)

    def __str__(self) -> str:
        lines = ["| what | | seconds | |", "|---|---|---|---|"]
        for row in self.rows:
            lines.append(f"| {row.name} | {'passed' if row.passed else 'FAILED'} | {row.seconds:.0f} | {row.told} |")
        return "\n".join(lines)


def main(parts: list[str]) -> int:
    """Run these parts, or all."""
    setup.main()
    _prepare()
    table = Table()
    if not parts or "alone" in parts:
        table.row("client's tests without a worker", partial(_tests, _ALONE, {}), r"[0-9].* passed.*")
    if not parts or "linux" in parts:
        with _linux_worker():
            _rows_of_worker(table, "Linux", _linux)
            for carrier in _CARRIERS:
                run = partial(_tests, _WITH_WORKER, _settings("Linux", carrier))
                table.row(f"client's tests, worker in Linux, {carrier}", run, r"[0-9].* passed.*")
    if not parts or "guest" in parts:
        with Guest() as guest:
            with _guest_worker(guest, ["-m", "wsl_worker"]):
                _rows_of_worker(table, "guest", partial(_guest, guest))
                table.row(
                    "quickstart, client and worker in guest, vsock", partial(_by_vsock, guest), _COMPARED[0], _VSOCK
                )
            for what, words in _MAPPED.items():
                with _guest_worker(guest, [str(_seen(_CHECKOUT / "lab" / "mapping_worker.py")), what]):
                    run = partial(_refused, words, _settings("guest", "file"))
                    table.row(f"file refused, worker in guest that maps to {what}", run, _TOLD)
            guest.mount(_LAX)
            with _guest_worker(guest, ["-m", "wsl_worker"]):
                for what in _CASES:
                    run = partial(_past_the_cache, what, _WORK / f"{what}-guest.pickle")
                    table.row(f"{what}, worker in guest, file, cache={_LAX}", run, *_COMPARED)
    print(f"\n{_versions()}\n\n{table}")
    return not all(row.passed for row in table.rows)


def _rows_of_worker(table: Table, where: str, there: _Run) -> None:
    """Do the cases there, without any of this project, and then from Windows: the same has to come out."""
    for what in _CASES:
        kept = _WORK / f"{what}-{where}.pickle"
        table.row(f"{what}, in {where} itself", partial(there, [what, str(kept)]), "[0-9]+ results|.*Error.*")
        for carrier in _CARRIERS:
            run = partial(_offloaded, what, kept, _settings(where, carrier))
            table.row(f"{what}, worker in {where}, {carrier}", run, *_COMPARED)
    what = _CASES[0]
    run = partial(_offloaded, what, _WORK / f"{what}-{where}.pickle", _settings(where, "auto"))
    table.row(f"{what}, worker in {where}, auto", run, _COMPARED[0], "^<Stream.*", "^<File.*")


def _settings(where: str, carrier: str) -> dict[str, str]:
    return {
        "SKLEARN_WSL_GPU_ENDPOINT": f"tcp://127.0.0.1:{_PORTS[where]}",
        "SKLEARN_WSL_GPU_KEYS": windows_path(_KEYS),
        "SKLEARN_WSL_GPU_CARRIER": carrier,
    }


def _prepare() -> None:
    shutil.rmtree(_WORK, ignore_errors=True)
    shutil.rmtree(_LOGS, ignore_errors=True)
    _LOGS.mkdir()
    # What is tested is the wheel, so the packages are not among it.
    for name in ("tests", "examples", "benchmarks", "lab"):
        shutil.copytree(PROJECT / name, _CHECKOUT / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(PROJECT / name, _CHECKOUT)
    # The memory of the guest is to Windows what .wslconfig says of WSL's.
    for home in (SHARE / "users").iterdir():
        (home / ".wslconfig").write_text(f"[wsl2]\nmemory={MEMORY_MIB}MB\n")


def _python(arguments: list[str], settings: Mapping[str, str], log: IO[bytes]) -> int:
    return wine.run(arguments, {"PYTHONPATH": windows_path(_CHECKOUT), **settings}, log, folder=_CHECKOUT)


def _tests(which: tuple[str, ...], settings: Mapping[str, str], log: IO[bytes]) -> int:
    options = ["-p", "no:cacheprovider", "--timeout", "300", "--tb", "short"]
    options += [f"--deselect={name}" for name in _LEFT_OUT]
    return _python(["-m", "pytest", *options, *which], settings, log)


def _cases(arguments: list[str], settings: Mapping[str, str], log: IO[bytes]) -> int:
    return _python([windows_path(_CHECKOUT / "lab" / "cases.py"), *arguments], settings, log)


def _linux(arguments: list[str], log: IO[bytes]) -> int:
    command = [str(VENV / "bin" / "python"), str(_CHECKOUT / "lab" / "cases.py"), *arguments]
    env = {**os.environ, "PYTHONPATH": str(_CHECKOUT)}
    return subprocess.run(command, env=env, stdout=log, stderr=log, check=False).returncode


def _guest(
    guest: Guest, arguments: list[str], log: IO[bytes], settings: Mapping[str, str] = MappingProxyType({})
) -> int:
    script, (what, path, *options) = _seen(_CHECKOUT / "lab" / "cases.py"), arguments
    command = [str(VENV / "bin" / "python"), str(script), what, str(_seen(Path(path))), *options]
    return guest.run(command, {"PYTHONPATH": str(_seen(_CHECKOUT)), **settings}, log)


def _offloaded(what: str, kept: Path, settings: Mapping[str, str], log: IO[bytes]) -> int:
    found = _WORK / f"{what}-windows.pickle"
    if code := _cases([what, windows_path(found), "--offload"], settings, log):
        return code
    return _linux(["compare", str(kept), str(found)], log)


def _by_vsock(guest: Guest, log: IO[bytes]) -> int:
    kept, found = _WORK / "quickstart-guest.pickle", _WORK / "quickstart-vsock.pickle"
    settings = {**_settings("guest", "stream"), "SKLEARN_WSL_GPU_KEYS": str(_seen(_KEYS))}
    code = _guest(guest, ["quickstart", str(found), "--offload"], log, settings)
    code = code or _linux(["compare", str(kept), str(found)], log)
    return code or int(re.search(_VSOCK, Path(log.name).read_text("utf-8", "replace")) is None)


def _past_the_cache(what: str, kept: Path, log: IO[bytes]) -> int:
    code = _offloaded(what, kept, _settings("guest", "file"), log)
    return code or int("written by pwrite>" in Path(log.name).read_text("utf-8", "replace"))


def _refused(words: str, settings: Mapping[str, str], log: IO[bytes]) -> int:
    return _cases(["refused", words], settings, log)


@contextlib.contextmanager
def _linux_worker() -> Iterator[None]:
    # A mount of its own, so that the share lies where WSL has it.
    mount = f'mkdir -p {MOUNT} && mount --bind {SHARE} {MOUNT} && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", *_worker(["-m", "wsl_worker"], "Linux")]
    path = _LOGS / "worker-in-linux.log"
    with path.open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **_ONE_THREAD}, stdout=log, stderr=log)
        try:
            _wait_for(path)
            yield
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def _guest_worker(guest: Guest, program: list[str]) -> Iterator[None]:
    path = _LOGS / f"worker-in-guest-{program[-1]}.log"
    with path.open("wb") as log, guest.start(_worker(program, "guest"), _ONE_THREAD) as connection:

        def keep() -> None:
            while data := connection.recv(65536):
                log.write(data)
                log.flush()

        reader = threading.Thread(target=keep)
        reader.start()
        try:
            _wait_for(path)
            yield
        finally:
            connection.shutdown(socket.SHUT_WR)
            reader.join()


def _worker(program: list[str], where: str) -> list[str]:
    options = ["--engine", "cpu", "--listen", f"tcp://127.0.0.1:{_PORTS[where]}", "--keys", str(_seen(_KEYS))]
    if where == "guest":
        options.append("--vsock")  # which a worker inside WSL2 does anyway
    return [str(VENV / "bin" / "python"), *program, *options]


def _seen(path: Path) -> Path:
    """Return where workers have a file of the share."""
    return MOUNT / path.relative_to(SHARE)


def _wait_for(log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while '"endpoint"' not in log.read_text("utf-8", "replace"):
        if time.monotonic() > end:
            raise SystemExit(f"lab: the worker does not come up, see {log}")
        time.sleep(0.5)


def _versions() -> str:
    code = (
        "import sys, numpy, scipy, sklearn, zmq; print(f'{sys.platform}: Python {sys.version.split()[0]}', *("
        "f'{m.__name__} {m.__version__}' for m in (numpy, scipy, sklearn, zmq)), sep=', ')"
    )
    linux = subprocess.run([VENV / "bin" / "python", "-c", code], capture_output=True, text=True, check=True).stdout
    with (_LOGS / "versions.log").open("wb") as log:
        wine.run(["-c", code], None, log)
    return f"{linux}{(_LOGS / 'versions.log').read_text()}".strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
