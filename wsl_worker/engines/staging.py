"""Data to a device by a small ring of pinned memory, and ahead of their call while they still come in.

A device reads pinned memory by itself, while the next piece is copied there. It is kept
small because WSL2 lets a process pin little, and because pages of a pool are not pinned: registering a mapping makes
all of its pages real, those that nobody uses too.

References
----------
CUDA C++ Best Practices Guide, 10.1.1 (pinned memory) and 10.1.2 (asynchronous transfers).
CUDA on WSL User Guide, limits on pinned memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import Any, Protocol

import numpy as np

#: Less than this is copied by the library itself.
LEAST_BYTES = 2**20
_PIECE_BYTES = 2**23
_PIECES = 3

Array = Any
#: Numbers of a session and of one of its transfers.
Key = tuple[int, int]


class Device(Protocol):
    """What a ring asks of a device; each place of the ring has one transfer under way at most."""

    def pinned(self, nbytes: int) -> Array:
        """Return pinned memory, as an array of bytes."""

    def start(self, place: int, source: Array, target: Any, offset: int) -> None:
        """Begin to copy pinned bytes into an array of the device, from a byte on."""

    def wait(self, place: int) -> None:
        """Return when the last transfer that was started from a place is through."""

    def empty(self, nbytes: int) -> Any:
        """Return memory of the device that nothing else is done with any more."""

    def move(self, source: Any, begin: int, nbytes: int, target: Any, offset: int) -> None:
        """Begin to copy bytes of such memory into an array of the device."""

    def settle(self) -> None:
        """Return when all is through that was begun."""


class Ring:
    """Pinned memory by which data go to a device, piece by piece.

    Parameters
    ----------
    device : Device
    piece_bytes, pieces : int
        Size and number of its places.
    """

    def __init__(self, device: Device, piece_bytes: int = _PIECE_BYTES, pieces: int = _PIECES) -> None:
        self.device = device
        self.piece_bytes = piece_bytes
        self._places = [device.pinned(piece_bytes) for _ in range(pieces)]

    def fill(self, target: Any, source: Array) -> None:
        """Copy an array to one of the device; the source may be written to when this returns.

        Parameters
        ----------
        target : object
            The device's array, of as many bytes in the same order.
        source : ndarray
            C- or F-contiguous.
        """
        self.copy(target, 0, flat(source))

    def copy(self, target: Any, offset: int, source: Array) -> None:
        """Copy bytes to an array of the device, from a byte on; as `fill`."""
        places = range(len(self._places))
        try:
            for number, begin in enumerate(range(0, len(source), self.piece_bytes)):
                place, piece = number % len(places), source[begin : begin + self.piece_bytes]
                self.device.wait(place)
                self._places[place][: len(piece)] = piece
                self.device.start(place, self._places[place][: len(piece)], target, offset + begin)
        finally:
            for place in places:
                self.device.wait(place)


def flat(array: Array) -> Array:
    """Return the bytes of a contiguous array, in the order of memory."""
    return (array if array.flags.c_contiguous else array.T).reshape(-1).view(np.uint8)


class Ahead:
    """Brings a span to the device while it still comes in, before it is known what arrays it holds.

    What has come lies on the device in pieces. Arrays of the span are put together of them there, when its call is
    done; what had not come by then is copied from the host. So each is an array of its own, as without this; and it is
    certain by then that the span is whole, and which it is.

    It follows one span at a time, the one that began first. What it has is given out once, and only under its key.

    Parameters
    ----------
    ring : callable
        Returns a `Ring`, or None where there can be none.

    Attributes
    ----------
    key : tuple or None
        Session and transfer of the span that is followed.
    """

    def __init__(self, ring: Callable[[], Ring | None]) -> None:
        self._ring = ring
        self.key: Key | None = None
        self._base = 0
        self._pieces: list[Any] = []
        self._is_full = self._is_usable = False

    def follow(self, key: Key, span: Array, nbytes: int) -> None:
        """Copy what has come of a span and is not there yet.

        Parameters
        ----------
        key : tuple
            Session and transfer: another for each time that the span is sent.
        span : ndarray of uint8
        nbytes : int
            How much of it has come, from its start on.
        """
        if self.key not in (None, key) or self._is_full:
            return
        try:
            ring = self._ring()
            while ring is not None and (end := (len(self._pieces) + 1) * ring.piece_bytes) <= nbytes:
                self.key, self._base = key, _address(span)
                piece = ring.device.empty(ring.piece_bytes)
                ring.copy(piece, 0, span[end - ring.piece_bytes : end])
                self._pieces.append(piece)
        except (MemoryError, RuntimeError):  # the call finds out for itself what is wrong with the device
            self._pieces.clear()
            self._is_full = True

    @contextlib.contextmanager
    def giving(self, key: Key) -> Iterator[None]:
        """Give out what was brought under a key, while its call is done; there is nothing left of it afterwards."""
        if key != self.key:
            self.forget()
        self._is_usable = True
        try:
            yield
        finally:
            self.forget()

    def forget(self) -> None:
        """Let go of what was brought, and of its span."""
        self.key, self._pieces = None, []
        self._is_full = self._is_usable = False

    def fill(self, ring: Ring, target: Any, source: Array) -> None:
        """Copy the bytes of an array to one of the device; those that are there already, from there."""
        size, begin = ring.piece_bytes, _address(source) - self._base
        first, last, at = begin // size, -(-(begin + len(source)) // size), 0
        held = self._pieces[first:last] if self._is_usable and begin >= 0 else []
        try:
            for number, piece in enumerate(held, first):
                if piece is None:
                    break
                skip = begin + at - number * size
                count = min(size - skip, len(source) - at)
                ring.device.move(piece, skip, count, target, at)
                at += count
        finally:
            ring.device.settle()
        ring.copy(target, at, source[at:])
        for number in range(first, min(last, len(self._pieces))) if held else ():
            if (number + 1) * size <= begin + len(source):  # nothing behind the array lies in it
                self._pieces[number] = None


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


class CupyDevice:
    """A device by CuPy."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._cuda = cupy.cuda
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._events: dict[int, Any] = {}

    def pinned(self, nbytes: int) -> Array:
        return np.frombuffer(self._cuda.alloc_pinned_memory(nbytes), np.uint8, nbytes)

    def start(self, place: int, source: Array, target: Any, offset: int) -> None:
        address = source.__array_interface__["data"][0]
        (target.data + offset).copy_from_host_async(address, source.nbytes, self._stream)
        self._events[place] = self._stream.record()

    def wait(self, place: int) -> None:
        event = self._events.pop(place, None)
        if event is not None:
            event.synchronize()

    def empty(self, nbytes: int) -> Any:
        memory = self._cupy.empty(nbytes, dtype=np.uint8)
        # What the stream of the library has still to do with this memory comes first.
        self._cuda.get_current_stream().synchronize()
        return memory

    def move(self, source: Any, begin: int, nbytes: int, target: Any, offset: int) -> None:
        (target.data + offset).copy_from_device_async(source.data + begin, nbytes, self._stream)

    def settle(self) -> None:
        self._stream.synchronize()


class ToCupy:
    """Makes arrays of CuPy, the large ones by a ring.

    Parameters
    ----------
    cupy : module

    Attributes
    ----------
    ahead : Ahead
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._ring: Ring | None = None
        self._is_refused = False
        self.ahead = Ahead(self._pinned)

    def __call__(self, array: Array) -> Any:
        """Return an array of the device with the values of one of numpy; anything else as CuPy makes of it."""
        is_large = isinstance(array, np.ndarray) and array.nbytes >= LEAST_BYTES and array.flags.forc
        ring = self._pinned() if is_large and array.dtype.isnative else None
        if ring is None:
            return self._cupy.asarray(array)
        try:
            made = self._empty_like(array)
        except MemoryError:  # what was brought ahead takes room, too
            self.ahead.forget()
            made = self._empty_like(array)
        self.ahead.fill(ring, made, flat(array))
        return made

    def _empty_like(self, array: Array) -> Any:
        order = "C" if array.flags.c_contiguous else "F"
        made = self._cupy.empty(array.shape, dtype=array.dtype, order=order)
        # What the stream of the library has still to do with this memory comes first.
        self._cupy.cuda.get_current_stream().synchronize()
        return made

    def _pinned(self) -> Ring | None:
        if self._ring is None and not self._is_refused:
            try:
                self._ring = Ring(CupyDevice(self._cupy))
            except self._cupy.cuda.runtime.CUDARuntimeError:
                self._is_refused = True  # as much as may be pinned is pinned already: it is only slower
        return self._ring


@cache
def to_cupy() -> ToCupy:
    """Return what makes arrays of CuPy in this process, which computes on one device."""
    return ToCupy(import_module("cupy"))
