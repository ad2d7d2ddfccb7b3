"""A pool in a file that two kernels see, as it really is: two files, and what is told from one to the other.

The client maps one file; what the worker reads and writes is another one, and a mode decides what is carried over when.
``python lying.py FILE …`` is a worker (`wsl_worker`) to which every pool lies, in the mode that the file names. It is
read again at each step, so that a mode can be switched on at any time.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PAGE = 4096
_SHORT, _MESSAGE = 3_000, 10_000

#: Modes in which other bytes come out than were stored, or none.
LIES = (
    "stale reads",  # neither side sees what the other one has changed
    "stale after first read",  # a page that either side has read stays as it was
    "delayed",  # it is there when one looks again, 200 ms later
    "one-way there",  # what the worker writes does not arrive
    "one-way back",  # what the client writes does not arrive
    "torn page",  # only the first half of each page arrives
    "error after 3",  # EIO from the fourth read or write on
    "reads that end",  # a read gives the first half of what is asked, and then nothing
    "short reads",  # a read gives less than a page
    "short writes",  # a write takes less than a page
)
#: Modes that a worker has to cope with.
TRUTHS = (
    "coherent",
    "by messages",  # a read gives 10,000 bytes at most, a write takes no more: what 9P puts in one of its messages
    "no mapping there",  # mmap gives ENODEV in the worker
)
#: Modes in which only some ways of reading and writing are coherent, and which ways those are.
PARTIAL = {
    "cached": ("direct", "direct"),  # a plain read is stale, a plain write arrives with a later fdatasync
    "cached writes, not direct": ("pread", "synced"),
}
HANG_READ, HANG_WRITE = "read hangs", "write hangs"
#: Modes in which all that is moved arrives.
_CARRIED = (*TRUTHS, "error after 3", "reads that end", "short reads", "short writes", HANG_READ, HANG_WRITE)


class Pair:
    """The two files of one pool.

    Parameters
    ----------
    path : str
        Of the client's.
    mode : callable
        Returns the mode that holds.
    """

    def __init__(self, path: str, mode: Callable[[], str]) -> None:
        self.mode = mode
        self._client = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        nbytes = os.fstat(self._client).st_size
        self.worker = os.memfd_create("lying", os.MFD_CLOEXEC)
        os.ftruncate(self.worker, nbytes)
        self.direct = os.dup(self.worker)
        self._seen: set[int] = set()
        self._shown: set[int] = set()
        self._asked: dict[tuple[int, int], float] = {}
        #: What was written plainly, and arrives with a later `sync`.
        self.dirty: set[tuple[int, int]] = set()
        self._left = 3
        self._last_mode = ""

    def read(self, descriptor: int, buffers: Sequence[Any], offset: int) -> int:
        """Stand in for `os.preadv`."""
        mode = self._step()
        while self.mode() == HANG_READ:
            time.sleep(0.01)
        if mode in ("short reads", "by messages"):
            buffers = [memoryview(buffers[0])[: _SHORT if mode == "short reads" else _MESSAGE]]
        if mode == "reads that end":
            if offset % PAGE:
                return 0
            buffers = [memoryview(buffers[0])[: len(buffers[0]) // 2 // PAGE * PAGE + PAGE // 2]]
        nbytes = sum(map(len, buffers))
        if mode in (*_CARRIED, "one-way there"):
            self._carry(self._client, self.worker, offset, nbytes)
        elif mode == "torn page":
            self._carry(self._client, self.worker, offset, nbytes, PAGE // 2)
        elif mode == "stale after first read":
            self._carry_new(self._seen, self._client, self.worker, offset, nbytes)
        elif mode == "delayed":
            self._carry_old(offset, nbytes)
        elif mode == "cached" and descriptor == self.direct:
            self._carry(self._client, self.worker, offset, nbytes)
        elif mode == "cached writes, not direct":
            if descriptor == self.direct:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            self._carry(self._client, self.worker, offset, nbytes)
        return REAL_READ(descriptor, buffers, offset)

    def write(self, descriptor: int, buffers: Sequence[Any], offset: int) -> int:
        """Stand in for `os.pwritev`."""
        mode = self._step()
        if mode in ("short writes", "by messages"):
            buffers = [memoryview(buffers[0])[: _SHORT if mode == "short writes" else _MESSAGE]]
        if mode == "cached writes, not direct" and descriptor == self.direct:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        while self.mode() == HANG_WRITE:
            time.sleep(0.01)
        nbytes = REAL_WRITE(descriptor, buffers, offset)
        if mode in (*_CARRIED, "one-way back"):
            self._carry(self.worker, self._client, offset, nbytes)
        elif mode == "torn page":
            self._carry(self.worker, self._client, offset, nbytes, PAGE // 2)
        elif mode == "stale after first read":
            self._carry_new(self._shown, self.worker, self._client, offset, nbytes)
        elif mode == "delayed":
            later = threading.Timer(0.2, self._carry, (self.worker, self._client, offset, nbytes))
            later.daemon = True
            later.start()
        elif mode == "cached" and descriptor == self.direct:
            self._carry(self.worker, self._client, offset, nbytes)
        elif mode.startswith("cached"):
            self.dirty.add((offset, nbytes))
        return nbytes

    def sync(self) -> None:
        """Stand in for `os.fdatasync`."""
        while self.dirty:
            self._carry(self.worker, self._client, *self.dirty.pop())

    def _step(self) -> str:
        mode = self.mode()
        if mode != self._last_mode:
            self._last_mode, self._left = mode, 3
        if mode == "error after 3":
            if not self._left:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self._left -= 1
        return mode

    def _carry(self, source: int, target: int, offset: int, nbytes: int, first: int = PAGE) -> None:
        for page in _pages(offset, nbytes):
            os.pwrite(target, os.pread(source, first, page), page)

    def _carry_new(self, known: set[int], source: int, target: int, offset: int, nbytes: int) -> None:
        for page in _pages(offset, nbytes):
            if page not in known:
                known.add(page)
                self._carry(source, target, page, PAGE)

    def _carry_old(self, offset: int, nbytes: int) -> None:
        # Once it has been looked at, it arrives in 200 ms.
        for page in _pages(offset, nbytes):
            new = os.pread(self._client, PAGE, page)
            key = (page, hash(new))
            if new != os.pread(self.worker, PAGE, page):
                asked = self._asked.setdefault(key, time.monotonic())
                if time.monotonic() - asked >= 0.2:
                    os.pwrite(self.worker, new, page)


def _pages(offset: int, nbytes: int) -> range:
    return range(offset // PAGE * PAGE, offset + nbytes, PAGE)


REAL_READ, REAL_WRITE, REAL_SYNC, REAL_MAP = os.preadv, os.pwritev, os.fdatasync, mmap.mmap


class Liar:
    """What the worker is made to use instead of the system's calls.

    Parameters
    ----------
    mode : callable
        Returns the mode that holds.
    """

    def __init__(self, mode: Callable[[], str]) -> None:
        from wsl_worker import clientfile

        self._mode = mode
        self._open = clientfile.open_file
        self._file = clientfile.ClientFile
        self.pairs: list[Pair] = []

    def open_file(self, path: str, epoch: int, geometry: Any) -> Any:
        """Stand in for `wsl_worker.files.open_file`."""
        self._open(path, epoch, geometry).close()  # it is the right one
        pair = Pair(path, self._mode)
        self.pairs.append(pair)
        return self._file(pair.worker, pair.direct)

    def read(self, descriptor: int, buffers: Sequence[Any], offset: int) -> int:
        """Stand in for `os.preadv`."""
        pair = self._pair(descriptor)
        return REAL_READ(descriptor, buffers, offset) if pair is None else pair.read(descriptor, buffers, offset)

    def write(self, descriptor: int, buffers: Sequence[Any], offset: int) -> int:
        """Stand in for `os.pwritev`."""
        pair = self._pair(descriptor)
        return REAL_WRITE(descriptor, buffers, offset) if pair is None else pair.write(descriptor, buffers, offset)

    def sync(self, descriptor: int) -> None:
        """Stand in for `os.fdatasync`."""
        pair = self._pair(descriptor)
        if pair is not None:
            pair.sync()

    def map(self, descriptor: int, *arguments: Any, **keywords: Any) -> mmap.mmap:
        """Stand in for `mmap.mmap`."""
        if self._pair(descriptor) is not None and self._mode() == "no mapping there":
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return REAL_MAP(descriptor, *arguments, **keywords)

    def _pair(self, descriptor: int) -> Pair | None:
        # The latest: the numbers of closed descriptors are given again.
        found = [pair for pair in self.pairs if descriptor in (pair.worker, pair.direct)]
        return found[-1] if found else None

    def close(self) -> None:
        """Let go of the clients' files."""
        for pair in self.pairs:
            os.close(pair._client)


def main() -> int:
    """Run a worker."""
    from wsl_worker import __main__, background, files

    background.PATIENCE_SECONDS = 3.0  # on a busy machine a second may pass without anything that hangs
    where = Path(sys.argv.pop(1))
    liar = Liar(lambda: where.read_text().strip())
    files.open_file = liar.open_file  # type: ignore[assignment]
    os.preadv, os.pwritev, os.fdatasync = liar.read, liar.write, liar.sync  # type: ignore[assignment]
    mmap.mmap = liar.map  # type: ignore[misc, assignment]
    return __main__.main()


if __name__ == "__main__":
    sys.exit(main())
