"""Arrays are copied to a device while the rest of them is on its way, and whatever comes of it, results are right.

The device is memory of numpy, which notes what is done with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import offload, sessions
from sklearn_wsl_gpu.carriers import sockets
from sklearn_wsl_gpu.carriers.frames import HEAD_BYTES
from sklearn_wsl_gpu.keys import create_keys, read_worker_keys
from sklearn_wsl_gpu.pool.layout import SPAN_HEADER_BYTES
from tests.integration.tools import until
from wsl_worker.bulk import Bulk
from wsl_worker.fleet import Fleet
from wsl_worker.front import Front
from wsl_worker.scheduler import Scheduler
from wsl_worker.supervisor import Supervisor

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="a worker runs on Linux"),
    pytest.mark.timeout(120),
]

_ENGINE = """
import os, weakref
import numpy as np
from wsl_worker.engines.cpu import CpuEngine
from wsl_worker.engines.staging import Ahead, Ring, flat

PIECE = 2**20

def note(word):
    with open(os.environ["STAGED_LOG"], "a") as log:
        log.write(word + "\\n")

class Device:
    def pinned(self, nbytes):
        return np.zeros(nbytes, np.uint8)

    def start(self, place, source, target, offset):
        target[offset : offset + len(source)] = source
        note("ahead" if len(target) == PIECE else "late")

    def wait(self, place):
        pass

    def empty(self, nbytes):
        memory = np.zeros(nbytes, np.uint8)
        note("made")
        weakref.finalize(memory, note, "freed")
        return memory

    def move(self, source, begin, nbytes, target, offset):
        target[offset : offset + nbytes] = source[begin : begin + nbytes]
        note("given")

    def settle(self):
        pass

class Staged(CpuEngine):
    name = "staged"

    def __init__(self, device="auto"):
        self._ring = Ring(Device(), PIECE)
        self._ahead = Ahead(lambda: self._ring)

    @property
    def ahead(self):
        return self._ahead

    def call(self, model, method, arguments, keywords):
        note("call")
        return super().call(model, method, [self._there(value) for value in arguments], keywords)

    def _there(self, value):
        if not isinstance(value, np.ndarray) or value.nbytes <= PIECE or not value.flags.c_contiguous:
            return value
        memory = np.zeros(value.nbytes, np.uint8)
        self._ahead.fill(self._ring, memory, flat(value))
        return memory.view(value.dtype).reshape(value.shape)
"""

X = np.random.default_rng(0).normal(size=(60_000, 10))
SCALED = StandardScaler().fit_transform(X)
#: Pieces that X fills, behind the header of its span.
PIECES = X.nbytes // 2**20


class Staged(NamedTuple):
    """A worker whose device notes what is done with it; a client is to connect with these settings."""

    front: Front
    log: Path
    settings: dict[str, Any]

    def words(self) -> list[str]:
        """Return what was noted until now."""
        return self.log.read_text().split()

    def has_freed_all(self) -> bool:
        """Tell whether the device holds nothing that was brought there ahead."""
        return self.words().count("made") == self.words().count("freed")


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Staged]:
    (tmp_path / "staged.py").write_text(_ENGINE)
    info = tmp_path / "staged-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: staged\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sklearn_wsl_gpu.engines]\nstaged = staged:Staged\n")
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("STAGED_LOG", str(log))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("wsl_worker.bulk._BLOCK_BYTES", 2**20)
    keys = tmp_path / "keys"
    keys.mkdir(0o700)
    create_keys(keys)
    fleet = Fleet(lambda device: Scheduler(Supervisor("staged", device, 2**20)), ["cpu"])
    front = Front("tcp://127.0.0.1:*", *read_worker_keys(keys), fleet, 2**40, Bulk("127.0.0.1"))
    fleet.start()
    thread = threading.Thread(target=front.serve)
    thread.start()
    yield Staged(front, log, {"carrier": "stream", "engine": "staged", "endpoint": front.endpoint, "keys": str(keys)})
    sessions.shutdown()
    front.stop()
    thread.join()
    front.close()


def _at_half(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> list[bool]:
    """Do something when half of the next large array was sent; return whether that has happened."""
    happened: list[bool] = []
    real, client = sockets.send, threading.current_thread()

    def send(end: Any, data: Any, *limits: Any) -> None:
        if len(data) < 2**20 or happened or threading.current_thread() is not client:
            real(end, data, *limits)
            return
        half = len(data) // 2
        real(end, data[:half], *limits)
        happened.append(True)
        act()
        real(end, data[half:], *limits)

    monkeypatch.setattr(sockets, "send", send)
    return happened


def test_pieces_are_on_the_device_before_the_last_is_sent(staged: Staged, monkeypatch: pytest.MonkeyPatch) -> None:
    with offload(fallback="raise", **staged.settings) as session:
        StandardScaler().fit(X[:100])
        until(staged.has_freed_all)
        staged.log.write_text("")

        def look() -> None:
            until(lambda: staged.words().count("ahead") >= 2)
            assert "call" not in staged.words()

        with monkeypatch.context() as patch:
            happened = _at_half(patch, look)
            np.testing.assert_array_equal(StandardScaler().fit_transform(X), SCALED)
        assert happened
        words = staged.words()
        assert words.count("given") == words.count("ahead") >= PIECES // 2
        until(staged.has_freed_all)
        assert session.report().local == 0


def test_a_sender_that_stops_in_the_middle_leaves_nothing_on_the_device(
    staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So small that the next call gets the very same span.
    small: dict[str, Any] = {"slot_bytes": 2**23, "slots": (1, 1, 0), "pool_limit": 2**24}
    other = X[::-1].copy()
    expected = StandardScaler().fit_transform(other)
    with offload(fallback="raise", **staged.settings, **small):
        StandardScaler().fit(X[:100])

        def stop() -> None:
            until(lambda: "ahead" in staged.words())
            raise KeyboardInterrupt

        estimator = StandardScaler()
        with monkeypatch.context() as patch:
            happened = _at_half(patch, stop)
            with pytest.raises(KeyboardInterrupt):
                estimator.fit_transform(X)
        assert happened
        assert not hasattr(estimator, "mean_")
        until(staged.has_freed_all)
        assert "given" not in staged.words()
        for _ in range(2):
            np.testing.assert_array_equal(StandardScaler().fit_transform(other), expected)


_KILLED = """
import json, os, signal, sys, time
import numpy as np
from sklearn.preprocessing import StandardScaler
import sklearn_wsl_gpu
from sklearn_wsl_gpu.carriers import sockets

real = sockets.send

def send(end, data, *limits):
    if len(data) < 2**20:
        return real(end, data, *limits)
    real(end, data[: len(data) // 2], *limits)
    while "ahead" not in open(os.environ["STAGED_LOG"]).read():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

sockets.send = send
with sklearn_wsl_gpu.offload(fallback="raise", **json.loads(sys.argv[1])):
    StandardScaler().fit(np.ones((60_000, 10)))
"""


def test_a_client_that_is_killed_in_the_middle_leaves_a_worker_that_works(staged: Staged) -> None:
    client = subprocess.run([sys.executable, "-c", _KILLED, json.dumps(staged.settings)], check=False, timeout=60)

    assert client.returncode == -signal.SIGKILL
    until(staged.has_freed_all)
    assert "call" not in staged.words()
    with offload(fallback="raise", **staged.settings):
        np.testing.assert_array_equal(StandardScaler().fit_transform(X), SCALED)


@pytest.mark.falls_back
def test_a_span_that_is_refused_in_the_end_gives_no_result(staged: Staged, monkeypatch: pytest.MonkeyPatch) -> None:
    with offload(fallback="quiet", **staged.settings) as session:
        StandardScaler().fit(X[:100])
        real = sockets.send

        def spoil(end: Any, data: Any, *limits: Any) -> None:
            if len(data) == HEAD_BYTES + SPAN_HEADER_BYTES:
                data = data[:-SPAN_HEADER_BYTES] + bytes(SPAN_HEADER_BYTES)
            real(end, data, *limits)

        staged.log.write_text("")
        with monkeypatch.context() as patch:
            patch.setattr(sockets, "send", spoil)
            np.testing.assert_array_equal(StandardScaler().fit_transform(X), SCALED)
        assert "ahead" in staged.words()
        assert not {"call", "given"} & {*staged.words()}
        until(staged.has_freed_all)
        np.testing.assert_array_equal(StandardScaler().fit_transform(X), SCALED)
        assert "given" in staged.words()
    assert [call.where for call in session.report().calls] == ["worker", "local", "worker"]
