"""One mapped region: owns the memory, knows nothing of who uses which part."""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import threading
import time

import numpy as np
from numpy.typing import NDArray

from sklearn_wsl_gpu.errors import PoolError, StaleReference
from sklearn_wsl_gpu.pool import memory
from sklearn_wsl_gpu.pool.layout import (
    CHALLENGE_BYTES,
    CHALLENGE_OFFSET,
    DATA_OFFSET,
    NOTE_OFFSET,
    PAGE,
    SPAN_HEADER_BYTES,
    Geometry,
    check_span_header,
    pack_note,
    pack_span_header,
    pack_superblock,
    round_up,
    unpack_superblock,
)

#: In which another thread gets a lock that it waits for.
_GAP_SECONDS = 0.0002


class Segment:
    """A mapped region with slots.

    Build one with `create` (the client's side) or `attach` (the worker's side).
    """

    def __init__(self, descriptor: int, epoch: int, geometry: Geometry, path: str | None = None) -> None:
        self.descriptor = descriptor
        #: Of the file that the memory is, where it has a name; on the side that made it.
        self.path = path
        self.epoch = epoch
        self.geometry = geometry
        self.map: mmap.mmap = memory.map_backing(descriptor, geometry.file_bytes)
        #: Of its first byte in this process.
        self.address = memory.address_of(self.map)
        self._reserved: set[int] = set()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Segment {self.geometry.slots} slots of {self.geometry.slot_bytes} bytes, epoch {self.epoch:x}>"

    @classmethod
    def create(
        cls,
        geometry: Geometry,
        directory: str | None = None,
        note: str = "",
        epoch: int | None = None,
        *,
        named: bool = False,
    ) -> Segment:
        """Create a segment; its memory is sparse until it is reserved.

        Parameters
        ----------
        geometry : Geometry
        directory : str or None
            Where its memory comes from, see `memory.create_backing`.
        note : str
            For people who look at it.
        epoch : int or None
            That of the segment that it is to be the other side's memory of; None for a segment of its own.
        named : bool
            Whether another kernel can open its memory, by `path`.
        """
        descriptor, path = memory.create_backing(geometry.file_bytes, directory, named)
        try:
            memory.reserve(descriptor, 0, DATA_OFFSET)
            if epoch is None:  # 63 random bits: a segment made anew is never taken for an older one
                epoch = int.from_bytes(os.urandom(8), "little") >> 1
            segment = cls(descriptor, epoch, geometry, path)
        except BaseException as error:
            memory.close_backing(descriptor, path)
            if isinstance(error, OSError):
                raise memory.unfit(geometry.file_bytes, directory, named, error) from error
            raise
        block = pack_superblock(epoch, geometry)
        segment.map[: len(block)] = block
        words = pack_note(note)
        segment.map[NOTE_OFFSET : NOTE_OFFSET + len(words)] = words
        return segment

    @classmethod
    def attach(cls, descriptor: int) -> Segment:
        """Map a segment that the other side created; takes over the descriptor.

        Raises
        ------
        StaleReference
            If the region is not a segment of this package, or shorter than it says.
        """
        head = b""
        if sys.platform != "win32":  # where no worker runs
            head = os.pread(descriptor, 64, 0)
        epoch, geometry = unpack_superblock(head)
        if os.fstat(descriptor).st_size < geometry.file_bytes:
            raise StaleReference("The segment is shorter than its superblock says.")
        return cls(descriptor, epoch, geometry)

    @property
    def region(self) -> list[int]:
        """What the other side needs to make memory of its own for it: epoch, bytes of a slot, slots of each kind."""
        geometry = self.geometry
        return [self.epoch, geometry.slot_bytes, geometry.inputs, geometry.outputs, geometry.scratch]

    def reserve(self, start: int, nbytes: int) -> None:
        """Reserve the pages of a run, once for the segment's life.

        Raises
        ------
        PoolSpaceError
            If there is no space.
        PoolError
            If another thread has closed it.
        """
        chunk = memory.RESERVE_CHUNK_BYTES
        wanted = range(start // chunk, (start + nbytes - 1) // chunk + 1)
        if self.descriptor >= 0 and self._reserved.issuperset(wanted):
            return  # without the lock, which a thread may hold that has stepped back behind all others
        with self._lock:
            if self.descriptor < 0:
                raise _closed()
            missing = [index for index in wanted if index not in self._reserved]
            for begin, end in _runs(missing):  # what is between them is in use
                stop = min(end * chunk, round_up(self.geometry.file_bytes, PAGE))
                memory.reserve(self.descriptor, begin * chunk, stop - begin * chunk)
                self._reserved.update(range(begin, end))

    def reserve_behind(self, start: int, nbytes: int, stop: threading.Event) -> bool:
        """Reserve a run behind all others: whoever needs the segment waits for a little of it at most.

        Returns
        -------
        done : bool
            False if `stop` was set before the end.
        """
        chunk = memory.RESERVE_CHUNK_BYTES
        for begin in range(start, start + nbytes, chunk):
            if stop.is_set():
                return False
            self.reserve(begin, min(chunk, start + nbytes - begin))
            time.sleep(_GAP_SECONDS)  # a lock that is taken again at once is seldom had by who waits for it
        return True

    def window(self, start: int, nbytes: int) -> NDArray[np.uint8]:
        """Return bytes of it as an array; while there is any view of that, the mapping stays.

        Raises
        ------
        PoolError
            If another thread has closed it.
        """
        try:
            # Not np.ndarray(buffer=…), which lets the mapping be closed beneath it.
            return np.frombuffer(self.map, np.uint8, nbytes, start)
        except ValueError:
            raise _closed() from None

    def seal(self, start: int, generation: int, nbytes: int, writer: int) -> None:
        """Write the header of a span, whose `nbytes`, header included, the other side may read from then on."""
        header = pack_span_header(self.epoch, generation, nbytes - SPAN_HEADER_BYTES, writer)
        self.window(start, SPAN_HEADER_BYTES).data[:] = header

    def check(self, start: int, generation: int, nbytes: int, *writers: int) -> int:
        """Return the bytes of payload of a span of `nbytes` that one of `writers` has sealed.

        Raises
        ------
        StaleReference
            If it holds anything else than this very generation.
        """
        raw = self.window(start, SPAN_HEADER_BYTES).tobytes()
        return check_span_header(raw, self.epoch, generation, nbytes - SPAN_HEADER_BYTES, *writers)

    def discard(self, begin: int, end: int) -> int:
        """Give the memory of a run back to the system, and return how much that was; its bytes are zero then.

        The run has to be reserved again before it is used.
        """
        chunk = memory.RESERVE_CHUNK_BYTES
        with self._lock:
            whole = [index for index in range(-(-begin // chunk), end // chunk) if index in self._reserved]
            done = [index for index in whole if memory.discard(self.map, index * chunk, chunk)]
            self._reserved.difference_update(done)
        return len(done) * chunk

    def empty(self) -> None:
        """Give the memory of all its slots back to the system; whoever has mapped it has to reserve it again."""
        with self._lock:
            memory.discard(self.map, DATA_OFFSET, round_up(self.geometry.file_bytes, PAGE) - DATA_OFFSET)
            self._reserved.clear()

    def client_challenge(self, nonce: bytes) -> None:
        """Write what the worker has to read back."""
        self.map[CHALLENGE_OFFSET : CHALLENGE_OFFSET + CHALLENGE_BYTES] = nonce

    def worker_challenge(self) -> bytes:
        """Read what the worker wrote."""
        begin = CHALLENGE_OFFSET + CHALLENGE_BYTES
        return self.map[begin : begin + CHALLENGE_BYTES]

    def close(self) -> None:
        """Drop this side's hold of the memory; arrays that still lie in it keep the mapping alive."""
        with self._lock:  # another thread may be about to reserve
            if self.descriptor >= 0:
                self._let_go = memory.let_go(self.map, self.descriptor, self.path)
                self.descriptor = -1
        # A kept result is a view on this mapping; the mapping goes when the last such view goes.
        with contextlib.suppress(BufferError):
            self.map.close()
            self._let_go()


def _closed() -> PoolError:
    return PoolError("The session was closed while a call was under way.")


def _runs(indices: list[int]) -> list[tuple[int, int]]:
    """Return first and end of each run of neighbours in ascending `indices`."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        begin = runs.pop()[0] if runs and runs[-1][1] == index else index
        runs.append((begin, index + 1))
    return runs
