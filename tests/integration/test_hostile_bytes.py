"""Whatever bytes reach a worker, it refuses what it must not do, and goes on serving."""

from __future__ import annotations

import itertools
import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import ProtocolError, offload, sessions
from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.carriers import shared
from sklearn_wsl_gpu.pool import Geometry, Pool
from sklearn_wsl_gpu.pool.layout import pack_superblock
from sklearn_wsl_gpu.protocol import messages as m
from sklearn_wsl_gpu.protocol.version import PROTOCOL
from sklearn_wsl_gpu.session import Session
from sklearn_wsl_gpu.sockets import Wire

X = np.random.default_rng(0).normal(size=(200, 4))
pytestmark = pytest.mark.timeout(90)


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


def test_a_greeting_of_a_process_that_cannot_be_watched_is_refused_and_the_worker_goes_on_serving() -> None:
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

            # Nothing would ever tell that its memory may be freed.
            assert isinstance(answer, m.Refused), pid
            assert answer.code == "no-carrier"
    assert session.report().offloaded == 5
