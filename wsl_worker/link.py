"""Messages between front and executor: a stream socket of one machine, with descriptors beside the bytes.

Each message is a small list and a body of bytes. The front's end never blocks: an executor that is stopped
in the middle of a message must not stop the front.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import deque
from typing import Any

from sklearn_wsl_gpu.protocol import codec

#: An executor ends with this exit code when its device does not answer any more.
DEVICE_LOST = 70
_SIZES = struct.Struct("<II")
_CHUNK = 256 * 1024


class LinkClosed(Exception):
    """The other end is gone."""


class Link:
    """One end of the connection between front and executor.

    Parameters
    ----------
    end : socket.socket
        A connected stream socket.
    blocking : bool
        Whether `receive` waits; True for the executor, False for the front.
    """

    def __init__(self, end: socket.socket, *, blocking: bool) -> None:
        self._socket = end
        self._blocking = blocking
        end.setblocking(blocking)
        self._incoming = bytearray()
        self._descriptors: deque[int] = deque()
        self._outgoing: deque[tuple[bytes, int | None]] = deque()
        self._emptied = False

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._socket.fileno()

    @property
    def wants_to_write(self) -> bool:
        """Whether bytes wait for the other end to read."""
        return bool(self._outgoing)

    def send(self, head: list[Any], body: bytes | memoryview = b"", descriptor: int | None = None) -> None:
        """Send a message, or queue what the other end does not take yet; takes over the descriptor."""
        packed = codec.pack(head)
        raw = _SIZES.pack(len(packed), len(body)) + packed + bytes(body)
        self._outgoing.append((raw, descriptor))
        self.flush()

    def flush(self) -> None:
        """Write as much of what is queued as the other end takes."""
        try:
            while self._outgoing:
                raw, descriptor = self._outgoing[0]
                if descriptor is None:
                    sent = self._socket.send(raw)
                else:
                    sent = socket.send_fds(self._socket, [raw], [descriptor])
                    os.close(descriptor)
                if sent == len(raw):
                    self._outgoing.popleft()
                else:
                    self._outgoing[0] = (raw[sent:], None)
        except BlockingIOError:
            pass
        except OSError as error:
            raise LinkClosed from error

    def receive(self) -> tuple[list[Any], bytes, int | None] | None:
        """Return head, body and descriptor of the next message; None if it is not all there yet.

        Raises
        ------
        LinkClosed
            If the other end is gone.
        """
        while True:
            message = self._next()
            if message is not None:
                return message
            if self._emptied:
                self._emptied = False
                return None
            try:
                raw, descriptors, _, _ = socket.recv_fds(self._socket, _CHUNK, 8)
            except BlockingIOError:
                return None
            except OSError as error:
                raise LinkClosed from error
            if not raw:
                raise LinkClosed
            self._descriptors.extend(descriptors)
            self._incoming += raw
            # Whether there is more the next poll tells, cheaper than an error does.
            self._emptied = not self._blocking and len(raw) < _CHUNK

    def _next(self) -> tuple[list[Any], bytes, int | None] | None:
        if len(self._incoming) < _SIZES.size:
            return None
        head_size, body_size = _SIZES.unpack_from(self._incoming)
        end = _SIZES.size + head_size + body_size
        if len(self._incoming) < end:
            return None
        middle = _SIZES.size + head_size
        head = codec.unpack(bytes(self._incoming[_SIZES.size : middle]))
        body = bytes(self._incoming[middle:end])
        del self._incoming[:end]
        descriptor = None
        if head[0] == "attach":
            descriptor = self._descriptors.popleft()
            os.set_inheritable(descriptor, False)
        return head, body, descriptor

    def close(self) -> None:
        """Close this end and the descriptors that were not handed on."""
        self._socket.close()
        for descriptor in [*self._descriptors, *[item for _, item in self._outgoing if item is not None]]:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._descriptors.clear()
        self._outgoing.clear()
