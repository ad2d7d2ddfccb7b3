"""What every test can rely on, and what every test is held to: it leaves nothing behind, and hides no fallback."""

from __future__ import annotations

import os

# Results are compared bit by bit, and BLAS adds in another order with another number of threads: a process in which a
# limit has been left behind would differ from its worker.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

# Tests open many sessions; those that are about it ask for it.
os.environ["SKLEARN_WSL_GPU_PREFAULT"] = "0"

import atexit
import gc
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

from sklearn_wsl_gpu import launch, measuring, policy, sessions
from sklearn_wsl_gpu.context import offload
from sklearn_wsl_gpu.reporting import process_report

pytest_plugins = ["pytester"]

# What programs of this user were measured to cost decides nothing in a test, and a test leaves nothing there.
_CACHES = "LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"
os.environ[_CACHES] = tempfile.mkdtemp(prefix="sklearn_wsl_gpu-tests-")
atexit.register(shutil.rmtree, os.environ[_CACHES], ignore_errors=True)

# Nor is a worker used that this user keeps, unless the environment names one.
if not os.environ.get("SKLEARN_WSL_GPU_ENDPOINT"):
    os.environ["SKLEARN_WSL_GPU_KEYS"] = os.path.join(os.environ[_CACHES], "keys")

#: Helper processes of joblib and multiprocessing that outlive their pools by design.
_TRACKERS = ("resource_tracker", "popen_loky_posix", "forkserver")

_last: pytest.Item | None = None
#: Whether all that is there is to be looked through again: it takes long, for a test has imported much.
_is_grown = True
_LONG_SECONDS = 0.1

# A run that decides whether a change lands must be repeatable; elsewhere each run tries new examples.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "falls_back: calls of this test are meant to be done locally")
    config.addinivalue_line("markers", "worker(**settings): what `shared_worker` is to be asked for")
    # A shell lets what it starts in the background ignore Ctrl-C, and all that this starts would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _children() -> set[int]:
    found = set()
    for child in psutil.Process().children(recursive=True):
        try:
            if not any(word in part for part in child.cmdline() for word in _TRACKERS):
                found.add(child.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def _descriptors() -> dict[str, str]:
    found: dict[str, str] = {}
    if os.name == "nt":
        return found  # nothing there tells descriptors apart
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the descriptor of the listing itself
    return found


def _shared_memory() -> set[str]:
    if os.name == "nt":
        where = Path(os.environ[_CACHES]) / "sklearn_wsl_gpu"  # which a pool's memory is a file of
        return {path.name for path in where.glob("*-pool-*")}
    where = Path("/dev/shm")
    names = {path.name for path in where.iterdir()} if where.is_dir() else set()
    # Others use that directory too, of whom nothing is known. joblib names what it makes by process, and that of
    # others is not this test's.
    ours = re.compile(rf"sklearn_wsl_gpu-|(loky-|joblib_memmapping_folder_){os.getpid()}[-_]")
    return {name for name in names if ours.match(name)}


@pytest.fixture
def shared_worker() -> None:
    """Use the worker that is running, and the session that the tests of this module before this one have used."""


@pytest.fixture
def running_worker() -> None:
    """Use the worker that is running, by sessions of this test's own."""


@pytest.fixture
def own_worker() -> None:
    """Share nothing, where the other tests of a module do."""


def _sharing(item: pytest.Item) -> int:
    """Return what a test shares with others: 0 for worker and session, 1 for the worker, 2 for nothing."""
    names = getattr(item, "fixturenames", ())
    if "own_worker" in names:
        return 2
    return 0 if "shared_worker" in names else 1 if "running_worker" in names else 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The start of a worker costs more than most tests: those that share one follow each other. What takes minutes
    # comes first: at the end all would wait for it.
    items.sort(key=lambda item: -1 if item.path.parent.name == "conformance" else _sharing(item))


def _close_sessions() -> None:
    """Close all sessions, and let their worker run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "stop_all", lambda: None)
        sessions.shutdown()


def _shared_processes() -> set[int]:
    """Return the numbers of the running worker's processes."""
    fronts = [worker.pid for worker in launch._workers.local.values() if worker.alive]
    return {*fronts, *(child.pid for front in fronts for child in psutil.Process(front).children(recursive=True))}


def _share(item: pytest.Item, before: pytest.Item | None) -> None:
    """Begin a test with what it shares, and with nothing else."""
    sharing = _sharing(item)
    if sharing == 2:
        sessions.shutdown()
        return
    if before is None or before.path != item.path or _sharing(before) != sharing:
        _close_sessions()
    if sharing == 1 and _shared_processes():
        return

    import numpy as np
    from sklearn.preprocessing import StandardScaler

    asked = item.get_closest_marker("worker")
    with offload(fallback="raise", **({} if asked is None else asked.kwargs)):
        StandardScaler().fit(np.eye(3))
    for session in sessions.live():
        session.room.ready.wait()
    if sharing == 1:
        _close_sessions()


def pytest_sessionfinish() -> None:
    sessions.shutdown()


@pytest.fixture
def own_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with nothing measured, and keep what is measured apart."""
    monkeypatch.setenv(_CACHES, str(tmp_path))
    monkeypatch.setattr(measuring, "_measured", measuring._Measured())


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a process, descriptor, lease or shared memory file, or a call that fell back."""
    global _last, _is_grown
    if _is_grown or _last is None or _last.path != request.node.path:
        # What imports and compilers have made until now is not looked through again after every test.
        gc.collect()
        gc.freeze()
    _share(request.node, _last)
    _last = request.node
    children, descriptors, memory, worker = _children(), _descriptors(), _shared_memory(), _shared_processes()
    done = len(process_report.calls)
    yield
    begin = time.perf_counter()
    gc.collect()
    _is_grown = time.perf_counter() - begin > _LONG_SECONDS
    records = process_report.calls[done:]
    for session in sessions.live():
        if not session.broken:
            assert session.pool.used_bytes == 0, f"leases are left: {session.pool}"
    if _sharing(request.node) == 1:
        _close_sessions()
    elif _sharing(request.node) == 2:
        sessions.shutdown()
    gc.collect()
    left = _children() - children - _shared_processes()  # a worker that died has been replaced for the others
    for process in [psutil.Process(pid) for pid in left if psutil.pid_exists(pid)]:
        process.kill()
    assert not left, f"processes are left: {left}"
    more = {name: target for name, target in _descriptors().items() if descriptors.get(name) != target}
    replaced = _shared_processes() - worker and len(_descriptors()) == len(descriptors)
    assert not more or replaced, f"descriptors are left: {more}"
    lying, end = _shared_memory() - memory, time.monotonic() + 10
    while lying and time.monotonic() < end:  # what a test in another process is about to remove is not this test's
        time.sleep(0.02)
        lying &= _shared_memory()
    assert not lying, f"memory is left: {lying}"
    falls_back = request.node.get_closest_marker("falls_back")
    if falls_back is None or "internal-error" not in falls_back.args:
        unforeseen = [item for item in records if item.reason is not None and item.reason.code == "internal-error"]
        assert not unforeseen, f"calls failed by themselves: {unforeseen}"
    if falls_back is None:
        # Of what is done in parts, the parts are calls of their own.
        given = [item for item in records if item.where == "local" and item.reason is not None]
        hidden = [item for item in given if item.reason.code not in policy.CHOSEN]
        assert not hidden, f"calls were silently done locally: {hidden}"
