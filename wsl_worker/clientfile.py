"""Files of clients, that the worker reads and writes, and never maps: another kernel's file system is not coherent.

There are several ways of doing either; which of them are fresh depends on the file system, and is found out by the
client's challenge.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
from pathlib import Path

from sklearn_wsl_gpu import paths
from sklearn_wsl_gpu.carriers.base import CarrierFailed
from sklearn_wsl_gpu.carriers.file import PIECE_BYTES
from sklearn_wsl_gpu.errors import ConfigurationError, StaleReference
from sklearn_wsl_gpu.pool.layout import PAGE, Geometry, round_up, unpack_superblock

#: Ways to read and to write, the cheapest first.
READING = ("pread", "direct")
WRITING = ("pwrite", "direct", "synced")
_FOLIO_BYTES = 2 * 2**20
#: A file system may give and take less at once than is asked: what one of its own messages holds, which is more.
_LEAST_BYTES = 2 * PAGE


def open_file(path: str, epoch: int, geometry: Geometry) -> ClientFile:
    """Open the file of a segment of a client's pool.

    Parameters
    ----------
    path : str
        As the client has told it.
    epoch, geometry
        Of the segment: no other file is touched.

    Raises
    ------
    CarrierFailed
        With the reason, if it cannot be opened, or is not that segment.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(_here(path), flags)
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", "") or str(error)
        raise CarrierFailed(f"The worker cannot open the pool's file {path!r}: {words}.") from error
    try:
        about = os.fstat(descriptor)
        found = unpack_superblock(os.pread(descriptor, 64, 0)) if stat.S_ISREG(about.st_mode) else None
    except (OSError, StaleReference):
        found = None
    if found != (epoch, geometry) or about.st_size < geometry.file_bytes:
        os.close(descriptor)
        raise CarrierFailed(f"What the worker finds at {path!r} is not this pool.")
    direct = -1
    with contextlib.suppress(OSError):
        # By the descriptor: the path may be another file's by now.
        direct = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC | os.O_DIRECT)
    return ClientFile(descriptor, direct)


def _here(path: str) -> str:
    """Return what a path of the client is called here."""
    if path.startswith("/"):
        return path
    root = paths.automount_root(_text("/etc/wsl.conf"))
    try:
        return paths.to_posix(path, _text("/proc/mounts"), root)
    except ConfigurationError:
        return paths.to_posix(path, "", root)  # where it would be, mounted by something else than WSL


def _text(name: str) -> str:
    try:
        return Path(name).read_text("utf-8", "replace")
    except OSError:
        return ""


def _enough(count: int, asked: int, does: str) -> int:
    """Return how much was moved, unless it is so little that it is not to be relied on."""
    if count < min(asked, _LEAST_BYTES):
        raise OSError(errno.EIO, f"{does} {count} bytes of {asked}")
    return count


class ClientFile:
    """An open file of a client; for one thread.

    Parameters
    ----------
    descriptor, direct : int
        Of the same file, the second one past the page cache; -1 where there is no such thing.
    """

    def __init__(self, descriptor: int, direct: int) -> None:
        self._descriptor = descriptor
        self._direct = direct
        # Direct reads and writes need memory, offsets and sizes in whole blocks.
        self._buffer = mmap.mmap(-1, PIECE_BYTES + 2 * PAGE)
        self._is_dirty = False

    def read(self, way: str, offset: int, nbytes: int) -> memoryview:
        """Return bytes of the file, in memory that is reused by the next call.

        Raises
        ------
        OSError
            If it does not give them.
        """
        descriptor = self._descriptor_for(way)
        begin = offset // PAGE * PAGE
        want, got = round_up(offset + nbytes, PAGE) - begin, 0
        if way == "pread":
            # What the page cache holds of it. A part of a folio is not dropped, and a large one has 2 MiB.
            first = begin // _FOLIO_BYTES * _FOLIO_BYTES
            last = round_up(begin + want, _FOLIO_BYTES)
            os.posix_fadvise(descriptor, first, last - first, os.POSIX_FADV_DONTNEED)
        view = memoryview(self._buffer)
        while got < want:
            count = os.preadv(descriptor, [view[got:want]], begin + got)
            if not count:
                raise OSError(errno.EIO, "it is shorter than it was")
            got += _enough(count, want - got, "reading gives")
        return view[offset - begin : offset - begin + nbytes]

    def write(self, way: str, offset: int, data: bytes) -> None:
        """Write bytes, by whole pages.

        Raises
        ------
        OSError
            If it does not take them.
        """
        descriptor, begin = self._descriptor_for(way), offset // PAGE * PAGE
        want, done, view = round_up(offset + len(data), PAGE) - begin, 0, memoryview(self._buffer)
        if want != len(data):
            self.read("direct" if way == "direct" else "pread", begin, want)
        view[offset - begin : offset - begin + len(data)] = data
        while done < want:
            done += _enough(os.pwritev(descriptor, [view[done:want]], begin + done), want - done, "writing takes")
        self._is_dirty = self._is_dirty or way == "pwrite"
        if way == "synced":
            os.fdatasync(descriptor)

    def settle(self) -> None:
        """Have arrive what was written plainly, if it has not yet.

        A cache that holds it back would write whole pages over what lies there half a minute later.

        Raises
        ------
        OSError
            If the file does not take it.
        """
        if self._is_dirty:
            os.fdatasync(self._descriptor)
            self._is_dirty = False

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)
        if self._direct >= 0:
            os.close(self._direct)
        with contextlib.suppress(BufferError):
            self._buffer.close()

    def _descriptor_for(self, way: str) -> int:
        if way != "direct":
            return self._descriptor
        if self._direct < 0:
            raise OSError(errno.EINVAL, "its file system does not read and write past the cache")
        return self._direct
