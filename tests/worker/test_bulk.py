"""The worker's end of streams: whatever comes over a connection, it is refused or done, and others are served."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.carriers import frames
from sklearn_wsl_gpu.carriers.base import BACK, THERE, CarrierFailed
from sklearn_wsl_gpu.carriers.checksum import Checksum
from sklearn_wsl_gpu.carriers.frames import Head
from sklearn_wsl_gpu.carriers.stream import Refused, Route, Stream
from sklearn_wsl_gpu.errors import PoolSpaceError, WorkerUnavailable
from sklearn_wsl_gpu.pool import Segment, memory
from sklearn_wsl_gpu.pool.layout import CLIENT, DATA_OFFSET, PAGE, SPAN_HEADER_BYTES, Geometry, pack_span_header
from tests.integration.tools import until
from wsl_worker.account import Account
from wsl_worker.arrivals import Arrival
from wsl_worker.bulk import Bulk

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a worker runs on Linux")

SLOT_BYTES = 4 * 2**20
GEOMETRY = Geometry(SLOT_BYTES, 2, 1, 1)
EPOCH, GENERATION = 77, 5
REF = SpanRef(0, DATA_OFFSET, SLOT_BYTES, GENERATION)
HEADER = pack_span_header(EPOCH, GENERATION, SLOT_BYTES - SPAN_HEADER_BYTES, CLIENT)


def _checksum(zeros: int) -> bytes:
    checksum = Checksum(True)
    checksum.add(memoryview(bytes(zeros)))
    return checksum.digest()


class Worker(NamedTuple):
    bulk: Bulk
    account: Account
    segment: Segment
    route: Route

    def stream(self, session: int = 1, key: bytes | None = None) -> Stream:
        return Stream(self.route, session, key or self.account.key)

    def socket(self, *, greeted: bool = True) -> socket.socket:
        """Return a bare connection, to say over it what no client says."""
        end = socket.create_connection((self.route.host, self.route.port))
        end.settimeout(10)
        if greeted:
            nonce = os.urandom(32)
            end.sendall(frames.pack_greeting(1, nonce))
            raw = end.recv(64, socket.MSG_WAITALL)
            end.sendall(frames.mac(self.account.key, b"client", raw[:32], nonce))
        return end


@pytest.fixture
def worker() -> Iterator[Worker]:
    bulk = Bulk("127.0.0.1")
    account = bulk.open(1, streams=True)
    segment = account.segments[0] = Segment.create(GEOMETRY, epoch=EPOCH)
    port = bulk.routes[0][2]
    assert isinstance(port, int)
    yield Worker(bulk, account, segment, Route("tcp", "127.0.0.1", port))
    bulk.close()
    assert not bulk._threads
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port))


def _there(stream: Stream, data: bytes, request: int = 1, ref: SpanRef = REF, header: bytes = HEADER) -> None:
    stream.there(request, ref, SPAN_HEADER_BYTES, [memoryview(header), memoryview(data)], None)


def _back(stream: Stream, nbytes: int, ref: SpanRef = REF) -> bytes:
    raw = bytearray(nbytes)
    stream.back(1, ref, memoryview(raw), None)
    return bytes(raw)


def _serves(worker: Worker) -> None:
    """See that a client is served as if nothing had happened."""
    stream, data = worker.stream(), os.urandom(100_000)
    try:
        _there(stream, data, request=0)
        assert _back(stream, SPAN_HEADER_BYTES + len(data)) == HEADER + data
    finally:
        stream.close()


def test_what_is_brought_there_comes_back(worker: Worker) -> None:
    stream = worker.stream()
    stream.open(worker.segment, time.monotonic() + 5, threading.Event())
    for size in (0, 1, 4095, 4096, 1_000_003, SLOT_BYTES - SPAN_HEADER_BYTES):
        data = os.urandom(size)
        _there(stream, data)
        assert _back(stream, SPAN_HEADER_BYTES + size) == HEADER + data
    stream.close()


def test_pieces_lie_one_behind_the_other(worker: Worker) -> None:
    stream = worker.stream()
    pieces = [os.urandom(size) for size in (1, 70_000, 0, 3, 1_000_000)]
    stream.there(1, REF, SPAN_HEADER_BYTES, [memoryview(HEADER), *map(memoryview, pieces)], None)
    assert _back(stream, SPAN_HEADER_BYTES + 1_070_004) == HEADER + b"".join(pieces)
    stream.close()


def test_a_part_of_a_span_is_written_and_the_rest_stays(worker: Worker) -> None:
    stream = worker.stream()
    _there(stream, b"a" * 100)
    stream.there(1, REF, SPAN_HEADER_BYTES + 10, [memoryview(HEADER), memoryview(b"bbb")], None)
    assert _back(stream, SPAN_HEADER_BYTES + 20)[SPAN_HEADER_BYTES:] == b"a" * 10 + b"bbb" + b"a" * 7
    stream.close()


@pytest.mark.parametrize(
    ("ref", "offset", "nbytes", "why"),
    [
        (REF._replace(segment=1), 64, 10, "does not have"),
        (REF._replace(start=0), 64, 10, "outside"),
        (REF._replace(start=DATA_OFFSET + 8), 64, 10, "outside"),
        (REF._replace(nbytes=SLOT_BYTES * 5), 64, 10, "outside"),
        (REF._replace(start=2**64 - PAGE, nbytes=PAGE), 64, 10, "outside"),
        (REF._replace(nbytes=2**64 - 1), 64, 10, "outside"),
        (REF._replace(nbytes=8), 0, 8, "outside"),
        (REF, 64, SLOT_BYTES - 63, "outside"),
        (REF, 2**64 - 1, 1, "outside"),
        (REF, 8, 10, "header"),
    ],
)
def test_bytes_outside_of_a_span_are_refused_and_the_connection_goes_on(
    worker: Worker, ref: SpanRef, offset: int, nbytes: int, why: str
) -> None:
    stream = worker.stream()
    _there(stream, b"first")
    before = worker.segment.map[:DATA_OFFSET], worker.segment.map[DATA_OFFSET:]

    with pytest.raises(Refused, match=why):
        stream.there(1, ref, offset, [memoryview(HEADER), memoryview(bytes(nbytes))], None)

    assert (worker.segment.map[:DATA_OFFSET], worker.segment.map[DATA_OFFSET:]) == before
    assert _back(stream, SPAN_HEADER_BYTES + 5) == HEADER + b"first"
    assert len(worker.account._ends) == 1
    stream.close()


@pytest.mark.parametrize(
    "ref",
    [
        REF._replace(generation=GENERATION + 1),
        REF._replace(start=DATA_OFFSET + SLOT_BYTES),
        REF._replace(segment=3),
        REF._replace(nbytes=SPAN_HEADER_BYTES),
    ],
    ids=["another generation", "never written", "no segment", "too short"],
)
def test_a_span_that_is_not_what_is_asked_for_does_not_come_back(worker: Worker, ref: SpanRef) -> None:
    stream = worker.stream()
    _there(stream, b"first")
    with pytest.raises(Refused):
        _back(stream, SPAN_HEADER_BYTES + 5, ref)
    assert _back(stream, SPAN_HEADER_BYTES + 5) == HEADER + b"first"
    stream.close()


def test_who_does_not_know_the_key_is_not_served(worker: Worker) -> None:
    for session, key in [(1, bytes(32)), (2, worker.account.key), (0, worker.account.key)]:
        stream = worker.stream(session, key)
        with pytest.raises(CarrierFailed, match="does not know this session's key"):
            _there(stream, b"data")
        stream.close()
    assert not worker.account._ends
    _serves(worker)


def test_a_proof_that_was_overheard_is_worth_nothing(worker: Worker) -> None:
    nonce = os.urandom(32)
    with worker.socket(greeted=False) as end:
        end.sendall(frames.pack_greeting(1, nonce))
        raw = end.recv(64, socket.MSG_WAITALL)
        proof = frames.mac(worker.account.key, b"client", raw[:32], nonce)
        end.sendall(proof)
        until(lambda: worker.account._ends)
    until(lambda: not worker.account._ends)
    with worker.socket(greeted=False) as end:
        end.sendall(frames.pack_greeting(1, nonce))
        end.recv(64, socket.MSG_WAITALL)
        end.sendall(proof)
        assert end.recv(1) == b""
    with worker.socket(greeted=False) as end:
        end.sendall(frames.pack_greeting(1, nonce))
        raw = end.recv(64, socket.MSG_WAITALL)
        end.sendall(raw[32:])  # the worker's own proof
        assert end.recv(1) == b""
    _serves(worker)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.booleans())
@example(b"", True)
@example(bytes(frames.HEAD_BYTES), True)
@example(b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n" * 5, False)
def test_noise_ends_its_own_connection_only(worker: Worker, raw: bytes, greeted: bool) -> None:
    with worker.socket(greeted=greeted) as end:
        with contextlib.suppress(OSError):  # it may have been cut already
            end.sendall(raw)
            end.shutdown(socket.SHUT_WR)
            while end.recv(65536):
                pass
    _serves(worker)


def test_a_transfer_of_more_than_there_can_be_costs_no_memory(worker: Worker) -> None:
    with worker.socket() as end:
        head = Head(THERE, 1, REF, SPAN_HEADER_BYTES, 2**60)
        end.sendall(frames.pack_head(head) + HEADER)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(64):
            end.sendall(bytes(2**20))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024  # in KiB
    _serves(worker)


def test_strangers_keep_nobody_else_out_for_long(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    strangers = [worker.socket(greeted=False) for _ in range(80)]
    stream = worker.stream()
    stream.open(worker.segment, time.monotonic() + 10, threading.Event())  # after the first ones are sent away
    _there(stream, b"data")
    stream.close()
    for end in strangers:
        end.close()
    _serves(worker)


def test_a_client_that_stops_in_the_middle_leaves_no_header_and_no_thread(worker: Worker) -> None:
    with worker.socket() as end:
        end.sendall(frames.pack_head(Head(THERE, 1, REF, SPAN_HEADER_BYTES, 10_000)) + HEADER + b"x" * 5000)
        until(lambda: worker.account._writing)
    until(lambda: not worker.account._writing)
    stream = worker.stream()
    with pytest.raises(Refused):
        _back(stream, SPAN_HEADER_BYTES)  # the header is written last
    stream.close()
    until(lambda: not worker.account._ends)
    assert worker.account.alone_since <= time.monotonic()


def test_a_client_that_gives_nothing_is_let_go_after_a_while(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsl_worker.bulk._STALL_SECONDS", 0.3)
    with worker.socket() as end:
        end.sendall(frames.pack_head(Head(THERE, 1, REF, SPAN_HEADER_BYTES, 10_000)) + HEADER + b"x" * 5000)
        assert end.recv(1) == b""
    _serves(worker)


def test_a_client_that_takes_nothing_is_let_go_after_a_while(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, data = worker.stream(), os.urandom(SLOT_BYTES - SPAN_HEADER_BYTES)
    _there(stream, data)
    stream.close()
    until(lambda: not worker.account._ends)
    monkeypatch.setattr("wsl_worker.bulk._STALL_SECONDS", 0.3)
    with worker.socket() as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(16):  # more than all buffers hold
            end.sendall(frames.pack_head(Head(BACK, 1, REF, 0, SLOT_BYTES)))
        until(lambda: not worker.account._ends)
    _serves(worker)


def test_nothing_is_brought_there_for_a_request_that_is_over(worker: Worker) -> None:
    stream = worker.stream()
    _there(stream, b"first", request=7)

    assert worker.account.cancel(7)

    with pytest.raises(Refused, match="called or cancelled"):
        _there(stream, b"other", request=7)
    assert _back(stream, SPAN_HEADER_BYTES + 5) == HEADER + b"first"
    _there(stream, b"third", request=8)
    assert _back(stream, SPAN_HEADER_BYTES + 5) == HEADER + b"third"
    stream.close()


@pytest.mark.parametrize("lacking", [100, SPAN_HEADER_BYTES], ids=["the bytes", "their header"])
def test_a_transfer_that_is_refused_for_want_of_memory_leaves_the_connection_for_the_next_one(
    lacking: int, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = frames.pack_head(Head(THERE, 7, REF, SPAN_HEADER_BYTES, 100))
    real = Segment.reserve

    def reserve(segment: Segment, start: int, nbytes: int) -> None:
        if nbytes == lacking:
            raise PoolSpaceError("There is no memory.")
        real(segment, start, nbytes)

    with worker.socket() as end:
        with monkeypatch.context() as context:
            context.setattr(Segment, "reserve", reserve)
            end.sendall(head + HEADER + bytes(100) + _checksum(100))
            outcome, nbytes = frames.unpack_answer(end.recv(frames.ANSWER_BYTES, socket.MSG_WAITALL))
            assert outcome == frames.REFUSED
            assert end.recv(nbytes, socket.MSG_WAITALL) == b"There is no memory."

        end.sendall(head + HEADER + bytes(100) + _checksum(100))
        assert end.recv(frames.ANSWER_BYTES, socket.MSG_WAITALL) == frames.pack_answer()


def test_of_bytes_that_were_changed_on_the_way_nothing_is_taken_for_whole(worker: Worker) -> None:
    told: list[Arrival] = []
    account = worker.bulk._accounts[1] = Account(told.append)
    account.segments[0] = worker.segment
    with worker._replace(account=account).socket() as end:
        head = frames.pack_head(Head(THERE, 7, REF, SPAN_HEADER_BYTES, 100))
        end.sendall(head + HEADER + bytes(99) + b"\1" + _checksum(100))

        outcome, nbytes = frames.unpack_answer(end.recv(frames.ANSWER_BYTES, socket.MSG_WAITALL))
        assert outcome == frames.DAMAGED
        assert b"Other bytes have come" in end.recv(nbytes, socket.MSG_WAITALL)
        assert end.recv(1) == b""
    assert worker.segment.map[DATA_OFFSET : DATA_OFFSET + SPAN_HEADER_BYTES] == bytes(SPAN_HEADER_BYTES)
    assert account.arrivals._known == {}


def test_a_transfer_under_way_is_over_when_its_request_is(worker: Worker) -> None:
    data = memoryview(bytes(SLOT_BYTES - SPAN_HEADER_BYTES))
    with worker.socket() as end, worker.socket() as other:
        end.sendall(frames.pack_head(Head(THERE, 7, REF, SPAN_HEADER_BYTES, len(data))) + HEADER + data[:500_000])
        second = REF._replace(start=DATA_OFFSET + SLOT_BYTES)
        other.sendall(frames.pack_head(Head(THERE, 8, second, SPAN_HEADER_BYTES, 10)) + HEADER)
        until(lambda: len(worker.account._writing) == 2)

        assert worker.account.cancel(7)

        assert list(worker.account._writing.values()) == [8]
        worker.segment.map[DATA_OFFSET : DATA_OFFSET + SLOT_BYTES] = b"\xff" * SLOT_BYTES
        with contextlib.suppress(OSError):
            end.sendall(data[500_000:])
        other.sendall(bytes(10) + _checksum(10))
        assert other.recv(frames.ANSWER_BYTES, socket.MSG_WAITALL) == frames.pack_answer()
    assert worker.segment.map[DATA_OFFSET : DATA_OFFSET + SLOT_BYTES] == b"\xff" * SLOT_BYTES


def test_what_nobody_has_read_yet_does_not_land_after_the_request_is_over(worker: Worker) -> None:
    # As when a client breaks a transfer off, and what it had sent lies in buffers still.
    for request in range(20, 60):
        with worker.socket() as end:
            data = b"stale" * 20_000
            end.sendall(frames.pack_head(Head(THERE, request, REF, SPAN_HEADER_BYTES, len(data))) + HEADER + data)
            assert worker.account.call(request)
            worker.segment.map[DATA_OFFSET : DATA_OFFSET + 200_000] = bytes(200_000)
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_WR)
                while end.recv(4096):
                    pass
        assert worker.segment.map[DATA_OFFSET : DATA_OFFSET + 200_000] == bytes(200_000)


def test_memory_that_runs_out_in_the_middle_is_an_answer(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    reserved, stream = [], worker.stream()
    monkeypatch.setattr("wsl_worker.bulk._BLOCK_BYTES", 2**20)

    def reserve(descriptor: int, offset: int, nbytes: int) -> None:
        reserved.append(nbytes)
        if len(reserved) > 1:
            raise PoolSpaceError("The file system behind the pool is full.")

    monkeypatch.setattr(memory, "reserve", reserve)
    with pytest.raises(Refused, match="is full"):
        _there(stream, bytes(SLOT_BYTES - SPAN_HEADER_BYTES))
    assert len(reserved) == 2
    monkeypatch.undo()
    _there(stream, b"data")
    stream.close()


def test_what_has_come_is_told_before_the_rest_comes_and_taken_back_if_that_does_not(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsl_worker.bulk._BLOCK_BYTES", 2**20)
    told: list[Arrival] = []
    account = worker.bulk._accounts[1] = Account(told.append)
    account.segments[0] = worker.segment
    other = worker._replace(account=account)
    with other.socket() as end:
        end.sendall(frames.pack_head(Head(THERE, 7, REF, SPAN_HEADER_BYTES, 2**21)) + HEADER + bytes(2**20 + 5))
        until(lambda: told == [Arrival(1, REF, SPAN_HEADER_BYTES + 2**20)])
        end.sendall(bytes(2**20 - 5) + _checksum(2**21))
        until(lambda: told[1:] == [Arrival(1, REF, SPAN_HEADER_BYTES + 2**21)])
        assert end.recv(frames.ANSWER_BYTES) == frames.pack_answer()
        assert account.arrivals.take(7, REF) == 1

        end.sendall(frames.pack_head(Head(THERE, 8, REF, SPAN_HEADER_BYTES, 2**21)) + HEADER + bytes(2**20 + 5))
        until(lambda: told[2:] == [Arrival(2, REF, SPAN_HEADER_BYTES + 2**20)])
    until(lambda: told[3:] == [Arrival(2, REF, 0)])
    assert account.arrivals.take(8, REF) == 0
    account.close()


def test_a_session_that_ends_ends_its_connections_and_transfers(worker: Worker) -> None:
    stream, end = worker.stream(), worker.socket()
    _there(stream, b"data")
    end.sendall(frames.pack_head(Head(THERE, 7, REF, SPAN_HEADER_BYTES, 10_000)) + HEADER)
    until(lambda: worker.account._writing)

    worker.bulk.close_account(1)

    assert end.recv(1) == b""
    with pytest.raises(CarrierFailed):
        _there(stream, b"data")
    until(lambda: worker.segment.descriptor == -1)
    until(lambda: len(worker.bulk._threads) == 1)
    stream.close()
    end.close()


def test_many_threads_bring_and_fetch_at_once(worker: Worker) -> None:
    stream = worker.stream()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        ref = SpanRef(0, DATA_OFFSET + number * 2**20, 2**20, 1000 + number)
        header = pack_span_header(EPOCH, ref.generation, ref.nbytes - SPAN_HEADER_BYTES, CLIENT)
        rng = np.random.default_rng(number)
        try:
            for request in range(30):
                data = rng.bytes(int(rng.integers(1, 2**20 - SPAN_HEADER_BYTES)))
                _there(stream, data, number * 1000 + request, ref, header)
                assert _back(stream, SPAN_HEADER_BYTES + len(data), ref) == header + data
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(worker.account._ends) <= 8
    stream.close()


def test_pages_are_made_ready_where_they_are_the_segments(worker: Worker) -> None:
    def nbytes() -> int:
        return os.fstat(worker.segment.descriptor).st_blocks * 512

    before = nbytes()
    for start, size in [(0, PAGE), (DATA_OFFSET + 1, PAGE), (DATA_OFFSET, 0), (DATA_OFFSET, 2**40), (2**62, PAGE)]:
        worker.bulk.warm(worker.segment, start, size)
    worker.bulk.warm(worker.segment, DATA_OFFSET + SLOT_BYTES, SLOT_BYTES)
    until(lambda: nbytes() - before == SLOT_BYTES)
    _serves(worker)


def test_a_port_that_is_taken_is_told(worker: Worker) -> None:
    other = Bulk("127.0.0.1", worker.route.port)
    with pytest.raises(WorkerUnavailable, match="cannot open a port"):
        other.open(1, streams=True)
    other.close()


def test_a_worker_without_descriptors_left_serves_again_when_it_has_some(worker: Worker) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    end = socket.socket()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (end.fileno() + 1, hard))
        end.connect((worker.route.host, worker.route.port))
        time.sleep(3 * 0.05)  # it has tried by then
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    end.close()
    _serves(worker)
