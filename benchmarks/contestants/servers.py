"""Servers that take arrays in their own formats: base64 in JSON, gRPC, Arrow Flight."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np

from contestants.base import Contestant, work
from contestants.http_server import Client, serve

_CHUNK = 2**20


class Base64(Contestant):
    """JSON with the array in base64, over HTTP."""

    def start(self) -> None:
        self._client = Client(self.spawn(_base64_server))

    def call(self, mode: str, X: Any) -> np.ndarray:
        return _unpack(self._client.post(_pack(mode, X)))[1]


def _pack(mode: str, X: np.ndarray) -> bytes:
    data = base64.b64encode(np.ascontiguousarray(X)).decode("ascii")
    return json.dumps({"mode": mode, "shape": X.shape, "dtype": X.dtype.str, "data": data}).encode("ascii")


def _unpack(raw: bytes) -> tuple[str, np.ndarray]:
    about = json.loads(raw)
    return about["mode"], np.frombuffer(base64.b64decode(about["data"]), about["dtype"]).reshape(about["shape"])


def _base64_server(pipe: Any) -> None:
    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> bytes:
        mode, X = _unpack(body)
        return _pack(mode, work(mode, X))

    serve(pipe, answer)


class Grpc(Contestant):
    """A stream of bytes each way, in pieces of 1 MiB; no other serialization."""

    def start(self) -> None:
        import grpc

        pipe = self.spawn(_grpc_server)
        self._channel = grpc.insecure_channel(f"127.0.0.1:{pipe.recv()}")
        self._exchange = self._channel.stream_stream("/transport/Exchange")

    def call(self, mode: str, X: Any) -> np.ndarray:
        return _joined(self._exchange(_pieces(mode, X)))[1]

    def stop(self) -> None:
        self._channel.close()
        super().stop()


def _pieces(mode: str, X: np.ndarray) -> Iterator[bytes]:
    yield json.dumps([mode, X.dtype.str, X.shape]).encode()
    raw = np.ascontiguousarray(X).data.cast("B")
    for at in range(0, len(raw), _CHUNK):
        yield bytes(raw[at : at + _CHUNK])


def _joined(pieces: Iterator[bytes]) -> tuple[str, np.ndarray]:
    mode, dtype, shape = json.loads(next(pieces))
    X, at = np.empty(shape, dtype), 0
    raw = X.data.cast("B")
    for piece in pieces:
        raw[at : at + len(piece)] = piece
        at += len(piece)
    return mode, X


def _grpc_server(pipe: Any) -> None:
    import grpc

    def exchange(pieces: Iterator[bytes], context: Any) -> Iterator[bytes]:
        mode, X = _joined(pieces)
        yield from _pieces(mode, work(mode, X))

    handlers = {"Exchange": grpc.stream_stream_rpc_method_handler(exchange)}
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("transport", handlers),))
    pipe.send(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


class Flight(Contestant):
    """`do_exchange` with one record batch each way; the result is a view on what Arrow received."""

    def start(self) -> None:
        from pyarrow import flight

        pipe = self.spawn(_flight_server)
        self._client = flight.connect(f"grpc://127.0.0.1:{pipe.recv()}")

    def call(self, mode: str, X: Any) -> np.ndarray:
        from pyarrow import flight

        batch = _batch(X)
        writer, reader = self._client.do_exchange(flight.FlightDescriptor.for_command(mode))
        with writer:
            writer.begin(batch.schema)
            writer.write_batch(batch)
            writer.done_writing()
            y = _values(reader.read_chunk().data)
        return y.reshape(X.shape) if mode == "out" else y

    def stop(self) -> None:
        self._client.close()
        super().stop()


def _batch(X: np.ndarray) -> Any:
    import pyarrow

    return pyarrow.record_batch([pyarrow.array(np.ascontiguousarray(X).reshape(-1))], names=["X"])


def _values(batch: Any) -> np.ndarray:
    return batch.column(0).to_numpy(zero_copy_only=True)


def _flight_server(pipe: Any) -> None:
    from pyarrow import flight

    class Server(flight.FlightServerBase):
        def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
            mode = descriptor.command.decode()
            batch = _batch(work(mode, _values(reader.read_chunk().data)))
            writer.begin(batch.schema)
            writer.write_batch(batch)

    server = Server("grpc://127.0.0.1:0")
    pipe.send(server.port)
    server.serve()
