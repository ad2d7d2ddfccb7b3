"""Ways to have another process compute on an array: one class each, of the same shape (see `base.Contestant`)."""

from __future__ import annotations

import importlib
import importlib.util
from typing import NamedTuple

from contestants.base import Contestant


class Entry(NamedTuple):
    """Where a contestant is, what it needs beside this project, and what it is called in tables."""

    place: str
    needs: str
    words: str


#: In the order of the table.
CONTESTANTS: dict[str, Entry] = {
    "sklearn_wsl_gpu": Entry("own:Offload", "", "this project"),
    "local": Entry("own:Local", "", "the same work, locally"),
    "shared_memory": Entry("memory:SharedMemory", "", "shared_memory, kept, + Pipe"),
    "unix_socket": Entry("streams:UnixSocket", "", "unix socket"),
    "pipe": Entry("streams:PipeAlone", "", "multiprocessing.Pipe"),
    "process_pool": Entry("tasks:ProcessPool", "", "ProcessPoolExecutor"),
    "joblib": Entry("tasks:Joblib", "joblib", "joblib loky"),
    "ray": Entry("tasks:Ray", "ray", "Ray"),
    "dask": Entry("tasks:Dask", "distributed", "Dask distributed"),
    "flight": Entry("servers:Flight", "pyarrow.flight", "Arrow Flight"),
    "grpc": Entry("servers:Grpc", "grpc", "gRPC stream"),
    "zmq_ipc": Entry("streams:ZmqIpc", "", "ZeroMQ frames, ipc"),
    "zmq_tcp": Entry("streams:ZmqTcp", "", "ZeroMQ frames, tcp"),
    "http": Entry("servers:Base64", "", "HTTP + base64"),
    "file_slot": Entry("memory:FileSlot", "", "HTTP + slot in a file"),
}
#: What others are compared with.
MEASURES: dict[str, Entry] = {
    "echo": Entry("streams:Echo", "", "bare REQ/REP echo of 1 kB"),
    "local_copy": Entry("own:LocalCopy", "", "memcpy + the same work, locally"),
    "tiny": Entry("own:Tiny", "", "predict on 100 rows"),
}


def missing(name: str) -> str | None:
    """Return the module that a contestant needs and that is not installed, or None."""
    needs = CONTESTANTS[name].needs
    if not needs or importlib.util.find_spec(needs.partition(".")[0]) is not None:
        return None
    return needs


def make(name: str) -> Contestant:
    """Import and construct a contestant."""
    module, _, cls = (CONTESTANTS | MEASURES)[name].place.partition(":")
    return getattr(importlib.import_module(f"contestants.{module}"), cls)()
