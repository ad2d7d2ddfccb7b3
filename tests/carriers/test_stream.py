"""The client's end of streams: which routes it takes, and what it makes of an end that is not what it should be."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.carriers import frames, sockets, stream
from sklearn_wsl_gpu.carriers.base import CarrierFailed, Damaged
from sklearn_wsl_gpu.carriers.checksum import CHECKSUM_BYTES, Checksum
from sklearn_wsl_gpu.carriers.stream import Route, Stream, connect, routes_of
from sklearn_wsl_gpu.errors import DeadlineExceeded, RemoteProtocolError

KEY = bytes(range(32))
REF = SpanRef(0, 2**21, 4096, 1)
HEADER = bytes(64)
ID = "6C0E51E4-4E80-4A06-9CBE-2AB8A8B0D1E1"


class _FakeSocket:
    """Takes note of what is done to it; the form of `socket.socket` on Windows."""

    made: ClassVar[list[_FakeSocket]] = []

    def __init__(self, *kind: Any) -> None:
        self.kind = kind
        self.done: list[tuple[Any, ...]] = []
        self.closed = False
        _FakeSocket.made.append(self)

    def setsockopt(self, *about: Any) -> None:
        self.done.append(("setsockopt", *about))

    def settimeout(self, seconds: float) -> None:
        self.done.append(("settimeout", seconds))

    def connect(self, address: Any) -> None:
        self.done.append(("connect", address))
        if address[0] == "refuses":
            raise ConnectionRefusedError

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the sockets of Windows from Python 3.12 on."""
    names = {
        "socket": _FakeSocket,
        "SOCK_STREAM": 1,
        "AF_HYPERV": 34,
        "HV_PROTOCOL_RAW": 1,
        "HVSOCKET_CONNECT_TIMEOUT": 1,
    }
    _FakeSocket.made.clear()
    monkeypatch.setattr(stream, "socket", SimpleNamespace(**names))


@pytest.mark.usefixtures("windows")
def test_a_socket_of_hyper_v_is_connected_by_the_service_of_its_port_and_does_not_wait_half_a_minute() -> None:
    connect(Route("hyperv", ID, 0x1234ABCD), 2.5)

    [made] = _FakeSocket.made
    assert made.kind == (34, 1, 1)
    assert made.done == [
        ("setsockopt", 1, 1, 2500),
        ("settimeout", 2.5),
        ("connect", (ID, "1234abcd-facb-11e6-bd58-64006a7986d3")),
    ]
    assert not made.closed


@pytest.mark.usefixtures("windows")
def test_a_socket_that_is_refused_is_closed() -> None:
    with pytest.raises(ConnectionRefusedError):
        connect(Route("hyperv", "refuses", 50000), 2.5)
    assert _FakeSocket.made[0].closed


@pytest.mark.usefixtures("windows")
def test_windows_takes_the_route_of_hyper_v_first_and_none_of_vsock() -> None:
    raw = [["tcp", "", 5000], ["vsock", "3", 6000], ["hyperv", ID, 6000]]
    assert routes_of(raw, "127.0.0.1") == [Route("hyperv", ID, 6000), Route("tcp", "127.0.0.1", 5000)]


@pytest.fixture
def vsock() -> Iterator[socket.socket]:
    try:
        end = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    except (AttributeError, OSError) as error:
        pytest.skip(f"this machine has no AF_VSOCK sockets: {error}")
    with end:
        yield end


def test_a_socket_of_vsock_holds_much_and_can_be_cut(vsock: socket.socket) -> None:
    sockets.tune(vsock)

    assert vsock.getsockopt(socket.AF_VSOCK, socket.SO_VM_SOCKETS_BUFFER_SIZE) == 2**20
    assert vsock.gettimeout() == sockets.SLICE_SECONDS
    sockets.hang_up(vsock)
    assert vsock.fileno() == -1


def test_what_this_system_has_no_sockets_for_is_no_route() -> None:
    raw = [["tcp", "", 5000], ["hyperv", ID, 6000], ["smoke", "", 1], ["tcp", "", 0], ["tcp", "10.0.0.7", 7]]
    kinds = [Route("tcp", "host", 5000), Route("tcp", "10.0.0.7", 7)]
    if not hasattr(socket, "AF_HYPERV"):
        assert routes_of(raw, "host") == kinds


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=5), st.lists, max_leaves=10))
def test_routes_that_are_none_are_one_kind_of_error(raw: Any) -> None:
    try:
        routes = routes_of(raw, "host")
    except RemoteProtocolError:
        return
    assert all(isinstance(route, Route) for route in routes)


@pytest.mark.parametrize(
    ("route", "leaves"),
    [
        (Route("tcp", "127.0.0.1", 1), False), (Route("tcp", "127.3.2.1", 1), False), (Route("tcp", "::1", 1), False),
        (Route("tcp", "localhost", 1), False), (Route("vsock", "3", 1), False), (Route("hyperv", ID, 1), False),
        (Route("tcp", "10.0.0.7", 1), True), (Route("tcp", "fe80::1%eth0", 1), True), (Route("tcp", "gpu", 1), True),
    ],
)  # fmt: skip
def test_a_route_that_may_leave_the_machine_is_known(route: Route, leaves: bool) -> None:
    assert stream.crosses_network(route) == leaves


Behave = Callable[[socket.socket], None]


class _Server:
    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.behave: list[Behave] = []
        self.ends: list[socket.socket] = []
        self.over = False
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    @property
    def route(self) -> Route:
        return Route("tcp", "127.0.0.1", self.listener.getsockname()[1])

    def _serve(self) -> None:
        while True:
            end, _ = self.listener.accept()
            self.ends.append(end)
            if self.over:
                return
            behave = self.behave.pop(0)
            try:
                behave(end)
            except OSError:
                continue

    def close(self) -> None:
        self.over = True
        socket.create_connection(self.listener.getsockname()).close()  # Windows does not shut a listener down
        self.thread.join()
        self.listener.close()
        for end in self.ends:
            end.close()


@pytest.fixture
def server() -> Iterator[_Server]:
    server = _Server()
    yield server
    server.close()


def _greet(end: socket.socket) -> None:
    raw = end.recv(frames.GREETING_BYTES, socket.MSG_WAITALL)
    _, nonce = frames.unpack_greeting(raw)
    own = os.urandom(32)
    end.sendall(own + frames.mac(KEY, b"worker", nonce, own))
    assert frames.is_proof(end.recv(32, socket.MSG_WAITALL), KEY, b"client", own, nonce)


def _take(end: socket.socket, nbytes: int, answer: bytes) -> None:
    left = frames.HEAD_BYTES + len(HEADER) + nbytes + CHECKSUM_BYTES
    while left and (raw := end.recv(left)):  # Wine does not wait for all of them
        left -= len(raw)
    end.sendall(answer)


def _there(client: Stream, deadline: float | None = None, nbytes: int = 100) -> None:
    client.there(1, REF, 64, [memoryview(HEADER), memoryview(bytes(nbytes))], deadline)


@pytest.fixture
def client(server: _Server) -> Iterator[Stream]:
    client = Stream(server.route, 1, KEY)
    yield client
    client.close()


def test_an_idle_connection_that_was_cut_is_replaced_unnoticed(server: _Server, client: Stream) -> None:
    def once(end: socket.socket) -> None:
        _greet(end)
        _take(end, 100, frames.pack_answer())
        end.close()

    server.behave += [once, once]
    _there(client)
    server.ends[0].close()
    _there(client)
    assert len(server.ends) == 2


def test_a_new_connection_that_is_cut_is_an_error(server: _Server, client: Stream) -> None:
    def cut(end: socket.socket) -> None:
        _greet(end)
        end.close()

    server.behave += [cut]
    with pytest.raises(CarrierFailed):
        _there(client)


@pytest.mark.parametrize("answer", [b"noise of 16 bytes", b"SKWGDONE\1\0\0\0\xff\xff\xff\xff"])
def test_an_answer_that_is_none_is_one_kind_of_error_and_ends_the_connection(
    server: _Server, client: Stream, answer: bytes
) -> None:
    closed = threading.Event()

    def lie(end: socket.socket) -> None:
        _greet(end)
        _take(end, 100, answer[:16])
        end.settimeout(10)
        try:
            while end.recv(100):
                pass
        except ConnectionError:
            pass
        closed.set()

    server.behave += [lie]
    with pytest.raises(RemoteProtocolError):
        _there(client)
    assert closed.wait(10)


def test_who_answers_without_the_key_gets_no_array(server: _Server, client: Stream) -> None:
    got = []

    def pretend(end: socket.socket) -> None:
        end.recv(frames.GREETING_BYTES, socket.MSG_WAITALL)
        end.sendall(os.urandom(64))
        end.settimeout(10)
        try:
            got.append(end.recv(1000))
        except ConnectionError:
            got.append(b"")
        done.set()

    done = threading.Event()
    server.behave += [pretend]
    with pytest.raises(CarrierFailed, match="does not know this session's key"):
        _there(client)
    assert done.wait(10)
    assert got == [b""]


def test_who_listens_and_says_nothing_is_given_up(
    server: _Server, client: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_CONNECT_SECONDS", 0.3)
    server.behave += [lambda end: None]
    with pytest.raises(CarrierFailed, match="does not answer"):
        _there(client)


def test_an_end_that_stops_is_gone_and_is_not_asked_again(
    server: _Server, client: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def once(end: socket.socket) -> None:
        _greet(end)
        _take(end, 100, frames.pack_answer())

    server.behave += [once]
    _there(client)
    monkeypatch.setattr(sockets, "STALL_SECONDS", 0.3)
    with pytest.raises(sockets.Stalled):
        _there(client)
    assert len(server.ends) == 1


def test_a_connection_that_changes_bytes_on_their_way_there_is_not_used_again(server: _Server, client: Stream) -> None:
    def complain(end: socket.socket) -> None:
        _greet(end)
        _take(end, 100, frames.pack_answer(frames.DAMAGED, "Other bytes have come."))

    server.behave += [complain]
    with pytest.raises(Damaged, match="Other bytes have come"):
        _there(client)
    assert len(server.ends) == 1
    assert not client._idle


@pytest.mark.parametrize("changed", [0, 41, 99], ids=["the first byte", "one within", "the last byte"])
def test_a_connection_that_changes_bytes_on_their_way_back_is_not_used_again(
    server: _Server, client: Stream, changed: int
) -> None:
    sent, checksum = bytearray(os.urandom(100)), Checksum(True)
    checksum.add(memoryview(sent))

    def give(end: socket.socket) -> None:
        _greet(end)
        for change in (0, 1):
            end.recv(frames.HEAD_BYTES, socket.MSG_WAITALL)
            sent[changed] ^= change
            end.sendall(frames.pack_answer() + sent + checksum.digest())

    server.behave += [give]
    window = memoryview(bytearray(100))
    client.back(1, REF, window, None)
    assert window == sent
    with pytest.raises(Damaged, match="Other bytes have come"):
        client.back(1, REF, window, None)
    assert len(server.ends) == 1
    assert not client._idle


@pytest.mark.parametrize("nbytes", [0, 1, 100, sockets.CHUNK_BYTES, 2 * sockets.CHUNK_BYTES + 4321])
def test_what_is_sent_in_parts_is_received_in_others_and_both_ends_come_to_one_checksum(nbytes: int) -> None:
    sent, received = memoryview(os.urandom(nbytes)), memoryview(bytearray(nbytes))
    told, heard = Checksum(True), Checksum(True)
    one, other = socket.socketpair()
    with one, other:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 50_000)
        for end in (one, other):
            end.settimeout(sockets.SLICE_SECONDS)
        thread = threading.Thread(target=sockets.send, args=(one, sent, None, 10.0, told))
        thread.start()
        sockets.receive_into(other, received, None, 10.0, heard)
        thread.join()

    assert received == sent
    assert told.digest() == heard.digest()


def test_a_deadline_ends_a_transfer(server: _Server, client: Stream) -> None:
    server.behave += [_greet]
    with pytest.raises(DeadlineExceeded):
        _there(client, time.monotonic() + 0.5, nbytes=100)


def test_a_port_that_comes_late_is_found(client: Stream, server: _Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    late = Stream(Route("tcp", "127.0.0.1", port), 1, KEY)
    opened: list[socket.socket] = []

    def listen() -> None:
        listener = socket.create_server(("127.0.0.1", port))
        end, _ = listener.accept()
        _greet(end)
        opened.extend([listener, end])

    timer = threading.Timer(0.2, listen)
    timer.start()
    late.open(None, time.monotonic() + 5, threading.Event())  # type: ignore[arg-type]
    timer.join()
    late.close()
    for one in opened:
        one.close()


def test_a_port_that_does_not_come_is_an_error_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    client = Stream(Route("tcp", "127.0.0.1", port), 1, KEY)
    with pytest.raises(CarrierFailed, match="cannot be reached"):
        client.open(None, time.monotonic() + 0.3, threading.Event())  # type: ignore[arg-type]
    client.close()
