"""Files that clients name: only the very segment is opened, by every way that its file system has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sklearn_wsl_gpu.carriers.base import CarrierFailed
from sklearn_wsl_gpu.pool import Geometry, Segment
from sklearn_wsl_gpu.pool.layout import DATA_OFFSET, PAGE, pack_superblock
from wsl_worker import clientfile

GEOMETRY = Geometry(2**20, 1, 1, 0)


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    made = Segment.create(GEOMETRY, str(tmp_path), named=True)
    yield made
    made.close()


def _refuse(path: str, epoch: int = 1, geometry: Geometry = GEOMETRY) -> str:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(CarrierFailed) as caught:
        clientfile.open_file(path, epoch, geometry)
    assert len(os.listdir("/proc/self/fd")) == before
    return str(caught.value)


def test_a_file_is_opened_for_its_own_segment_only(segment: Segment) -> None:
    assert segment.path is not None
    clientfile.open_file(segment.path, segment.epoch, GEOMETRY).close()

    assert "not this pool" in _refuse(segment.path, segment.epoch + 1)
    assert "not this pool" in _refuse(segment.path, segment.epoch, Geometry(2**20, 2, 1, 0))


def test_what_is_no_file_of_ours_is_refused_and_stays_as_it_is(segment: Segment, tmp_path: Path) -> None:
    assert segment.path is not None
    thesis, short, link, pipe = (tmp_path / name for name in ("thesis", "short", "link", "pipe"))
    thesis.write_bytes(b"words" * 1000)
    short.write_bytes(pack_superblock(1, GEOMETRY))
    link.symlink_to(segment.path)
    os.mkfifo(pipe)

    for path in (thesis, short, pipe, tmp_path):
        _refuse(str(path))
    assert "symbolic links" in _refuse(str(link), segment.epoch)
    assert "No such file" in _refuse(str(tmp_path / "missing"))
    assert thesis.read_bytes() == b"words" * 1000
    for path in ("", "relative", "a\0b", "C:", "/dev/null", "\\\\server\\share\\pool.bin", "Q:\\no\\such\\pool.bin"):
        assert _refuse(path)


def test_a_path_of_windows_is_looked_for_where_its_drive_is(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {"/proc/mounts": "C:\\134 /mnt/c 9p rw,aname=drvfs;path=C:\\;uid=0 0 0\n", "/etc/wsl.conf": ""}
    monkeypatch.setattr(clientfile, "_text", tables.__getitem__)

    assert clientfile._here("C:\\Users\\me\\pool.bin") == "/mnt/c/Users/me/pool.bin"
    tables["/proc/mounts"] = "share /mnt/c 9p rw,trans=virtio 0 0\n"
    assert clientfile._here("C:\\Users\\me\\pool.bin") == "/mnt/c/Users/me/pool.bin"
    tables["/etc/wsl.conf"] = "[automount]\nroot = /drives\n"
    assert clientfile._here("D:\\pool.bin") == "/drives/d/pool.bin"
    assert clientfile._here("/as/it/is") == "/as/it/is"


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**20), st.integers(1, 100_000), st.data())
def test_any_bytes_are_written_and_read_back_by_every_way_and_no_others_are_changed(
    segment: Segment, offset: int, nbytes: int, data: st.DataObject
) -> None:
    assert segment.path is not None
    nbytes = min(nbytes, 2**21 - offset)
    file = clientfile.open_file(segment.path, segment.epoch, GEOMETRY)
    has_direct = file._direct >= 0
    reading = data.draw(st.sampled_from([way for way in clientfile.READING if has_direct or way != "direct"]))
    writing = data.draw(st.sampled_from([way for way in clientfile.WRITING if has_direct or way != "direct"]))
    begin, new = DATA_OFFSET + offset, os.urandom(nbytes)
    segment.map[DATA_OFFSET:] = os.urandom(2**21)
    before = segment.map[:]

    assert bytes(file.read(reading, begin, nbytes)) == before[begin : begin + nbytes]
    file.write(writing, begin, new)
    assert segment.map[:] == before[:begin] + new + before[begin + nbytes :]
    assert bytes(file.read(reading, begin, nbytes)) == new
    file.close()


def test_a_file_that_has_become_shorter_is_an_error(segment: Segment) -> None:
    assert segment.path is not None
    file = clientfile.open_file(segment.path, segment.epoch, GEOMETRY)
    os.truncate(segment.path, DATA_OFFSET)

    with pytest.raises(OSError, match="shorter"):
        file.read("pread", DATA_OFFSET, PAGE)
    file.close()


def test_a_file_system_without_direct_access_says_so(segment: Segment) -> None:
    assert segment.path is not None
    file = clientfile.ClientFile(os.open(segment.path, os.O_RDWR), -1)

    with pytest.raises(OSError, match="past the cache"):
        file.read("direct", DATA_OFFSET, 1)
    with pytest.raises(OSError, match="past the cache"):
        file.write("direct", DATA_OFFSET, b"x")
    file.close()
