"""Bad input gets a clear error and nothing lost: endpoints, keys, versions, sizes, and bytes that are no messages."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import (
    AuthenticationError,
    ConfigurationError,
    FallbackWarning,
    PoolSpaceError,
    ProtocolError,
    VersionMismatch,
    WorkerUnavailable,
    offload,
    sessions,
)
from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.carriers import shared
from sklearn_wsl_gpu.keys import create_keys, read_client_keys
from sklearn_wsl_gpu.pool import Geometry, Pool
from sklearn_wsl_gpu.pool.layout import pack_superblock
from sklearn_wsl_gpu.protocol import messages as m
from sklearn_wsl_gpu.protocol.version import PROTOCOL
from sklearn_wsl_gpu.session import Session
from sklearn_wsl_gpu.sockets import Wire
from tests.integration.tools import run_python, standalone_worker

X = np.random.default_rng(0).normal(size=(200, 4))

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    create_keys(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def other_server() -> Iterator[str]:
    """Speak HTTP, to whoever connects."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            with client:
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


@pytest.mark.parametrize("endpoint", ["http://localhost:80", "localhost:5555", "ipc:///tmp/x", "tcp://host", 5])
def test_an_endpoint_of_an_unknown_scheme_is_refused_where_it_is_written(endpoint: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"tcp://HOST:PORT"):
        offload(endpoint=endpoint)


def test_a_port_where_nothing_listens_is_told_at_once(keys: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    begin = time.monotonic()

    with offload(endpoint=f"tcp://127.0.0.1:{port}", keys=keys, fallback="raise"):
        with pytest.raises(WorkerUnavailable, match="Nothing listens"):
            StandardScaler().fit(X)

    assert time.monotonic() - begin < 10


def test_a_port_where_something_else_speaks_is_told(keys: Path, other_server: str) -> None:
    with offload(endpoint=other_server, keys=keys, fallback="raise"):
        with pytest.raises(WorkerUnavailable, match="no worker"):
            StandardScaler().fit(X)


def test_a_zeromq_socket_without_keys_is_told(keys: Path) -> None:
    context = zmq.Context()
    plain = context.socket(zmq.REP)
    port = plain.bind_to_random_port("tcp://127.0.0.1")
    try:
        with offload(endpoint=f"tcp://127.0.0.1:{port}", keys=keys, fallback="raise"):
            with pytest.raises(WorkerUnavailable, match="no worker"):
                StandardScaler().fit(X)
    finally:
        context.destroy(linger=0)


@pytest.mark.falls_back
def test_without_its_worker_a_call_is_done_here(keys: Path, other_server: str) -> None:
    with offload(endpoint=other_server, keys=keys) as session, pytest.warns(FallbackWarning, match="no worker"):
        scaler = StandardScaler().fit(X)

    np.testing.assert_array_equal(scaler.mean_, X.mean(axis=0))
    assert session.report().local == 1


def test_missing_and_open_key_files_are_told(tmp_path: Path, keys: Path) -> None:
    with offload(endpoint="tcp://127.0.0.1:1", keys=tmp_path / "none", fallback="raise"):
        with pytest.raises(ConfigurationError, match="--keys"):
            StandardScaler().fit(X)
    os.chmod(keys / "client.json", 0o644)
    with offload(endpoint="tcp://127.0.0.1:1", keys=keys, fallback="raise"):
        with pytest.raises(ConfigurationError, match="chmod 600"):
            StandardScaler().fit(X)


def test_a_client_that_the_worker_does_not_know_is_refused_and_others_are_served(tmp_path: Path, keys: Path) -> None:
    with standalone_worker(tmp_path / "own") as (endpoint, _):
        with offload(endpoint=endpoint, keys=keys, fallback="raise"), pytest.raises(AuthenticationError):
            StandardScaler().fit(X)
        mixed = tmp_path / "mixed"
        create_keys(mixed)
        own, other = read_client_keys(tmp_path / "own"), read_client_keys(mixed)
        text = (mixed / "client.json").read_text().replace(other.server_public, own.server_public)
        (mixed / "client.json").write_text(text)
        with offload(endpoint=endpoint, keys=mixed, fallback="raise"):
            with pytest.raises(AuthenticationError, match="does not know this client's key"):
                StandardScaler().fit(X)
        with offload(endpoint=endpoint, keys=tmp_path / "own", fallback="raise") as session:
            StandardScaler().fit(X)
        assert session.report().offloaded == 1
        sessions.shutdown()


_OTHER_WORKER = """
import sys
from {module} import {what}
import {module} as module
module.{name} = {value}
sys.argv = ["wsl_worker", "--keys", {keys!r}]
from wsl_worker.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PROTOCOL", "99", "Upgrade sklearn_wsl_gpu on the client's side"),
        ("PROTOCOL", "0", "Upgrade sklearn_wsl_gpu on the worker's side"),
        ("versions", "lambda: {'scikit-learn': '9.9.1'}", "Upgrade scikit-learn on the client's side"),
        ("versions", "lambda: {'scikit-learn': '0.1.2'}", "Upgrade scikit-learn on the worker's side"),
    ],
)
def test_a_worker_of_another_version_is_refused_and_the_side_to_upgrade_is_named(
    tmp_path: Path, name: str, value: str, words: str
) -> None:
    keys = tmp_path / "keys"
    code = _OTHER_WORKER.format(module="wsl_worker.front", what="Front", name=name, value=value, keys=str(keys))
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert worker.stdout is not None
        endpoint = worker.stdout.readline().split('"')[3]
        with offload(endpoint=endpoint, keys=keys, fallback="raise"), pytest.raises(VersionMismatch, match=words):
            StandardScaler().fit(X)
    finally:
        sessions.shutdown()
        worker.terminate()
        worker.communicate(timeout=20)


@pytest.mark.parametrize(
    "settings",
    [{"slot_bytes": 0}, {"slot_bytes": 100}, {"slots": (0, 1, 1)}, {"slots": (1, 1)}, {"slot_bytes": 2**50}],
)
def test_a_pool_of_no_size_or_larger_than_memory_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"slot_bytes|slots"):
        offload(**settings)


_FULL = """
import numpy as np, warnings
from sklearn.preprocessing import StandardScaler
import sklearn_wsl_gpu
X = np.ones((200_000, 10))
with sklearn_wsl_gpu.offload(fallback={fallback!r}, pool_dir={where!r}, slot_bytes=2**23, slots=(1, 1, 1)) as session:
    StandardScaler().fit(X[:10])
    StandardScaler().fit(X)
print([call.reason.code if call.reason else "" for call in session.report().calls])
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may mount a small file system")
@pytest.mark.parametrize("fallback", ["local", "raise"])
def test_a_full_file_system_behind_the_pool_is_an_error_and_never_a_signal(tmp_path: Path, fallback: str) -> None:
    where = tmp_path / "small"
    where.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=28m", "none", str(where)], check=False)
    if mounted.returncode:
        pytest.skip("this system does not let a test mount a file system")
    try:
        (where / "somebody else's").write_bytes(bytes(20 * 2**20))
        result = run_python(_FULL.format(where=str(where), fallback=fallback))
    finally:
        subprocess.run(["umount", str(where)], check=True)

    if fallback == "local":
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip() == "['', 'pool-no-space']"
    else:
        assert result.returncode == 1
        assert PoolSpaceError.__name__ in result.stderr
        assert "pool_dir" in result.stderr


@pytest.mark.parametrize(
    "endpoint",
    ["tcp://example.org:5999", "tcp://eth0:5999", "ipc:///tmp/x", "tcp://127.0.0.1", "tcp://:5999", "nonsense"],
)
def test_an_endpoint_that_is_no_address_is_refused_with_what_to_give(endpoint: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wsl_worker", "--keys", str(tmp_path / "keys"), "--listen", endpoint]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 2
    assert "give tcp://ADDRESS:PORT" in result.stderr


def _garbage() -> list[list[bytes]]:
    token = b"x" * 16
    call = m.encode(m.Call(token, 1, SpanRef(0, 2**21, 4096, 1), None, "normal"))
    return [
        [b""],
        [b"\x00"],
        [b"\xff" * 1000],
        [b"\x91\x00"],
        [os.urandom(500)],
        [call, os.urandom(500)],
        [call, b"", b"", b""],
        [m.encode(m.Cancelled(3))],
        [m.encode(m.Bye(token))],
        [b"\xdd\x7f\xff\xff\xff"],
        [b"\x91" * 100_000],
    ]


@pytest.mark.usefixtures("running_worker")
def test_frames_that_are_no_messages_are_refused_and_the_session_goes_on() -> None:
    with offload(fallback="raise"):
        scaler = StandardScaler().fit(X)
        live = sessions.live()[0]
        for frames in _garbage():
            wire = Wire(live.where.endpoint, live.where.keys, -1, greeted=True)
            wire._socket.send_multipart(frames)
            assert wire._socket.poll(10_000), f"no answer to {frames!r:.80}"
            answer = m.decode(wire._socket.recv_multipart()[0])
            assert isinstance(answer, m.Refused)
            wire.close()
        np.testing.assert_array_equal(scaler.transform(X), StandardScaler().fit(X).transform(X))


@pytest.mark.usefixtures("running_worker")
def test_bytes_that_are_no_zeromq_are_dropped_and_the_session_goes_on() -> None:
    with offload(fallback="raise") as session:
        StandardScaler().fit(X)
        host, port = sessions.live()[0].where.endpoint.removeprefix("tcp://").split(":")
        for _ in range(20):
            with socket.create_connection((host, int(port))) as raw:
                raw.sendall(os.urandom(300))
        StandardScaler().fit(X)

    assert session.report().offloaded == 2


def _call_with(live: Session, inputs: SpanRef | None, outputs: SpanRef | None, body: bytes) -> m.Message:
    wire = Wire(live.where.endpoint, live.where.keys, -1, greeted=True)
    numbers = itertools.count(10_000)
    try:
        call = m.Call(live._welcome.session, next(numbers) + int(time.monotonic() * 1000), inputs, outputs, "normal")
        answer, _ = wire.ask(call, body)
        while isinstance(answer, m.Running):
            answer, _ = wire.ask(m.Wait(call.session, call.request))
        return answer
    finally:
        wire.close()


def _body(refs: list[Any]) -> bytes:
    call = m.CallBody("StandardScaler", "fit", "cpu", 0, 0, [["copy", True]], [["a", 0]], [], refs, [], [], None, -1, 0)
    return m.encode_body(call)


GOOD = [64, "<f8", [4, 2], "C", True]
FORGED: dict[str, tuple[SpanRef | None, list[Any]]] = {
    "a span outside the pool": (SpanRef(0, 2**40, 4096, 1), [GOOD]),
    "a span over the headers": (SpanRef(0, 0, 4096, 1), [GOOD]),
    "a span of another segment": (SpanRef(7, 2**21, 4096, 1), [GOOD]),
    "a span that was never written": (SpanRef(0, 2**21 + 4096 * 50, 4096, 99), [GOOD]),
    "an array without a span": (None, [GOOD]),
    "an array outside its span": (SpanRef(0, 2**21, 4096, 1), [[2**40, "<f8", [4, 2], "C", True]]),
    "an array of objects": (SpanRef(0, 2**21, 4096, 1), [[64, "|O", [4, 2], "C", True]]),
    "an array of negative extent": (SpanRef(0, 2**21, 4096, 1), [[64, "<f8", [-4, 2], "C", True]]),
}


@pytest.mark.parametrize("what", FORGED)
@pytest.mark.usefixtures("running_worker")
def test_a_forged_reference_is_refused_and_the_worker_lives(what: str) -> None:
    inputs, refs = FORGED[what]
    with offload(fallback="raise") as session:
        StandardScaler().fit(X)
        before = session.status()["executor_pid"]

        answer = _call_with(sessions.live()[0], inputs, None, _body(refs))

        assert isinstance(answer, m.Failed)
        assert answer.code in {"stale-reference", "protocol"}
        StandardScaler().fit(X)
        assert session.status()["executor_pid"] == before


@pytest.mark.parametrize(
    "block", [b"\xff" * 64, pack_superblock(1, Geometry(4096, 1, 1, 10_000_000))], ids=["garbage", "too many slots"]
)
@pytest.mark.usefixtures("running_worker")
def test_a_client_that_spoils_its_own_pool_does_not_keep_others_from_the_workers_report(block: bytes) -> None:
    with offload(fallback="raise") as session:
        StandardScaler().fit(X)
        spoiled = Session(sessions.live()[0].where, session.settings)
        try:
            spoiled.pool.segment.map[: len(block)] = block

            pools: Any = sessions.live()[0].status()["pools"]

            # What it said when it came is what counts.
            own = [one.pool.geometry.slots for one in (sessions.live()[0], spoiled)]  # by what memory was free for each
            assert [len(pool[5]) for pool in pools] == own
        finally:
            spoiled.close()


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "GridSearchCV", "StandardScaler.__class__", ""])
@pytest.mark.usefixtures("running_worker")
def test_a_worker_calls_nothing_that_is_not_in_its_table(name: str) -> None:
    estimator, _, method = name.partition(".")
    body = m.encode_body(m.CallBody(estimator, method or "fit", "cpu", 0, 0, [], [], [], [], [], [], None, -1, 0))
    with offload(fallback="raise"):
        StandardScaler().fit(X)
        answer = _call_with(sessions.live()[0], None, None, body)

    assert isinstance(answer, m.Failed)
    assert answer.code == "not-in-table"


@pytest.mark.usefixtures("running_worker")
def test_another_clients_session_is_refused(tmp_path: Path) -> None:
    with offload(fallback="raise"):
        StandardScaler().fit(X)
        live = sessions.live()[0]
        wire = Wire(live.where.endpoint, live.where.keys, -1, greeted=True)
        answer, _ = wire.ask(m.Wait(os.urandom(16), 1))
        wire.close()

    assert isinstance(answer, m.Refused)
    assert answer.code == "unknown-session"


@pytest.mark.usefixtures("running_worker")
def test_memory_that_both_sides_share_is_not_emptied_by_the_worker() -> None:
    with offload(fallback="raise"):
        StandardScaler().fit(X)
        live = sessions.live()[0]
        answer = live._ask(m.Detach(live._welcome.session, 0))

    assert isinstance(answer, m.Refused)
    assert "no segment of number 0 to do that with" in answer.words


@pytest.mark.usefixtures("running_worker")
def test_a_session_that_the_worker_has_forgotten_is_opened_anew() -> None:
    with offload() as session:
        StandardScaler().fit(X)
        live = sessions.live()[0]
        wire = Wire(live.where.endpoint, live.where.keys, -1, greeted=True)
        wire.ask(m.Bye(live._welcome.session))
        wire.close()
        with pytest.raises(ProtocolError, match="no such session"), offload(fallback="raise"):
            StandardScaler().fit(X)
        StandardScaler().fit(X)

    assert session.report().offloaded == 2


def test_a_greeting_with_an_impossible_process_number_leaves_the_worker_serving() -> None:
    with offload(fallback="raise") as session:
        StandardScaler().fit(X)
        live = sessions.live()[0]
        for pid in (2**62, 0, -1, 2**22 + 1):
            pool = Pool(Geometry(slot_bytes=4096, inputs=1, outputs=1, scratch=0))
            versions = [list(pair) for pair in live._welcome.versions]
            offer = [pool.segment.region, [shared.offer(pool.segment)]]
            hello = m.Hello(PROTOCOL, versions, pid, shared.boot_id(), offer)
            wire = Wire(live.where.endpoint, live.where.keys, -1, greeted=False)
            wire.connect(time.monotonic() + 10)
            answer, _ = wire.ask(hello)
            wire.close()
            pool.close()
            StandardScaler().fit(X)

            assert isinstance(answer, m.Welcome), pid
    assert session.report().offloaded == 5
