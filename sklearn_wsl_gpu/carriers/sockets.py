"""Bytes over a stream socket, with an end to every wait. Used on both sides."""

from __future__ import annotations

import contextlib
import socket
import time

from sklearn_wsl_gpu.carriers.base import CarrierFailed
from sklearn_wsl_gpu.errors import DeadlineExceeded

#: In parts of this size: so a wait is never longer than that for one of them, and what has come can be used.
CHUNK_BYTES = 4 * 1024 * 1024
#: No call of the system waits longer: on Windows Ctrl-C is not heard there.
SLICE_SECONDS = 0.2
#: An end that takes or gives no byte for so long is gone.
STALL_SECONDS = 2.0
_BUFFER_BYTES = 4 * 1024 * 1024


def tune(end: socket.socket) -> None:
    """Let a socket send at once, and hold much, as far as its kind knows of such things."""
    end.settimeout(SLICE_SECONDS)
    if end.family in (socket.AF_INET, socket.AF_INET6):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)


def hang_up(end: socket.socket) -> None:
    """Close a connection in the middle of a transfer: the other end gets an error, not the rest."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    end.close()


def receive_into(end: socket.socket, window: memoryview, deadline: float | None, stall: float | None) -> None:
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

    Raises
    ------
    CarrierFailed
        If the other end is gone.
    DeadlineExceeded
        If the deadline passes first.
    """
    got, heard = 0, time.monotonic()
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
        if deadline is not None or stall is not None:
            heard = time.monotonic()
            _check(heard, deadline, None)


def receive(end: socket.socket, nbytes: int, deadline: float | None, stall: float | None) -> bytes:
    """Return so many bytes; as `receive_into`."""
    raw = bytearray(nbytes)
    receive_into(end, memoryview(raw), deadline, stall)
    return bytes(raw)


def send(end: socket.socket, data: memoryview | bytes, deadline: float | None, stall: float | None) -> None:
    """Send all bytes; as `receive_into`."""
    view, sent, heard = memoryview(data), 0, time.monotonic()
    while sent < len(view):
        try:
            sent += end.send(view[sent : sent + CHUNK_BYTES])
        except TimeoutError:
            _check(heard, deadline, stall)
            continue
        except OSError as error:
            raise CarrierFailed(f"The connection of the bulk data broke: {error.strerror or error}.") from error
        if deadline is not None or stall is not None:
            heard = time.monotonic()
            _check(heard, deadline, None)


def _check(heard: float, deadline: float | None, stall: float | None) -> None:
    now = time.monotonic()
    if deadline is not None and now >= deadline:
        raise DeadlineExceeded("The call's deadline passed while its arrays were under way. Raise timeout.")
    if stall is not None and now - heard >= stall:
        raise CarrierFailed(f"Nothing went over the connection of the bulk data for {stall:.0f} s.")
