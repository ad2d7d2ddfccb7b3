"""The bytes themselves through a pipe, a socket, or ZeroMQ's frames."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

import numpy as np
import zmq

from contestants.base import Contestant, work

_HEAD = struct.Struct("<I")


class PipeAlone(Contestant):
    """Arrays pickled by `multiprocessing.Connection`."""

    def start(self) -> None:
        self._pipe = self.spawn(_pipe)
        self._pipe.send(("touch", np.zeros((1, 1), np.float32)))
        self._pipe.recv()

    def call(self, mode: str, X: Any) -> np.ndarray:
        self._pipe.send((mode, X))
        return self._pipe.recv()


def _pipe(pipe: Any) -> None:
    while True:
        mode, X = pipe.recv()
        pipe.send(work(mode, X))


def _describe(mode: str, X: np.ndarray) -> bytes:
    return json.dumps([mode, X.dtype.str, X.shape]).encode()


class UnixSocket(Contestant):
    """A header and the array's own bytes; received into a fresh array."""

    def start(self) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{self.directory}/socket")
        listener.listen()
        self.spawn(_unix, f"{self.directory}/socket")
        self._socket = listener.accept()[0]
        listener.close()

    def call(self, mode: str, X: Any) -> np.ndarray:
        _send(self._socket, mode, X)
        return _receive(self._socket)[1]


def _send(stream: socket.socket, mode: str, X: np.ndarray) -> None:
    head = _describe(mode, X)
    stream.sendall(_HEAD.pack(len(head)) + head)
    stream.sendall(np.ascontiguousarray(X).data.cast("B"))


def _receive(stream: socket.socket) -> tuple[str, np.ndarray]:
    mode, dtype, shape = json.loads(_exactly(stream, _HEAD.unpack(_exactly(stream, _HEAD.size))[0]))
    X = np.empty(shape, dtype)
    _fill(stream, X.data.cast("B"))
    return mode, X


def _exactly(stream: socket.socket, size: int) -> bytearray:
    raw = bytearray(size)
    _fill(stream, memoryview(raw))
    return raw


def _fill(stream: socket.socket, view: memoryview) -> None:
    while view:
        got = stream.recv_into(view)
        if not got:
            raise EOFError("The other side has closed the socket.")
        view = view[got:]


def _unix(pipe: Any, path: str) -> None:
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(path)
    while True:
        mode, X = _receive(stream)
        _send(stream, mode, work(mode, X))


class _Zmq(Contestant):
    """Two frames, the second without a copy on either side."""

    address = ""

    def start(self) -> None:
        pipe = self.spawn(_zmq, self.address.format(self.directory))
        self._socket = zmq.Context.instance().socket(zmq.REQ)
        self._socket.linger = 0
        self._socket.connect(pipe.recv())

    def call(self, mode: str, X: Any) -> np.ndarray:
        self._socket.send_multipart([_describe(mode, X), np.ascontiguousarray(X)], copy=False)
        return _array(self._socket.recv_multipart(copy=False))[1]

    def stop(self) -> None:
        self._socket.close()
        super().stop()


class ZmqIpc(_Zmq):
    address = "ipc://{}/zmq"


class ZmqTcp(_Zmq):
    address = "tcp://127.0.0.1:*"


def _array(frames: list[Any]) -> tuple[str, np.ndarray]:
    mode, dtype, shape = json.loads(frames[0].bytes)
    return mode, np.frombuffer(frames[1].buffer, dtype).reshape(shape)


def _zmq(pipe: Any, address: str) -> None:
    server = zmq.Context.instance().socket(zmq.REP)
    server.bind(address)
    pipe.send(server.last_endpoint.decode())
    while True:
        mode, X = _array(server.recv_multipart(copy=False))
        y = work(mode, X)
        server.send_multipart([_describe(mode, y), y], copy=False)


class Echo(Contestant):
    """1 kB there and back: the least that a message of ZeroMQ costs."""

    modes = ("echo",)
    verifies = False

    def start(self) -> None:
        pipe = self.spawn(_echo)
        self._socket = zmq.Context.instance().socket(zmq.REQ)
        self._socket.linger = 0
        self._socket.connect(pipe.recv())
        self._message, self._nothing = b"x" * 1000, np.zeros(1)

    def call(self, mode: str, X: Any) -> np.ndarray:
        self._socket.send(self._message)
        self._socket.recv()
        return self._nothing


def _echo(pipe: Any) -> None:
    server = zmq.Context.instance().socket(zmq.REP)
    server.bind("tcp://127.0.0.1:*")
    pipe.send(server.last_endpoint.decode())
    while True:
        server.send(server.recv())
