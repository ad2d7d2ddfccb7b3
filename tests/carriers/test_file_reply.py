"""Replies in files: only what the worker wrote for this session is read, and nothing else of this machine."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sklearn_wsl_gpu.carriers import file_reply
from sklearn_wsl_gpu.carriers.file_reply import ReplyDirectory
from sklearn_wsl_gpu.errors import ConfigurationError, OffloadError, RemoteProtocolError

LIMIT = 10**6
SECRET = np.arange(3.0)
only_posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no such files, and other permissions")


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[ReplyDirectory]:
    made = ReplyDirectory(str(tmp_path))
    yield made
    made.close()
    assert list(tmp_path.glob("sklearn_wsl_gpu*")) == []


def _write(directory: ReplyDirectory, name: str, array: Any, **options: Any) -> Path:
    path = Path(directory.path) / name
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.asanyarray(array), **options)
    return path


def _left(directory: ReplyDirectory) -> list[str]:
    """Return the names of what is in a directory, but for the mark of its owner, which only Windows needs."""
    return [name for name in os.listdir(directory.path) if name != "owner"]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.float32(3.5),
        np.zeros((0, 7), np.int32),
        np.array(["ä", "longer"]),
        np.array([b"x", b""]),
        np.array(["2024-01-02", "NaT"], "M8[ns]"),
        np.array([[True, False]]),
        np.arange(3, dtype=">i8"),
        np.array([1 + 2j]),
    ],
    ids=lambda array: array.dtype.str,
)
def test_an_array_comes_back_as_it_was_written_is_its_own_and_its_file_is_gone(
    directory: ReplyDirectory, array: Any
) -> None:
    path = _write(directory, "reply-1_0.npy", array)

    (found,) = directory.take(["reply-1_0.npy"], LIMIT)

    assert found.dtype == array.dtype
    assert found.flags.f_contiguous == array.flags.f_contiguous
    assert found.flags.owndata
    assert found.flags.writeable
    np.testing.assert_array_equal(found, array)
    assert not path.exists()


@only_posix
def test_the_directory_is_for_its_owner_alone_and_named_in_the_system_s_place_if_none_is_given(
    directory: ReplyDirectory,
) -> None:
    assert stat.S_IMODE(os.stat(directory.path).st_mode) == 0o700
    other = ReplyDirectory(None)
    assert os.path.isdir(other.path)
    other.close()
    other.close()
    assert not os.path.exists(other.path)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.npy", "..", ".", "", "/secret.npy", "a/../../secret.npy", "sub/x.npy", "..\\secret.npy", "C:x.npy",
        "x.npy\0", "x.npy\n", ".npy", "x.txt", "x.npy/", "nul.npy", "COM1.npy", "x" * 101 + ".npy", "ä.npy", None, 7,
        b"x.npy", ["x.npy"], [64, "<f8", [3], "C", True],
    ],
)  # fmt: skip
def test_a_reference_that_is_no_bare_name_is_refused(directory: ReplyDirectory, tmp_path: Path, name: Any) -> None:
    np.save(tmp_path / "secret.npy", SECRET)
    (Path(directory.path) / "sub").mkdir()
    np.save(Path(directory.path) / "sub/x.npy", SECRET)

    with pytest.raises(RemoteProtocolError, match="something else than names of files of its own"):
        directory.take([name], LIMIT)

    assert (tmp_path / "secret.npy").exists()


def _symlink(path: Path, secret: Path) -> None:
    path.symlink_to(secret)


def _hard_link(path: Path, secret: Path) -> None:
    path.hardlink_to(secret)


def _pipe(path: Path, secret: Path) -> None:
    os.mkfifo(path)


def _directory(path: Path, secret: Path) -> None:
    path.mkdir()


def _nothing(path: Path, secret: Path) -> None:
    return None


@only_posix
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_symlink, "cannot be opened"),
        (_hard_link, "is not a regular file of this user"),
        (_pipe, "is not a regular file of this user"),
        (_directory, "is not a regular file of this user"),
        (_nothing, "cannot be opened: No such file"),
    ],
)
def test_what_is_no_file_of_the_workers_own_is_refused_and_nothing_is_waited_for(
    directory: ReplyDirectory, tmp_path: Path, make: Callable[[Path, Path], None], words: str
) -> None:
    secret = tmp_path / "secret.npy"
    np.save(secret, SECRET)
    make(Path(directory.path) / "x.npy", secret)

    with pytest.raises(RemoteProtocolError, match=words):
        directory.take(["x.npy"], LIMIT)

    np.testing.assert_array_equal(np.load(secret), SECRET)
    assert make is _directory or _left(directory) == []


@only_posix
def test_where_there_are_no_descriptors_of_directories_a_link_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_reply, "_HAS_DIRECTORY_DESCRIPTORS", False)
    np.save(tmp_path / "secret.npy", SECRET)
    directory = ReplyDirectory(str(tmp_path))
    _write(directory, "x.npy", SECRET)
    (Path(directory.path) / "link.npy").symlink_to(tmp_path / "secret.npy")

    np.testing.assert_array_equal(directory.take(["x.npy"], LIMIT)[0], SECRET)
    with monkeypatch.context() as windows:
        windows.delattr(os, "O_NOFOLLOW")
        with pytest.raises(RemoteProtocolError, match="it is a link"):
            directory.take(["link.npy"], LIMIT)
    assert os.listdir(directory.path) == ["owner"]
    directory.close()
    assert os.listdir(tmp_path) == ["secret.npy"]

    left = tmp_path / "sklearn_wsl_gpu-replies-left"
    left.mkdir()
    (left / "owner").touch()
    assert file_reply.abandoned(tmp_path) == [left]
    ReplyDirectory(str(tmp_path)).close()
    assert os.listdir(tmp_path) == ["secret.npy"]


def _npy(header: str, payload: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    raw = header.encode("latin1")
    return b"\x93NUMPY" + version + struct.pack("<H", len(raw)) + raw + payload


_GOOD = "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }\n"
_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is not a .npy file"),
    "text": (b"hello", "is not a .npy file"),
    "a cut header": (_npy(_GOOD)[:-3], "is not a .npy file"),
    "another version": (_npy(_GOOD, bytes(16), b"\x03\x00"), "is not a .npy file of version 1.0"),
    "a header of another kind": (_npy("[1, 2]\n"), "is not a .npy file"),
    "a header that is no literal": (_npy("__import__('os').abort()\n"), "is not a .npy file"),
    "a header that is deep": (_npy("(" * 3000), "is not a .npy file"),
    "a header that is huge": (_npy(_GOOD[:-1] + " " * 5000 + "\n", bytes(16)), "is not a .npy file"),
    "a header that is no ascii": (_npy("{'d\xe4scr': 1}\n"), "is not a .npy file"),
    "more keys": (_npy(_GOOD.replace("}", "'x': 1}"), bytes(16)), "is not a .npy file"),
    "a shape of another kind": (_npy(_GOOD.replace("(2,)", "[2]"), bytes(16)), "is not a .npy file"),
    "an order of another kind": (_npy(_GOOD.replace("False", "0"), bytes(16)), "is not a .npy file"),
    "objects": (_npy(_GOOD.replace("<f8", "|O"), bytes(16)), "holds no array that travels"),
    "records": (_npy(_GOOD.replace("'<f8'", "[('a', '<f8')]"), bytes(16)), "holds no array that travels"),
    "a subarray": (_npy(_GOOD.replace("'<f8'", "('<f8', (2,))"), bytes(32)), "holds no array that travels"),
    "raw bytes": (_npy(_GOOD.replace("<f8", "|V8"), bytes(16)), "holds no array that travels"),
    "a negative extent": (_npy(_GOOD.replace("(2,)", "(-2,)"), bytes(16)), "holds no array that travels"),
    "an extent that is a flag": (_npy(_GOOD.replace("(2,)", "(True,)"), bytes(8)), "holds no array that travels"),
    "too many dimensions": (_npy(_GOOD.replace("(2,)", str((1,) * 33)), bytes(8)), "holds no array that travels"),
    "an array of no elements beyond all": (_npy(_GOOD.replace("(2,)", f"(0, {2**47}, {2**47})")), "holds no array"),
    "more than it has": (_npy(_GOOD, bytes(15)), "has 15 bytes where its header says 16"),
    "less than it has": (_npy(_GOOD, bytes(17)), "has 17 bytes where its header says 16"),
    "far more than it has": (_npy(_GOOD.replace("(2,)", f"({2**40},)"), bytes(16)), "its header says 8796093022208"),
    "more than a reply may have": (_npy(_GOOD.replace("(2,)", f"({LIMIT},)"), bytes(8 * LIMIT)), "a reply may have"),
    "a little more than that": (_npy(_GOOD.replace("(2,)", "(125001,)"), bytes(1000008)), "larger than a reply may"),
}  # fmt: skip


@pytest.mark.parametrize("what", _FILES)
def test_a_file_that_does_not_hold_what_it_says_is_refused_and_removed(directory: ReplyDirectory, what: str) -> None:
    raw, words = _FILES[what]
    path = Path(directory.path) / "x.npy"
    path.write_bytes(raw)

    with pytest.raises(RemoteProtocolError, match=words):
        directory.take(["x.npy"], LIMIT)

    assert not path.exists()


def test_pickled_objects_are_refused(directory: ReplyDirectory) -> None:
    _write(directory, "x.npy", np.array([{}, None], object), allow_pickle=True)

    with pytest.raises(RemoteProtocolError, match="holds no array that travels"):
        directory.take(["x.npy"], LIMIT)


def test_all_files_of_a_reply_together_are_within_its_limit(directory: ReplyDirectory) -> None:
    for name in ("a.npy", "b.npy", "c.npy"):
        _write(directory, name, np.zeros(50_000))

    with pytest.raises(RemoteProtocolError, match=r"c\.npy has .* bytes; 200000 are left"):
        directory.take(["a.npy", "b.npy", "c.npy"], LIMIT)
    _write(directory, "a.npy", np.zeros(50_000))
    with pytest.raises(RemoteProtocolError, match="200000 are left"):
        directory.take(["a.npy"] * 50, LIMIT)
    assert _left(directory) == []


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_the_bytes_they_are_an_array_or_refused(directory: ReplyDirectory, data: st.DataObject) -> None:
    raw = bytearray(_npy(_GOOD, bytes(16)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    (Path(directory.path) / "x.npy").write_bytes(bytes(raw))

    try:
        (array,) = directory.take(["x.npy"], LIMIT)
    except RemoteProtocolError:
        return
    assert array.nbytes <= LIMIT


def test_a_place_where_no_directory_can_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="pool_dir"):
        ReplyDirectory(str(tmp_path / "gone"))


_OWNER = """
import sys, time
from sklearn_wsl_gpu.carriers.file_reply import ReplyDirectory
made = ReplyDirectory(sys.argv[1])
open(made.path + "/left.npy", "w").close()
print(made.path, flush=True)
time.sleep(60)
"""


def test_the_directory_of_a_process_that_was_killed_is_removed_by_the_next_and_that_of_a_living_one_is_not(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", _OWNER, str(tmp_path)]
    owners = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        living, killed = (str(owner.stdout.readline().strip()) for owner in owners if owner.stdout is not None)
        owners[1].kill()
        owners[1].wait(20)
        unrelated = tmp_path / "sklearn_wsl_gpu-replies-file"
        unrelated.write_text("a file of that name is no directory of ours")

        made = ReplyDirectory(str(tmp_path))

        assert os.path.exists(living + "/left.npy")
        assert not os.path.exists(killed)
        assert unrelated.exists()
        made.close()
        assert os.path.exists(living)
    finally:
        for owner in owners:
            owner.kill()
            owner.communicate(timeout=20)


def test_a_directory_that_is_swept_away_before_it_is_held_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    hold, calls = file_reply._hold, []

    def late(path: str) -> int:
        calls.append(path)
        if len(calls) == 1:
            os.rmdir(path)  # another process was faster
        if len(calls) == 2:
            descriptor = hold(path)
            os.rmdir(path)
            return descriptor
        if len(calls) == 3:
            other = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(other, fcntl.LOCK_EX)
                return hold(path)
            finally:
                os.close(other)
        return hold(path)

    monkeypatch.setattr(file_reply, "_hold", late)
    made = ReplyDirectory(str(tmp_path))

    assert made.path == calls[3]
    assert os.path.isdir(made.path)
    made.close()


def test_no_memory_for_a_reply_is_an_error_of_this_package(
    directory: ReplyDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(directory, "x.npy", SECRET)

    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(file_reply.np, "zeros", full)
    with pytest.raises(OffloadError, match="no memory"):
        directory.take(["x.npy"], LIMIT)
