"""Data to a device by a small ring of pinned memory.

A device reads pinned memory by itself, while the next piece is copied there. It is kept
small because WSL2 lets a process pin little, and because pages of a pool are not pinned: registering a mapping makes
all of its pages real, those that nobody uses too.

References
----------
CUDA C++ Best Practices Guide, 10.1.1 (pinned memory) and 10.1.2 (asynchronous transfers).
CUDA on WSL User Guide, limits on pinned memory.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

#: Less than this is copied by the library itself.
LEAST_BYTES = 2**20
_PIECE_BYTES = 2**23
_PIECES = 3

Array = Any


class Device(Protocol):
    """What a ring asks of a device; each place of the ring has one transfer under way at most."""

    def pinned(self, nbytes: int) -> Array:
        """Return pinned memory, as an array of bytes."""

    def start(self, place: int, source: Array, target: Any, offset: int) -> None:
        """Begin to copy pinned bytes into an array of the device, from a byte on."""

    def wait(self, place: int) -> None:
        """Return when the last transfer that was started from a place is through."""


class Ring:
    """Pinned memory by which data go to a device, piece by piece.

    Parameters
    ----------
    device : Device
    piece_bytes, pieces : int
        Size and number of its places.
    """

    def __init__(self, device: Device, piece_bytes: int = _PIECE_BYTES, pieces: int = _PIECES) -> None:
        self._device = device
        self._piece_bytes = piece_bytes
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
        flat = (source if source.flags.c_contiguous else source.T).reshape(-1).view(np.uint8)
        places = range(len(self._places))
        try:
            for number, offset in enumerate(range(0, len(flat), self._piece_bytes)):
                place, piece = number % len(places), flat[offset : offset + self._piece_bytes]
                self._device.wait(place)
                self._places[place][: len(piece)] = piece
                self._device.start(place, self._places[place][: len(piece)], target, offset)
        finally:
            for place in places:
                self._device.wait(place)


class CupyDevice:
    """A device by CuPy."""

    def __init__(self, cupy: Any) -> None:
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


class ToCupy:
    """Makes arrays of CuPy, the large ones by a ring.

    Parameters
    ----------
    cupy : module
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._ring: Ring | None = None
        self._is_refused = False

    def __call__(self, array: Array) -> Any:
        """Return an array of the device with the values of one of numpy; anything else as CuPy makes of it."""
        is_large = isinstance(array, np.ndarray) and array.nbytes >= LEAST_BYTES and array.flags.forc
        ring = self._pinned() if is_large and array.dtype.isnative else None
        if ring is None:
            return self._cupy.asarray(array)
        order = "C" if array.flags.c_contiguous else "F"
        made = self._cupy.empty(array.shape, dtype=array.dtype, order=order)
        # What the stream of the library has still to do with this memory comes first.
        self._cupy.cuda.get_current_stream().synchronize()
        ring.fill(made, array)
        return made

    def _pinned(self) -> Ring | None:
        if self._ring is None and not self._is_refused:
            try:
                self._ring = Ring(CupyDevice(self._cupy))
            except self._cupy.cuda.runtime.CUDARuntimeError:
                self._is_refused = True  # as much as may be pinned is pinned already: it is only slower
        return self._ring
