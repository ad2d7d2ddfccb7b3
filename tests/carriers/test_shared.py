"""The carrier for two processes on one kernel: memory is believed to be shared only after both sides proved it."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_wsl_gpu.carriers import shared
from sklearn_wsl_gpu.errors import WorkerUnavailable
from sklearn_wsl_gpu.pool.layout import (
    CHALLENGE_BYTES,
    CHALLENGE_OFFSET,
    DATA_OFFSET,
    LAYOUT_VERSION,
    PAGE,
    Geometry,
    pack_superblock,
)
from sklearn_wsl_gpu.pool.segment import Segment

GEOMETRY = Geometry(PAGE, 1, 1, 0)
BUDGET = 2**30
NONCE = bytes(range(CHALLENGE_BYTES))

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the kernel of a worker, which this shares, is Linux")


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment.create(GEOMETRY)
    yield made
    made.close()


def _contents(nonce: bytes = NONCE, superblock: bytes | None = None) -> bytes:
    """Return what a segment with this nonce looks like."""
    block = pack_superblock(1, GEOMETRY) if superblock is None else superblock
    return (block.ljust(CHALLENGE_OFFSET, b"\0") + nonce).ljust(GEOMETRY.file_bytes, b"\0")


def _memory(contents: bytes) -> int:
    descriptor = os.memfd_create("forged")
    os.pwrite(descriptor, contents, 0)
    return descriptor


def _refuse(raw: list[Any], budget: int = BUDGET) -> WorkerUnavailable:
    with pytest.raises(WorkerUnavailable) as caught:
        shared.accept(raw, budget)
    return caught.value


def test_a_segment_that_is_offered_and_accepted_is_proved_to_be_one_memory(segment: Segment) -> None:
    offered = shared.offer(segment)

    descriptor, _, proof = shared.accept(offered, BUDGET)
    shared.Shared(offered, [proof]).open(segment, 0.0, threading.Event())
    theirs = Segment.attach(descriptor)

    theirs.map[DATA_OFFSET : DATA_OFFSET + 5] = b"hello"
    assert segment.map[DATA_OFFSET : DATA_OFFSET + 5] == b"hello"
    assert (theirs.epoch, theirs.geometry) == (segment.epoch, segment.geometry)
    assert not os.get_inheritable(descriptor)
    theirs.close()


def test_every_offer_has_another_nonce_and_an_older_proof_proves_nothing(segment: Segment) -> None:
    first = shared.offer(segment)
    descriptor, _, old_proof = shared.accept(first, BUDGET)
    os.close(descriptor)

    second = shared.offer(segment)

    assert first[3] != second[3]
    with pytest.raises(WorkerUnavailable):
        shared.Shared(second, [old_proof]).open(segment, 0.0, threading.Event())
    assert _refuse(first).code == "no-carrier"


def test_a_proof_without_a_write_into_the_memory_is_refused(segment: Segment) -> None:
    offered = shared.offer(segment)
    other = Segment.create(GEOMETRY)
    other.client_challenge(offered[3])
    try:
        descriptor, _, proof = shared.accept([*offered[:2], other.descriptor, offered[3]], BUDGET)
        os.close(descriptor)

        with pytest.raises(WorkerUnavailable, match="does not share memory"):
            shared.Shared(offered, [proof]).open(segment, 0.0, threading.Event())
        shared.Shared(offered, [proof]).open(other, 0.0, threading.Event())
    finally:
        other.close()


def test_a_wrong_or_echoed_proof_is_refused(segment: Segment) -> None:
    offered = shared.offer(segment)
    for proof in (b"", offered[3], bytes(CHALLENGE_BYTES)):
        segment.map[CHALLENGE_OFFSET + CHALLENGE_BYTES : CHALLENGE_OFFSET + 2 * CHALLENGE_BYTES] = proof.ljust(
            32, b"\0"
        )
        with pytest.raises(WorkerUnavailable):
            shared.Shared(offered, [proof]).open(segment, 0.0, threading.Event())


def test_an_offer_with_another_nonce_is_refused_and_nothing_is_written(segment: Segment) -> None:
    offered = shared.offer(segment)
    before = segment.map[:]

    error = _refuse([*offered[:3], bytes(CHALLENGE_BYTES)])

    assert error.code == "no-carrier"
    assert segment.map[:] == before


def test_an_offer_that_points_at_a_named_file_of_the_user_is_refused_and_the_file_untouched(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_bytes(_contents())
    before = path.stat()
    descriptor = os.open(path, os.O_RDWR)
    try:
        _refuse([shared.NAME, os.getpid(), descriptor, NONCE])
    finally:
        os.close(descriptor)

    after = path.stat()
    assert path.read_bytes() == _contents()
    assert (after.st_mtime_ns, after.st_size, after.st_ino) == (before.st_mtime_ns, before.st_size, before.st_ino)


def test_an_offer_that_points_at_no_memory_at_all_is_refused(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    here, there = socket.socketpair()
    directory = os.open(tmp_path, os.O_RDONLY)
    null = os.open("/dev/null", os.O_RDWR)
    try:
        for descriptor in (reader, writer, here.fileno(), directory, null, 10**6, 2**62):
            assert _refuse([shared.NAME, os.getpid(), descriptor, NONCE]).code == "no-carrier"
        assert _refuse([shared.NAME, 2**40, 0, NONCE]).code == "no-carrier"
    finally:
        for descriptor in (reader, writer, directory, null):
            os.close(descriptor)
        here.close()
        there.close()


def test_memory_that_is_too_large_for_the_worker_is_refused_with_the_settings_to_change(segment: Segment) -> None:
    offered = shared.offer(segment)

    error = _refuse(offered, GEOMETRY.file_bytes - 1)

    assert error.code == "pool-too-large"
    assert "slots or slot_bytes" in str(error)
    os.close(shared.accept(offered, GEOMETRY.file_bytes)[0])


def _superblock(*fields: Any) -> bytes:
    body = struct.pack("<8sIIQQIII", b"SKWGPOOL", *fields)
    return body + struct.pack("<I", zlib.crc32(body))


def test_memory_that_is_no_segment_or_shorter_than_it_says_is_refused() -> None:
    forged = {
        "empty": b"",
        "no superblock": _contents(superblock=b""),
        "cut": _contents()[:-1],
        "only the challenge": _contents()[: CHALLENGE_OFFSET + CHALLENGE_BYTES],
        "other layout": _contents(superblock=_superblock(LAYOUT_VERSION + 1, DATA_OFFSET, 1, PAGE, 1, 1, 0)),
        "slots of no size": _contents(superblock=_superblock(LAYOUT_VERSION, DATA_OFFSET, 1, 0, 1, 1, 0)),
        "no slots": _contents(superblock=_superblock(LAYOUT_VERSION, DATA_OFFSET, 1, PAGE, 0, 0, 0)),
        "huge slots": _contents(
            superblock=_superblock(LAYOUT_VERSION, DATA_OFFSET, 1, 2**63, 2**32 - 1, 2**32 - 1, 2**32 - 1)
        ),
    }
    for contents in forged.values():
        descriptor = _memory(contents)
        try:
            _refuse([shared.NAME, os.getpid(), descriptor, NONCE])
        finally:
            os.close(descriptor)


ITEMS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=9), st.just(NONCE),
    st.binary(max_size=40), st.lists(st.integers(), max_size=2), st.just(shared.NAME),
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(
        st.lists(ITEMS, max_size=6),
        st.tuples(st.just(shared.NAME), ITEMS, ITEMS, st.just(NONCE)).map(list),
        st.tuples(st.just(shared.NAME), st.just(os.getpid()), ITEMS, ITEMS).map(list),
    )
)
def test_a_malformed_offer_is_refused_with_one_kind_of_error(raw: list[Any]) -> None:
    _refuse(raw)


def test_where_no_worker_runs_no_offer_is_understood(segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "sys", SimpleNamespace(platform="win32"))

    assert "does not know the carrier" in str(_refuse(shared.offer(segment)))


def test_the_running_kernel_has_a_name_that_does_not_change() -> None:
    assert shared.boot_id() == shared.boot_id()
    assert len(shared.boot_id().split()[0]) == 36


_TERMINAL = """
import os, pty, sys
from sklearn_wsl_gpu.carriers import shared
from sklearn_wsl_gpu.errors import WorkerUnavailable
os.setsid()
_, terminal = pty.openpty()
try:
    shared.accept(["shared", os.getpid(), terminal, bytes(32)], 2**30)
except WorkerUnavailable:
    print(open("/proc/self/stat").read().rpartition(")")[2].split()[4])
"""


def test_a_terminal_that_is_offered_does_not_become_the_workers() -> None:
    ran = subprocess.run([sys.executable, "-c", _TERMINAL], capture_output=True, text=True, check=True)

    assert ran.stdout.split() == ["0"], "its end would end the worker"


def test_a_file_that_somebody_holds_by_a_lease_is_refused_and_not_waited_for() -> None:
    fcntl: Any = pytest.importorskip("fcntl")
    with tempfile.TemporaryFile() as file:
        os.pwrite(file.fileno(), _contents(), 0)
        fcntl.fcntl(file.fileno(), fcntl.F_SETLEASE, fcntl.F_WRLCK)
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        try:
            assert _refuse([shared.NAME, os.getpid(), file.fileno(), NONCE]).code == "no-carrier"
        finally:
            fcntl.fcntl(file.fileno(), fcntl.F_SETLEASE, fcntl.F_UNLCK)
            signal.signal(signal.SIGIO, signal.SIG_DFL)
