"""The worker's end of streams where something is lacking: what was begun is undone, and tried again when it may be."""

from __future__ import annotations

import os
import threading
import time

import pytest

from sklearn_wsl_gpu.carriers.stream import Route, Stream
from sklearn_wsl_gpu.errors import PoolError, WorkerUnavailable
from sklearn_wsl_gpu.pool import Segment, memory
from sklearn_wsl_gpu.pool.layout import DATA_OFFSET, SPAN_HEADER_BYTES, Geometry
from tests.worker.test_bulk import EPOCH, GEOMETRY, HEADER, REF
from wsl_worker.bulk import Bulk

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a worker runs on Linux")


def test_ports_that_cannot_be_opened_as_a_whole_are_opened_when_they_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    bulk = Bulk("127.0.0.1")

    def refuse(value: int) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "eventfd", refuse)
        for _ in range(2):
            with pytest.raises(WorkerUnavailable, match="Too many open files"):
                bulk.open(1, True)
    assert bulk.routes == []

    account = bulk.open(1, True)
    account.segments[0] = Segment.create(GEOMETRY, epoch=EPOCH)
    stream = Stream(Route("tcp", "127.0.0.1", bulk.port), 1, account.key)
    stream.there(1, REF, SPAN_HEADER_BYTES, [memoryview(HEADER), memoryview(b"x" * 100)], time.monotonic() + 10)
    stream.close()
    bulk.close()


def test_memory_that_is_made_ready_is_let_go_at_once_when_its_session_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    segment = Segment.create(Geometry(2**30, 1, 1, 0))
    begun, done = threading.Event(), []

    def reserve(descriptor: int, begin: int, nbytes: int) -> None:
        begun.set()
        done.append(begin)
        time.sleep(0.001)

    monkeypatch.setattr(memory, "reserve", reserve)
    failed: list[str] = []

    def make_ready() -> None:
        try:
            segment.reserve_behind(DATA_OFFSET, 2**30, threading.Event())
        except PoolError as error:
            failed.append(str(error))

    thread = threading.Thread(target=make_ready)
    thread.start()
    assert begun.wait(10)
    segment.close()
    thread.join(10)

    assert failed == ["The session was closed while a call was under way."]
    assert len(done) < 256, "the one that ends waits for a part only"
