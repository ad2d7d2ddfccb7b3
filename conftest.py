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
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

from sklearn_wsl_gpu import measuring, policy, sessions
from sklearn_wsl_gpu.context import offload
from sklearn_wsl_gpu.reporting import process_report

pytest_plugins = ["pytester"]

# What programs of this user were measured to cost decides nothing in a test, and a test leaves nothing there.
_CACHES = "LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"
os.environ[_CACHES] = tempfile.mkdtemp(prefix="sklearn_wsl_gpu-tests-")
atexit.register(shutil.rmtree, os.environ[_CACHES], ignore_errors=True)

#: Helper processes of joblib and multiprocessing that outlive their pools by design.
_TRACKERS = ("resource_tracker", "popen_loky_posix", "forkserver")


# A run that decides whether a change lands must be repeatable; elsewhere each run tries new examples.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "falls_back: calls of this test are meant to be done locally")


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


def pytest_collection_finish() -> None:
    # What all imports have made is not looked through again after every test.
    gc.collect()
    gc.freeze()


def _shared_memory() -> set[str]:
    if os.name == "nt":
        where = Path(os.environ[_CACHES]) / "sklearn_wsl_gpu"  # which a pool's memory is a file of
        return {path.name for path in where.glob("*-pool-*")}
    where = Path("/dev/shm")
    names = {path.name for path in where.iterdir()} if where.is_dir() else set()
    # This package makes no semaphores, and none of Python's shared memory; joblib names what it makes by process,
    # and that of others is not this test's.
    foreign = re.compile(rf"sem\.|psm_|(loky-|joblib_memmapping_folder_)(?!{os.getpid()}[-_])")
    return {name for name in names if not foreign.match(name)}


@pytest.fixture(scope="module")
def shared_worker() -> Iterator[None]:
    """Keep one worker for all tests of a module, started before the first one."""
    import numpy as np
    from sklearn.preprocessing import StandardScaler

    with offload(fallback="raise"):
        StandardScaler().fit(np.eye(3))
    for session in sessions.live():
        session.room.ready.wait()
    yield
    sessions.shutdown()


@pytest.fixture
def own_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with nothing measured, and keep what is measured apart."""
    monkeypatch.setenv(_CACHES, str(tmp_path))
    monkeypatch.setattr(measuring, "_measured", measuring._Measured())


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a process, descriptor, lease or shared memory file, or a call that fell back."""
    keeps_worker = "shared_worker" in request.fixturenames
    children, descriptors, shared = _children(), _descriptors(), _shared_memory()
    done = len(process_report.calls)
    yield
    gc.collect()
    records = process_report.calls[done:]
    for session in sessions.live():
        if not session.broken:
            assert session.pool.used_bytes == 0, f"leases are left: {session.pool}"
    if not keeps_worker:
        sessions.shutdown()
    gc.collect()
    left = _children() - children
    for process in [psutil.Process(pid) for pid in left if psutil.pid_exists(pid)]:
        process.kill()
    assert not left, f"processes are left: {left}"
    more = {name: target for name, target in _descriptors().items() if descriptors.get(name) != target}
    assert not more, f"descriptors are left: {more}"
    assert not _shared_memory() - shared, "memory is left"
    if request.node.get_closest_marker("falls_back") is None:
        # Of what is done in parts, the parts are calls of their own.
        given = [item for item in records if item.where == "local" and item.reason is not None]
        hidden = [item for item in given if item.reason.code not in policy.CHOSEN]
        assert not hidden, f"calls were silently done locally: {hidden}"
