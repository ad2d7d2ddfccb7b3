"""What a pool guarantees beyond its own process: no death by a full file system, no reuse of what a fork shares."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sklearn_wsl_gpu.errors import ConfigurationError
from sklearn_wsl_gpu.pool import Geometry, Pool

MIB = 1024 * 1024

_PREAMBLE = """
import gc, os, sys, time
import numpy as np
from sklearn_wsl_gpu.errors import DeadlineExceeded, PoolSpaceError
from sklearn_wsl_gpu.pool.heirs import Heirs
from sklearn_wsl_gpu.pool import Geometry, Pool

def keep(pool, nbytes):
    lease = pool.lease_output(nbytes)
    window = pool.window(lease)
    assert pool.keep(lease, window, nbytes)
    return window, lease.ref.start
"""


def _run(code: str, *arguments: str) -> None:
    """Run a program; a signal such as SIGBUS shows as a negative exit status."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", _PREAMBLE + code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX forks")


@pytest.fixture
def small_file_system(tmp_path: Path) -> Iterator[Path]:
    """A memory file system of eight MiB."""
    where = tmp_path / "small"
    where.mkdir()
    if os.name == "nt" or os.getuid() != 0:
        pytest.skip("only root can mount a small file system")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(where)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield where
    subprocess.run(["umount", str(where)], check=True)


def test_a_lease_on_a_full_file_system_is_an_error_and_never_a_sigbus(small_file_system: Path) -> None:
    code = """
pool = Pool(Geometry(2**20, 16, 16, 0), sys.argv[1])
held = pool.lease_input(4 * 2**20)
pool.window(held)[:] = 1
for _ in range(3):
    try:
        pool.lease_input(8 * 2**20)
    except PoolSpaceError as error:
        assert "pool_dir" in str(error), error
    else:
        raise SystemExit("no error")
assert pool.used_bytes == 4 * 2**20, "a lease that failed was counted"
assert (pool.window(held) == 1).all()
held.release()
again = pool.lease_input(4 * 2**20, time.monotonic())
pool.window(again)[:] = 2
pool.close()
"""
    _run(code, str(small_file_system))
    assert list(small_file_system.iterdir()) == []


def test_a_pool_on_a_file_system_without_any_room_is_an_error(small_file_system: Path) -> None:
    (small_file_system / "full").write_bytes(bytes(7 * MIB))
    code = """
before = os.listdir("/proc/self/fd")
try:
    Pool(Geometry(2**20, 1, 1, 0), sys.argv[1])
except PoolSpaceError:
    assert os.listdir("/proc/self/fd") == before, "a descriptor is left"
else:
    raise SystemExit("no error")
"""
    _run(code, str(small_file_system))


def test_a_directory_that_cannot_hold_a_pool_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"

    with pytest.raises(ConfigurationError, match="pool_dir") as caught:
        Pool(Geometry(4096, 1, 1, 0), str(missing))

    assert repr(str(missing)) in str(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="there its memory always has a name")
def test_a_pool_in_a_directory_leaves_no_name_there(tmp_path: Path) -> None:
    pool = Pool(Geometry(4096, 1, 1, 0), str(tmp_path))
    try:
        assert list(tmp_path.iterdir()) == []
        assert os.fstat(pool.segment.descriptor).st_mode & 0o777 == 0o600
    finally:
        pool.close()


def test_kept_results_stay_valid_after_the_pool_is_closed() -> None:
    code = """
from sklearn_wsl_gpu.arrays import ArrayRef
from sklearn_wsl_gpu.pool import placing
pool = Pool(Geometry(2**16, 1, 4, 1))
window, start = keep(pool, 2**16)
window[:] = 7
kept = placing.view(window.data, 0, ArrayRef(64, "|u1", (1000,), "C", True))
pool.close()
assert (window == 7).all()
del window
gc.collect()
assert (kept[::2] == 7).all()
kept[:] = 8
assert kept.sum() == 8000
del kept
gc.collect()
assert pool.used_bytes == 0
"""
    _run(code)


@forks
def test_spans_that_a_forked_child_may_still_read_are_not_reused_while_it_lives() -> None:
    code = """
pool = Pool(Geometry(2**16, 1, 4, 1))
kept, start = keep(pool, 2**16)
kept[:] = 7
heirs = Heirs()
pool.pin_kept(heirs)
read, write = os.pipe()
child = os.fork()
if child == 0:
    heirs.inherit()
    os.read(read, 1)
    os._exit(0 if (kept == 7).all() else 1)
heirs.stay()
del kept
gc.collect()
leases = []
while True:
    try:
        leases.append(pool.lease_output(4096, time.monotonic()))
    except DeadlineExceeded:
        break
    pool.window(leases[-1])[:] = 1
os.write(write, b"x")
assert os.waitpid(child, 0)[1] == 0, "the child saw another value in what it kept"
assert len(leases) == 5 * 2**16 // 4096
assert all(not start <= lease.ref.start < start + 2**16 for lease in leases)
assert pool.lease_output(2**16, time.monotonic()).ref.start == start
"""
    _run(code)


def test_results_kept_after_a_fork_are_reused_as_before() -> None:
    code = """
pool = Pool(Geometry(2**16, 1, 4, 1))
first, start = keep(pool, 4096)
pool.pin_kept(Heirs())
second, other = keep(pool, 4096)
del second
gc.collect()
assert pool.used_bytes == 4096
assert pool.lease_output(4096).ref.start == other
"""
    _run(code)


@forks
def test_spans_are_not_reused_while_any_process_lives_that_a_child_has_left() -> None:
    code = """
pool = Pool(Geometry(2**16, 1, 4, 1))
kept, start = keep(pool, 4096)
(read, write), (ready, tell) = os.pipe(), os.pipe()
heirs = Heirs()
pool.pin_kept(heirs)
child = os.fork()
if child == 0:
    heirs.inherit()
    if os.fork() == 0:
        os.write(tell, b"x")
        os.read(read, 1)
    os._exit(0)
heirs.stay()
del kept
gc.collect()
os.waitpid(child, 0)
os.read(ready, 1)
assert pool.used_bytes == 4096
os.write(write, b"x")
while pool.used_bytes:
    time.sleep(0.01)
"""
    _run(code)


@forks
def test_what_a_forked_child_writes_to_what_is_kept_is_its_own() -> None:
    code = """
pool = Pool(Geometry(2**16, 1, 4, 1))
kept, start = keep(pool, 2**16)
closed = Pool(Geometry(2**16, 1, 4, 1))
other, _ = keep(closed, 2**16)
kept[:] = other[:] = 7
closed.close()
child = os.fork()
if child == 0:
    seen = (kept == 7).all() and (other == 7).all()
    kept[:] = other[:] = 8
    os._exit(0 if seen and (kept == 8).all() and (other == 8).all() else 1)
assert os.waitpid(child, 0)[1] == 0
assert (kept == 7).all() and (other == 7).all()
"""
    _run(code)


@forks
def test_a_forked_child_gives_nothing_back() -> None:
    code = """
pool = Pool(Geometry(2**16, 1, 4, 1))
kept, start = keep(pool, 4096)
lease = pool.lease_input(4096)
child = os.fork()
if child == 0:
    del kept
    gc.collect()
    lease.release_later()
    os._exit(0 if pool.used_bytes == 2 * 4096 else 1)
assert os.waitpid(child, 0)[1] == 0, "the child released what is its parent's"
del kept
gc.collect()
lease.release_later()
assert pool.used_bytes == 0
"""
    _run(code)


@forks
def test_a_child_forked_while_its_parent_holds_the_pool_can_still_end() -> None:
    code = """
pool = Pool(Geometry(2**16, 1, 4, 1))
kept, start = keep(pool, 4096)
with pool._changed:
    child = os.fork()
    if child == 0:
        del kept
        gc.collect()
        os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    _run(code)
