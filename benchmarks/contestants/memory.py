"""Memory that both sides map: `multiprocessing.shared_memory` by hand, and a slot in a file with control by HTTP."""

from __future__ import annotations

import contextlib
import itertools
import json
import mmap
import os
from http.server import BaseHTTPRequestHandler
from multiprocessing.shared_memory import SharedMemory as Block
from typing import Any

import numpy as np

from contestants.base import Contestant, work
from contestants.http_server import Client, serve

_SLOT_BYTES = 256 * 2**20


class SharedMemory(Contestant):
    """One block in, one out, kept as long as they are large enough; the result is copied into a fresh array."""

    def start(self) -> None:
        self._pipe = self.spawn(_blocks)
        self._blocks: list[Block] = []
        self._numbers = itertools.count()

    def call(self, mode: str, X: Any) -> np.ndarray:
        if not self._blocks or self._blocks[0].size < X.nbytes:
            self._drop()
            names = [f"{self.mark}{next(self._numbers)}" for _ in range(2)]
            self._blocks = [Block(name, create=True, size=X.nbytes) for name in names]
        inside = np.ndarray(X.shape, X.dtype, self._blocks[0].buf)
        np.copyto(inside, X)
        self._pipe.send((mode, X.shape, X.dtype.str, [block.name for block in self._blocks]))
        shape = self._pipe.recv()
        return np.ndarray(shape, X.dtype, self._blocks[1].buf).copy()

    def _drop(self) -> None:
        for block in self._blocks:
            with contextlib.suppress(BufferError):
                block.close()
            block.unlink()
        self._blocks = []

    def stop(self) -> None:
        self._drop()
        super().stop()


def _blocks(pipe: Any) -> None:
    known: dict[str, Block] = {}
    while True:
        mode, shape, dtype, names = pipe.recv()
        if not set(names) <= known.keys():
            for block in known.values():
                block.close()
            known = {name: Block(name) for name in names}
        X, y = (np.ndarray(shape, dtype, known[name].buf) for name in names)
        if mode == "out":
            work(mode, X, out=y)
        else:
            y = y.reshape(-1)[:1]
            y[:] = work(mode, X)
        pipe.send(y.shape)
        del X, y


class FileSlot(Contestant):
    """A slot of 256 MB in a file on disk, written and read through a mapping; a .npy file for more than that."""

    def start(self) -> None:
        self._slot = f"{self.directory}/slot"
        with open(self._slot, "wb") as file:
            file.truncate(_SLOT_BYTES)
        self._map = _mapping(self._slot)
        self._client = Client(self.spawn(_file_server, self._slot))

    def call(self, mode: str, X: Any) -> np.ndarray:
        about = _write(self._map, f"{self.directory}/in.npy", X)
        answer = self._client.post(json.dumps({"mode": mode, **about}).encode())
        return _read(self._map, json.loads(answer))


def _mapping(path: str) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR)
    try:
        return mmap.mmap(descriptor, _SLOT_BYTES)
    finally:
        os.close(descriptor)


def _write(slot: mmap.mmap, path: str, X: np.ndarray) -> dict[str, Any]:
    if X.nbytes > _SLOT_BYTES:
        np.save(path, X)
        return {"path": path}
    slot[: X.nbytes] = X.tobytes()
    slot.flush()
    return {"shape": X.shape, "dtype": X.dtype.str}


def _read(slot: mmap.mmap, about: dict[str, Any]) -> np.ndarray:
    if "path" in about:
        return np.load(about["path"])
    slot.seek(0)
    dtype, shape = np.dtype(about["dtype"]), about["shape"]
    return np.frombuffer(slot.read(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape).copy()


def _file_server(pipe: Any, path: str) -> None:
    slot = _mapping(path)

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> bytes:
        about = json.loads(body)
        X = _read(slot, about)
        return json.dumps(_write(slot, f"{os.path.dirname(path)}/out.npy", work(about["mode"], X))).encode()

    serve(pipe, answer)
