"""Replies in files: how the first workers answered, understood still from one that speaks protocol `FILE_REPLIES`.

Such a worker reads its inputs from the pool like any other, and writes each array of a result to a ``.npy`` file
(NEP 1, version 1.0) in a directory that this session has made for it and told it in its greeting. A reference is the
bare name of a file in there. It is evidence of nothing: what it names is opened relative to the directory, never
through a link, and has to be a regular file of this user whose size is what its header says. The file is removed once
it is read.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sklearn_wsl_gpu.arrays import ArrayRef, check_array_ref
from sklearn_wsl_gpu.errors import ConfigurationError, PoolSpaceError, RemoteProtocolError
from sklearn_wsl_gpu.pool.placing import Array

_PREFIX = "sklearn_wsl_gpu-replies-"
#: No separator, no dot but one, and none of the names that are devices on Windows.
_NAME = re.compile(
    r"(?!(?:con|prn|aux|nul|com[0-9]|lpt[0-9])\.)[a-z0-9][a-z0-9_-]{0,99}\.npy", re.IGNORECASE | re.ASCII
)
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER_LIMIT_BYTES = 4096
_HAS_DIRECTORY_DESCRIPTORS = os.open in os.supports_dir_fd
#: On Windows an open file cannot be removed: that of a directory's owner tells that it lives.
_OWNER = "owner"


def arrays_of(refs: Sequence[Any], directory: ReplyDirectory | None, limit: int) -> list[Array]:
    """Return the arrays of a reply whose references are names of files, and none of one whose references are not.

    Raises
    ------
    RemoteProtocolError
        If they are, and the session has no directory for files because its protocol is another.
    """
    if not refs or type(refs[0]) is not str:
        return []
    if directory is None:
        raise RemoteProtocolError("The worker answered with files, which is of an older protocol than it speaks.")
    return directory.take(refs, limit)


class ReplyDirectory:
    """A directory of one session, for a worker to write its replies to; directories of dead sessions are removed.

    Parameters
    ----------
    base : str or None
        Directory to make it in; None takes the system's for temporary files.

    Attributes
    ----------
    path : str

    Raises
    ------
    ConfigurationError
        If it cannot be made.
    """

    def __init__(self, base: str | None) -> None:
        where = tempfile.gettempdir() if base is None else base
        _sweep(Path(where))
        try:
            self.path, self._descriptor = _make(where)
        except OSError as error:
            raise ConfigurationError(
                f"There can be no directory for the worker's replies in {where!r} ({error.strerror}). Set pool_dir to "
                "a directory that you may write to."
            ) from error

    def __repr__(self) -> str:
        return f"<ReplyDirectory {self.path}>"

    def take(self, names: Sequence[Any], limit: int) -> list[Array]:
        """Read the arrays of a reply, and remove their files.

        Parameters
        ----------
        names : sequence
            References, unchecked.
        limit : int
            Bytes that the files may have together.

        Returns
        -------
        arrays : list of ndarray
            Private copies.

        Raises
        ------
        RemoteProtocolError
            If a reference is not the name of such a file.
        PoolSpaceError
            If there is no memory for them.
        """
        if not all(type(name) is str and _NAME.fullmatch(name) for name in names):
            raise RemoteProtocolError("The worker answered with something else than names of files of its own.")
        arrays: list[Array] = []
        try:
            for name in names:
                arrays.append(self._read(name, limit))
                limit -= arrays[-1].nbytes
        finally:
            for name in names:
                self._remove(name)
        return arrays

    def close(self) -> None:
        """Remove the directory with all that is in it."""
        if self._descriptor >= 0:
            if not _HAS_DIRECTORY_DESCRIPTORS:
                os.close(self._descriptor)
            shutil.rmtree(self.path, ignore_errors=True)
            if _HAS_DIRECTORY_DESCRIPTORS:
                os.close(self._descriptor)
            self._descriptor = -1

    def _read(self, name: str, limit: int) -> Array:
        try:
            descriptor = self._open(name)
        except OSError as error:
            raise RemoteProtocolError(f"The worker's reply {name} cannot be opened: {error.strerror}.") from error
        try:
            return _read(descriptor, name, limit)
        finally:
            os.close(descriptor)

    def _open(self, name: str) -> int:
        flags = os.O_RDONLY
        # Without O_NONBLOCK a named pipe would be waited for.
        for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_NOINHERIT", "O_BINARY"):
            flags |= getattr(os, flag, 0)
        if _HAS_DIRECTORY_DESCRIPTORS:
            return os.open(name, flags, dir_fd=self._descriptor)
        path = Path(self.path) / name
        before = path.lstat()
        descriptor = os.open(path, flags)
        if not os.path.samestat(before, os.fstat(descriptor)):
            os.close(descriptor)
            raise OSError(0, "it is a link")
        return descriptor

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            if _HAS_DIRECTORY_DESCRIPTORS:
                os.unlink(name, dir_fd=self._descriptor)
            else:
                os.unlink(Path(self.path) / name)


def _read(descriptor: int, name: str, limit: int) -> Array:
    about = os.fstat(descriptor)
    own = not hasattr(os, "getuid") or about.st_uid == os.getuid()
    if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1 or not own:
        raise RemoteProtocolError(f"The worker's reply {name} is not a regular file of this user.")
    if about.st_size > limit + _HEADER_LIMIT_BYTES:
        raise RemoteProtocolError(
            f"The worker's reply {name} has {about.st_size} bytes; {limit} are left of what a reply may have."
        )
    with open(descriptor, "rb", closefd=False) as file:
        ref, nbytes = _parse(file.read(_HEADER_LIMIT_BYTES), about.st_size, name)
        if nbytes > limit:
            raise RemoteProtocolError(f"The worker's reply {name} is larger than a reply may be: {nbytes} bytes.")
        try:
            array: Array = np.zeros(ref.shape, np.dtype(ref.dtype), order="F" if ref.order == "F" else "C")
        except MemoryError as error:
            raise PoolSpaceError(f"There is no memory for a reply of {nbytes / 1e6:.0f} MB.") from error
        file.seek(ref.offset)
        # As bytes, because dates have no buffer.
        if nbytes and file.readinto(array.reshape(-1, order="A").view(np.uint8).data) != nbytes:
            raise RemoteProtocolError(f"The worker's reply {name} has become shorter while it was read.")
    return array


def _parse(head: bytes, size: int, name: str) -> tuple[ArrayRef, int]:
    """Return what the header of a file says of its array, and the array's bytes.

    References
    ----------
    NEP 1, "A simple file format for NumPy arrays", version 1.0; later versions are for what does not travel.
    """
    wrong = RemoteProtocolError(f"The worker's reply {name} is not a .npy file of version 1.0.")
    start = len(_MAGIC) + 2
    offset = start + int.from_bytes(head[start - 2 : start], "little")
    if not head.startswith(_MAGIC) or len(head) < offset:
        raise wrong
    try:
        found = ast.literal_eval(head[start:offset].decode("ascii"))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise wrong from None
    if type(found) is not dict or found.keys() != {"descr", "fortran_order", "shape"}:
        raise wrong
    dtype, is_fortran, shape = found["descr"], found["fortran_order"], found["shape"]
    if type(is_fortran) is not bool or type(shape) is not tuple:
        raise wrong
    try:
        # Types of objects and of records are none that travel.
        ref, nbytes = check_array_ref([offset, dtype, list(shape), "F" if is_fortran else "C", True], 2**63)
    except RemoteProtocolError as error:
        raise RemoteProtocolError(f"The worker's reply {name} holds no array that travels: {error}") from None
    if offset + nbytes != size:
        raise RemoteProtocolError(
            f"The worker's reply {name} has {size - offset} bytes where its header says {nbytes}."
        )
    return ref, nbytes


def _make(where: str) -> tuple[str, int]:
    """Make a directory that nobody else may enter; return its path, and the descriptor that marks it as held."""
    while True:
        path = tempfile.mkdtemp(prefix=_PREFIX, dir=where)
        # Another process may have swept it away before it was held.
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            descriptor = _hold(path)
            if os.path.isdir(path):
                return path, descriptor
            os.close(descriptor)


def _hold(path: str) -> int:
    """Mark a directory as that of a living process, and return the descriptor that does it."""
    if sys.platform == "win32" or not _HAS_DIRECTORY_DESCRIPTORS:
        return os.open(Path(path) / _OWNER, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOINHERIT", 0), 0o600)
    import fcntl

    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def abandoned(base: Path) -> list[Path]:
    """Return the directories of processes that were killed: proof is that nobody holds them, not their age."""
    found = []
    with contextlib.suppress(OSError):
        for path in _own(base):
            with contextlib.suppress(OSError):
                if _HAS_DIRECTORY_DESCRIPTORS:
                    os.close(_hold(str(path)))
                else:
                    os.rename(path / _OWNER, path / _OWNER)  # refused while it is open
                found.append(path)
    return found


def _sweep(base: Path) -> None:
    """Remove the directories of processes that were killed."""
    with contextlib.suppress(OSError):
        for path in _own(base):
            with contextlib.suppress(OSError):
                _remove_abandoned(path)


def _own(base: Path) -> list[Path]:
    found = base.glob(f"{_PREFIX}*")
    return [path for path in found if not hasattr(os, "getuid") or path.lstat().st_uid == os.getuid()]


def _remove_abandoned(path: Path) -> None:
    if not _HAS_DIRECTORY_DESCRIPTORS:
        os.unlink(path / _OWNER)  # refused while it is open
        shutil.rmtree(path, ignore_errors=True)
        return
    descriptor = _hold(str(path))
    try:
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)
