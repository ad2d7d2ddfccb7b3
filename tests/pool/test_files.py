"""A pool whose memory is a file with a name: who sees it, and what becomes of it."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from sklearn_wsl_gpu.errors import ConfigurationError, PoolSpaceError
from sklearn_wsl_gpu.pool import Geometry, Segment, memory
from sklearn_wsl_gpu.pool.layout import DATA_OFFSET
from sklearn_wsl_gpu.pool.memory import RESERVE_CHUNK_BYTES

GEOMETRY = Geometry(RESERVE_CHUNK_BYTES, 2, 2, 0)

_OWNER = f"""
import os, sys
from sklearn_wsl_gpu.pool import Geometry, Segment
segment = Segment.create(Geometry({RESERVE_CHUNK_BYTES}, 2, 2, 0), sys.argv[1], named=True)
print(segment.path, flush=True)
sys.stdin.readline()
"""


def _start_owner(directory: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _OWNER, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_what_is_written_to_the_memory_is_in_the_file_and_the_other_way_round(tmp_path: Path) -> None:
    segment = Segment.create(GEOMETRY, str(tmp_path), named=True)
    assert segment.path is not None
    segment.reserve(DATA_OFFSET, 4096)
    segment.window(DATA_OFFSET, 4096)[:] = 7

    # On Windows the other side, like WSL, has to allow that the owner deletes it.
    descriptor = os.open(segment.path, os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_TEMPORARY", 0))
    try:
        os.lseek(descriptor, DATA_OFFSET, os.SEEK_SET)
        assert os.read(descriptor, 4096) == b"\x07" * 4096
        os.lseek(descriptor, DATA_OFFSET + 5, os.SEEK_SET)
        os.write(descriptor, b"other")
    finally:
        os.close(descriptor)

    assert segment.window(DATA_OFFSET, 12).tobytes() == b"\x07" * 5 + b"other" + b"\x07" * 2
    segment.close()


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (errno.ENODEV, ConfigurationError, "cannot hold the pool"),
        (errno.ENOMEM, PoolSpaceError, "Set pool_limit to less"),
    ],
)
def test_what_cannot_be_mapped_is_refused_with_what_to_do_and_leaves_nothing(
    number: int, error: type[Exception], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(error, match=words) as caught:
        Segment.create(GEOMETRY, str(tmp_path), named=True)

    assert os.strerror(number) in str(caught.value)
    assert not list(tmp_path.iterdir())
    if memory.directory_of(None) is None:  # memory without a name
        with pytest.raises(PoolSpaceError, match=os.strerror(number)):
            Segment.create(GEOMETRY)


def test_only_its_owner_may_open_it_and_its_name_tells_nothing(tmp_path: Path) -> None:
    first = Segment.create(GEOMETRY, str(tmp_path), named=True)
    second = Segment.create(GEOMETRY, str(tmp_path), named=True)
    try:
        names = {path.name for path in tmp_path.iterdir()}

        assert {first.path, second.path} == {str(tmp_path / name) for name in names}
        assert len(names) == 2
        if os.name == "posix":
            assert os.stat(str(first.path)).st_mode & 0o777 == 0o600
    finally:
        first.close()
        second.close()


def test_its_file_is_gone_when_it_is_closed_and_arrays_in_it_stay_valid(tmp_path: Path) -> None:
    segment = Segment.create(GEOMETRY, str(tmp_path), named=True)
    segment.reserve(DATA_OFFSET, 4096)
    kept = segment.window(DATA_OFFSET, 4096)
    kept[:] = 5

    segment.close()

    assert (kept == 5).all()
    del kept
    if os.name == "posix":
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="there its memory always has a name")
def test_memory_that_nobody_else_opens_has_no_name(tmp_path: Path) -> None:
    for directory in (None, str(tmp_path)):
        segment = Segment.create(GEOMETRY, directory)
        assert segment.path is None
        assert list(tmp_path.iterdir()) == []
        segment.close()


def test_it_takes_no_space_before_it_is_used(tmp_path: Path) -> None:
    segment = Segment.create(Geometry(2**30, 4, 4, 8), str(tmp_path), named=True)
    try:
        about = os.stat(str(segment.path))

        assert about.st_size == DATA_OFFSET + 16 * 2**30
        if os.name == "posix":
            assert about.st_blocks * 512 < 2**24
    finally:
        segment.close()


def test_who_needs_what_is_reserved_does_not_wait_for_who_reserves_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # That may be a thread that has stepped back behind all others, on a machine that is busy.
    segment = Segment.create(GEOMETRY, str(tmp_path), named=True)
    segment.reserve(DATA_OFFSET, RESERVE_CHUNK_BYTES)
    begun, ended, reserve = threading.Event(), threading.Event(), memory.reserve

    def slowly(*args: int) -> None:
        begun.set()
        ended.wait(60)
        reserve(*args)

    monkeypatch.setattr(memory, "reserve", slowly)
    other = threading.Thread(target=segment.reserve, args=(DATA_OFFSET + RESERVE_CHUNK_BYTES, RESERVE_CHUNK_BYTES))
    other.start()
    try:
        assert begun.wait(60)
        segment.reserve(DATA_OFFSET, RESERVE_CHUNK_BYTES)
        assert other.is_alive()
    finally:
        ended.set()
        other.join()
        segment.close()


def test_what_is_reserved_beside_what_is_in_use_leaves_that_as_it_is(tmp_path: Path) -> None:
    segment = Segment.create(GEOMETRY, str(tmp_path), named=True)
    try:
        middle = DATA_OFFSET + RESERVE_CHUNK_BYTES
        segment.reserve(middle, RESERVE_CHUNK_BYTES)
        segment.window(middle, RESERVE_CHUNK_BYTES)[:] = 9

        segment.reserve(DATA_OFFSET, 3 * RESERVE_CHUNK_BYTES)

        assert (segment.window(middle, RESERVE_CHUNK_BYTES) == 9).all()
        assert not np.any(segment.window(DATA_OFFSET, RESERVE_CHUNK_BYTES))
    finally:
        segment.close()


def test_the_file_of_a_process_that_was_killed_is_removed_by_the_next_and_that_of_a_living_one_is_not(
    tmp_path: Path,
) -> None:
    living, kept = _start_owner(tmp_path)
    killed, left = _start_owner(tmp_path)
    try:
        _end(killed)
        foreign = tmp_path / "sklearn_wsl_gpu-pool-notes"
        foreign.mkdir()

        segment = Segment.create(GEOMETRY, str(tmp_path), named=True)

        assert not left.exists()
        assert {path.name for path in tmp_path.iterdir()} == {
            kept.name, foreign.name, Path(str(segment.path)).name,
        }  # fmt: skip
        segment.close()
    finally:
        _end(living)


@pytest.mark.skipif(os.name == "nt", reason="there the system removes it with its owner")
def test_a_link_that_has_the_name_of_such_a_file_leads_to_no_loss(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("kept")
    (tmp_path / "sklearn_wsl_gpu-pool-0.bin").symlink_to(other)

    Segment.create(GEOMETRY, str(tmp_path), named=True).close()

    assert other.read_text() == "kept"


def test_a_directory_that_cannot_hold_such_a_file_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")

    with pytest.raises(ConfigurationError, match="pool_dir") as caught:
        Segment.create(GEOMETRY, missing, named=True)

    assert repr(missing) in str(caught.value)
