"""Bytes over a stream socket, with an end to every wait. Used on both sides."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import time

from sklearn_wsl_gpu.carriers.base import CarrierFailed
from sklearn_wsl_gpu.carriers.checksum import BLOCK_BYTES, Checksum
from sklearn_wsl_gpu.errors import DeadlineExceeded

#: In parts of this size: so a wait is never longer than that for one of them, and what has come can be used.
CHUNK_BYTES = 4 * 1024 * 1024
#: No call of the system waits longer: on Windows Ctrl-C is not heard there.
SLICE_SECONDS = 0.2
#: An end that takes or gives no byte for so long is gone.
STALL_SECONDS = 2.0
#: What sockets that do not find a size of buffer by themselves should hold.
_BUFFER_BYTES = 1024 * 1024
#: An idle connection is asked after so many seconds whether the other machine is still there, and so often.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class Stalled(CarrierFailed):
    """The other end of a connection does not take or give anything."""


def tune(end: socket.socket) -> None:
    """Let a socket send at once, hold much, and notice that a machine is gone, as far as its kind knows of that."""
    end.settimeout(SLICE_SECONDS)
    if end.family in (socket.AF_INET, socket.AF_INET6):
        # Its buffers are left alone: the system makes them as large as the way needs, unless they are set.
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            with contextlib.suppress(AttributeError, OSError):
                end.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return
    if sys.platform == "linux" and _is_vsock(end):
        for number in (socket.SO_VM_SOCKETS_BUFFER_MAX_SIZE, socket.SO_VM_SOCKETS_BUFFER_SIZE):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.AF_VSOCK, number, _BUFFER_BYTES)
        return
    for number in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, number, _BUFFER_BYTES)


def shut(end: socket.socket) -> None:
    """End what others do with a socket at this moment."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def _is_vsock(end: socket.socket) -> bool:
    # Python knows options of such a socket that are one number only.
    return end.family == getattr(socket, "AF_VSOCK", None)


def hang_up(end: socket.socket) -> None:
    """Close a connection in the middle of a transfer: the other end gets an error, not the rest."""
    if not _is_vsock(end):
        with contextlib.suppress(OSError):
            # On Windows the two numbers are short.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("HH" if os.name == "nt" else "ii", 1, 0))
    shut(end)  # also where a forked child has the same socket
    end.close()


def receive_into(
    end: socket.socket,
    window: memoryview,
    deadline: float | None,
    stall: float | None,
    checksum: Checksum | None = None,
) -> None:
    """Fill a window.

    Parameters
    ----------
    end : socket.socket
        After `tune`.
    window : memoryview of bytes
    deadline : float or None
        `time.monotonic` value at which to give up.
    stall : float or None
        Seconds after which an end that gives nothing is gone; None waits for ever.
    checksum : Checksum or None
        Told of the bytes, while a cache has them.

    Raises
    ------
    CarrierFailed
        If the other end is gone; `Stalled` if it only seems so.
    DeadlineExceeded
        If the deadline passes first.
    """
    got, summed, heard = 0, 0, time.monotonic()
    while got < len(window):
        try:
            count = end.recv_into(window[got : got + CHUNK_BYTES])
        except TimeoutError:
            _check(heard, deadline, stall)
            continue
        except OSError as error:
            raise CarrierFailed(f"The connection of the bulk data broke: {error.strerror or error}.") from error
        if not count:
            raise CarrierFailed("The other end closed the connection of the bulk data.")
        got += count
        if checksum is not None and (got == len(window) or got - summed >= BLOCK_BYTES):
            end_of_blocks = got if got == len(window) else got - got % BLOCK_BYTES
            checksum.add(window[summed:end_of_blocks])
            summed = end_of_blocks
        heard = time.monotonic()
        _check(heard, deadline, None)


def receive(end: socket.socket, nbytes: int, deadline: float | None, stall: float | None) -> bytes:
    """Return so many bytes; as `receive_into`."""
    raw = bytearray(nbytes)
    receive_into(end, memoryview(raw), deadline, stall)
    return bytes(raw)


def send(
    end: socket.socket,
    data: memoryview | bytes,
    deadline: float | None,
    stall: float | None,
    checksum: Checksum | None = None,
) -> None:
    """Send all bytes; as `receive_into`."""
    view, sent, end_of_chunk, heard = memoryview(data), 0, 0, time.monotonic()
    while sent < len(view):
        if sent == end_of_chunk:
            end_of_chunk = min(sent + CHUNK_BYTES, len(view))
            if checksum is not None:
                checksum.add(view[sent:end_of_chunk])
        try:
            sent += end.send(view[sent:end_of_chunk])
        except TimeoutError:
            _check(heard, deadline, stall)
            continue
        except OSError as error:
            raise CarrierFailed(f"The connection of the bulk data broke: {error.strerror or error}.") from error
        heard = time.monotonic()
        _check(heard, deadline, None)


def _check(heard: float, deadline: float | None, stall: float | None) -> None:
    now = time.monotonic()
    if deadline is not None and now >= deadline:
        raise DeadlineExceeded("The call's deadline passed while its arrays were under way. Raise timeout.")
    if stall is not None and now - heard >= stall:
        raise Stalled(f"Nothing went over the connection of the bulk data for {stall:.0f} s.")
