"""Workers that outlive the process that starts them: start one in the background, look at it, stop it."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from sklearn_wsl_gpu import costfile, windows
from sklearn_wsl_gpu.errors import ConfigurationError, OffloadError, WorkerStartError, WorkerUnavailable
from sklearn_wsl_gpu.keys import HOME, checked_directory, ensure_keys, read_client_keys, read_worker_keys
from sklearn_wsl_gpu.launch import commands, kept, wsl
from sklearn_wsl_gpu.launch.starting import WorkerProcess
from sklearn_wsl_gpu.pool import counters
from sklearn_wsl_gpu.pool.ledger import Slot
from sklearn_wsl_gpu.protocol import messages as m
from sklearn_wsl_gpu.sockets import Wire
from sklearn_wsl_gpu.waiting import describe_queue, describe_waits

_READY_SECONDS = 120.0
_STOP_SECONDS = 10.0
#: A worker that does not answer may be about to end.
_ENDING_SECONDS = 1.0
#: Windows asks a port of its own three times before it says that nothing listens there.
_REFUSED_SECONDS = 4.0
_EXECUTOR_FIELDS = ("device", "pid", "ready", "broken", "done", "sessions")
_SESSION_FIELDS = ("number", "pid", "silent_seconds", "calls", "pool", "slots", "slots_left_out", "counters")


def start(
    keys: str | None,
    engine: str,
    device: str,
    listen: str,
    distribution: str | None = None,
    interpreter: str | None = None,
    stream_port: int = 0,
) -> tuple[dict[str, Any], bool]:
    """Start a worker in the background, and wait until its engine is there. It outlives this process.

    Parameters
    ----------
    keys : str or None
        Directory of its keys, log and address; None takes ``~/.sklearn_wsl_gpu``.
    engine : str
        What it computes with.
    device : str
        What it computes on.
    listen : str
        Endpoint to bind.
    distribution, interpreter : str or None
        As the settings of these names.
    stream_port : int
        Port for arrays; 0 for a free one, opened when it is needed.

    Returns
    -------
    status : dict
        As `status` returns it.
    is_new : bool
        False if one of this directory runs already; it is left as it is.

    Raises
    ------
    WorkerStartError
        If it does not come up.
    """
    directory = checked_directory(keys or HOME)
    log = directory / "worker.log"
    known = _ready_or_forgotten(directory, log)
    if known is not None:
        return known, False
    ensure_keys(directory)
    secret, clients = read_worker_keys(directory)
    read_client_keys(directory)  # without which nobody could use it, or stop it
    options = ["--keys", "-", "--engine", engine, "--device", device, "--listen", listen]
    options += ["--stream-port", str(stream_port)] if stream_port else []
    command = commands.worker(distribution, interpreter, options)
    try:
        messages = log.open("w+b")
    except OSError as error:
        raise ConfigurationError(f"The worker's messages cannot be written to {log}: {error.strerror}.") from error
    with messages:
        process = WorkerProcess(command, {"secret": secret, "clients": clients}, messages, 0)
    pid = 0 if command.where else process.child.pid
    worker = kept.Kept(process.endpoint, pid, engine, device, distribution, interpreter, windows.is_elevated())
    try:
        process.end_input()
        known = _note(directory, worker, log)
        found = _wait_until_ready(worker.endpoint, directory, log) if known is None else known
    except BaseException:  # an interrupt, too: what is not wanted any more does not stay
        _end(process, directory)
        noted = kept.read(directory)
        if noted is not None and noted.endpoint == worker.endpoint:
            kept.path_in(directory).unlink(missing_ok=True)
        raise
    if known is None:
        process.let_go()
        costfile.forget_engines()
    else:
        _end(process, directory)
    return found, known is None


def _wait_until_ready(endpoint: str, directory: Path, log: Path) -> dict[str, Any]:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        found = look(endpoint, directory)
        if found["ready"]:
            return found
        if found["broken"] or time.monotonic() > deadline:
            reason = found["broken"] or f"it was not ready within {_READY_SECONDS:.0f} s"
            noted = kept.read(directory)
            engine = "" if noted is None else f" {noted.engine}"
            raise WorkerStartError(f"The engine{engine} does not start: {reason} Its messages are in {log}.")
        time.sleep(0.05)


def _ready_or_forgotten(directory: Path, log: Path) -> dict[str, Any] | None:
    """Return the state of the worker of a directory when it is ready; None if there is none, or it goes meanwhile."""
    while (known := _running_or_forgotten(directory)) is not None:
        try:
            return _wait_until_ready(known["endpoint"], directory, log)
        except WorkerStartError:
            raise
        except WorkerUnavailable:
            continue  # whoever has started it has ended it
    return None


def _note(directory: Path, worker: kept.Kept, log: Path) -> dict[str, Any] | None:
    """Make a worker the one of a directory; return the state of another one that was started meanwhile."""
    while True:
        try:
            kept.write(directory, worker)
        except FileExistsError:
            known = _ready_or_forgotten(directory, log)
            if known is not None:
                return known
        except OSError as error:
            raise ConfigurationError(
                f"The worker's address cannot be written to {kept.path_in(directory)}: {error.strerror}."
            ) from error
        else:
            return None


def _end(process: WorkerProcess, directory: Path) -> None:
    with contextlib.suppress(OffloadError):
        _ask(process.endpoint, directory, m.Stop(b""))
    try:
        process.child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.child.kill()
        process.child.wait()
    process.close()


def messages(keys: str | None) -> str:
    """Return what the worker has printed that `start` started."""
    return (Path(keys or HOME) / "worker.log").read_text("utf-8", "replace").strip()


def status(keys: str | None, endpoint: str | None) -> dict[str, Any] | None:
    """Return the state of the worker at an endpoint, or else of the one that `start` started; None if it is gone.

    Returns
    -------
    state : dict or None
        ``endpoint``, ``pid``, ``engines``, ``ready``, ``queued``, ``running``, ``done``; ``executors``: a list of dicts
        of ``device``, ``pid``, ``ready``, ``broken``, ``done`` and ``sessions``; and ``sessions``: a list of dicts of
        ``number``, ``pid`` (of the client), ``silent_seconds``, ``calls``, ``pool`` (how large it is, and why),
        ``slots``, the map of its pool (see `sklearn_wsl_gpu.pool.ledger.Slot`), ``slots_left_out``, how many there are
        beyond those that fit in a report, and ``counters`` (see `sklearn_wsl_gpu.pool.counters.describe`).

    Raises
    ------
    OffloadError
        If nothing answers at the endpoint, or if the one that was started is there and does not answer.
    """
    directory = checked_directory(keys or HOME)
    return _running(directory) if endpoint is None else look(endpoint, directory)


def resize(keys: str | None, endpoint: str | None, session: int, nbytes: int) -> int:
    """Let the pools of a worker's clients grow by so many bytes, or give back what is free if that is negative.

    Each client does so with its next call.

    Parameters
    ----------
    keys, endpoint
        As for `status`.
    session : int
        Number of the session; 0 for all.
    nbytes : int

    Returns
    -------
    count : int
        Number of sessions that are told.

    Raises
    ------
    OffloadError
        If there is no worker.
    """
    directory = checked_directory(keys or HOME)
    found = status(keys, endpoint)
    if found is None:
        raise WorkerUnavailable(
            "No worker runs that `sklearn-wsl-gpu worker start` has started, and no endpoint is named."
        )
    answer = _ask(found["endpoint"], directory, m.Resize(b"", session, nbytes))
    if not isinstance(answer, m.Report):
        raise WorkerUnavailable(
            f"The worker at {found['endpoint']} does not take that: {getattr(answer, 'words', answer)}"
        )
    return int(dict((name, value) for name, value in answer.counters)["sessions"])


def stop(keys: str | None, endpoint: str | None) -> dict[str, Any] | None:
    """Stop a worker, for all its clients, and wait for its end; return what `status` said before.

    Raises
    ------
    OffloadError
        If it does not end.
    """
    directory = checked_directory(keys or HOME)
    found = _running_or_forgotten(directory) if endpoint is None else look(endpoint, directory)
    if found is None:
        return None
    process = _descriptor(found["pid"]) if endpoint is None and not wsl.is_between() else -1
    try:
        _ask(found["endpoint"], directory, m.Stop(b""))
        if endpoint is None and not _has_ended(process, directory):
            noted, pid = kept.read(directory), found["pid"]
            command = f"kill {pid}"
            if wsl.is_between():
                named = noted.distribution if noted is not None else None
                command = f"wsl {f'-d {wsl.typed(named)} ' if named else ''}--exec {command}"
            raise OffloadError(f"The worker (process {pid}) was told to stop and still runs. Run: {command}")
    finally:
        if process >= 0:
            os.close(process)
    if endpoint is None:
        kept.path_in(directory).unlink(missing_ok=True)
    return found


def look(endpoint: str, directory: Path) -> dict[str, Any]:
    """Return the state of the worker at an endpoint; as `status`."""
    answer = _ask(endpoint, directory, m.Status(b""))
    if not isinstance(answer, m.Report):
        raise WorkerUnavailable(f"The worker at {endpoint} does not tell its state: {answer}")
    found = {str(name): value for name, value in answer.counters}
    sessions = [dict(zip(_SESSION_FIELDS, fields, strict=True)) for fields in found.pop("pools")]
    for session in sessions:
        session["slots"] = [dict(zip(Slot.__match_args__, slot, strict=True)) for slot in session["slots"]]
        session["counters"] = counters.describe(session["counters"])
    found["queued_by_priority"] = describe_queue(found["queued_by_priority"])
    found["queue_waits"] = describe_waits(found["queue_waits"])
    executors = [dict(zip(_EXECUTOR_FIELDS, fields, strict=True)) for fields in found.pop("executors")]
    return {"endpoint": endpoint, **found, "executors": executors, "sessions": sessions}


def _ask(endpoint: str, directory: Path, message: m.Message) -> m.Message:
    wire = Wire(endpoint, read_client_keys(directory), -1, greeted=False)
    try:
        wire.connect()
        return wire.ask(message)[0]
    finally:
        wire.close()


def _running(directory: Path) -> dict[str, Any] | None:
    noted = kept.read(directory)
    if noted is None:
        return None  # it was never started
    try:
        return look(noted.endpoint, directory)
    except (WorkerUnavailable, ConfigurationError) as error:
        if not (_is_worker(noted.pid) if noted.pid else _listens(noted.endpoint)):
            return None
        raise _silent(noted, kept.path_in(directory), error) from error


def _silent(worker: kept.Kept, note: Path, error: OffloadError) -> OffloadError:
    """Return what to say of a worker that is there, or may be, and cannot be asked."""
    pid, name = worker.pid, wsl.typed(worker.distribution) if worker.distribution else "NAME"
    ends = f"kill {pid}" if pid else f"wsl --terminate {name}, with all that runs in that distribution"
    if isinstance(error, ConfigurationError):
        who = f"A worker runs (process {pid})" if pid else f"Something listens at {worker.endpoint}"
        return ConfigurationError(f"{error}\n{who}, and cannot be asked without keys. To end it: {ends}")
    if pid:
        return WorkerUnavailable(
            f"The worker at {worker.endpoint} (process {pid}) runs and does not answer: it is stopped, or the machine "
            f"is very busy. Try again, let it go on (kill -CONT {pid}), or end it: kill -9 {pid}"
        )
    return WorkerUnavailable(
        f"The worker at {worker.endpoint} does not answer, and something listens there: it is stopped, or the machine "
        f"is very busy. Try again, or end it: {ends}. If it is another program that listens there, delete {note}"
    )


def _listens(endpoint: str) -> bool:
    """Tell whether somebody listens at an endpoint of this machine, or takes too long to say."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REFUSED_SECONDS).close()
    except ConnectionError:
        return False
    except OSError:
        return True
    return True


def _is_worker(pid: int) -> bool:
    """Tell whether a process of this machine is a worker that is not about to end."""
    process = _descriptor(pid) if pid else -1
    if process < 0:
        return False
    try:
        has_ended = bool(select.select([process], [], [], _ENDING_SECONDS)[0])
        return not has_ended and b"wsl_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    finally:
        os.close(process)


def _running_or_forgotten(directory: Path) -> dict[str, Any] | None:
    """Return the state of the worker of a directory; if it is gone, there is no address of it any more."""
    note = kept.path_in(directory)
    try:
        before = note.read_bytes()
        known = _running(directory)
        if known is not None:
            return known
        if note.read_bytes() == before:  # nobody was faster
            note.unlink()
    except OffloadError:  # some are errors of the system, too
        raise
    except FileNotFoundError:
        pass
    except PermissionError as error:
        raise ConfigurationError(
            f"{note} is not yours to read and to delete. If a run as administrator made it, delete it as administrator."
        ) from error
    except OSError as error:
        raise ConfigurationError(f"{note} cannot be read, or not deleted ({error.strerror}). Delete it.") from error
    return None


def _descriptor(pid: int) -> int:
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            return int(os.pidfd_open(pid))
    return -1


def _has_ended(process: int, directory: Path) -> bool:
    """Wait for a worker's end, by its process descriptor or, if that is -1, until nothing answers; tell if it came."""
    if process >= 0:
        return bool(select.select([process], [], [], _STOP_SECONDS)[0])
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(WorkerUnavailable):  # what still listens may be about to end
            if _running(directory) is None:
                return True
        time.sleep(0.05)
    return False
