"""A worker of the older protocol, which answers with files, is understood; one of ours that does so is not."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import (
    EngineError,
    FallbackWarning,
    ProtocolError,
    VersionMismatch,
    offload,
    sessions,
)
from sklearn_wsl_gpu.arrays import check_array_ref, check_inline, is_inline
from sklearn_wsl_gpu.carriers import shared
from sklearn_wsl_gpu.keys import create_keys, read_worker_keys
from sklearn_wsl_gpu.pool import Segment, placing
from sklearn_wsl_gpu.protocol import messages as m
from sklearn_wsl_gpu.protocol.version import FILE_REPLIES, PROTOCOL
from sklearn_wsl_gpu.state import Decoder, Encoder, objects
from tests.integration.tools import run_python

X = np.random.default_rng(0).normal(size=(50_000, 4))

#: Makes the references of a reply: from where the arrays are to be written, and the arrays.
Write = Callable[[Path, list[Any]], list[Any]]

pytestmark = pytest.mark.timeout(90)


def _as_files(directory: Path, arrays: list[Any]) -> list[Any]:
    names = [f"reply_{number}.npy" for number in range(len(arrays))]
    for name, array in zip(names, arrays, strict=True):
        np.save(directory / name, array)
    return names


class OlderWorker(threading.Thread):
    """Speaks one protocol, computes with scikit-learn, and answers with files.

    Parameters
    ----------
    keys : Path
        Directory of its keys.
    protocol : int
        What it speaks; greetings of others are refused.
    write : callable
        How it writes the arrays of a reply.
    elsewhere : Path
        Where it writes if a client offers no directory.
    """

    def __init__(self, keys: Path, protocol: int, write: Write, elsewhere: Path) -> None:
        super().__init__()
        self._protocol, self._write, self.directory = protocol, write, elsewhere
        self.greetings: list[int] = []
        self._segment: Segment | None = None
        self._over = threading.Event()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REP)
        self._socket.curve_server = True
        self._socket.curve_secretkey = read_worker_keys(keys)[0].encode("ascii")
        self._socket.bind("tcp://127.0.0.1:*")
        self.endpoint = self._socket.getsockopt(zmq.LAST_ENDPOINT).decode("ascii").rstrip("\0")

    def run(self) -> None:
        while not self._over.is_set():
            if self._socket.poll(20):
                frames = self._socket.recv_multipart()
                answer, body = self._answer(m.decode(frames[0]), frames[-1])
                self._socket.send_multipart([m.encode(answer), *([m.encode_body(body)] if body else [])])
        self._context.destroy(linger=0)
        if self._segment is not None:
            self._segment.close()

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _answer(self, message: m.Message, raw: bytes) -> tuple[m.Message, m.ResultBody | None]:
        if isinstance(message, m.Hello):
            self.greetings.append(message.protocol)
            if message.protocol != self._protocol:
                return m.Refused("version-mismatch", f"This worker speaks protocol {self._protocol}."), None
            return self._welcome(message), None
        if isinstance(message, m.Call):
            return m.Result(message.request, 0), self._run(message, m.decode_call(raw))
        if isinstance(message, m.Bye):
            return m.Farewell(), None
        return m.Refused("protocol", "This worker does not know that."), None

    def _welcome(self, hello: m.Hello) -> m.Welcome:
        offer = list(hello.offer)
        if self._protocol == FILE_REPLIES:
            self.directory = Path(offer.pop())
        descriptor, _, proof = shared.accept(offer[1][0], 2**40)
        if self._segment is not None:
            self._segment.close()
        self._segment = Segment.attach(descriptor)
        engines = [["cpu", ["StandardScaler"]]]
        ways = [[shared.NAME, proof]]
        return m.Welcome(self._protocol, hello.versions, bytes(16), 1, engines, ways, [], os.getpid(), "", -1)

    def _run(self, call: m.Call, body: m.CallBody) -> m.ResultBody:
        views = [placing.from_inline(check_inline(ref)) for ref in body.refs if is_inline(ref)]
        if call.inputs is not None:
            assert self._segment is not None
            window = np.frombuffer(self._segment.map, np.uint8, call.inputs.nbytes, call.inputs.start)
            views = [placing.view(window.data, 0, check_array_ref(ref, window.nbytes)[0]).copy() for ref in body.refs]
        decoder = Decoder(views)
        model = objects.build_estimator(StandardScaler, decoder.attributes(body.state))
        value = getattr(model, body.method)(*[decoder.decode(node) for node in body.arguments])
        encoder = Encoder()
        known = {name for name, _ in body.state}
        learned = {name: found for name, found in objects.carried_attributes(model).items() if name not in known}
        state = encoder.attributes(learned) if body.method == "fit" else None
        node = ["self"] if value is model else encoder.encode(value)
        refs = self._write(self.directory, encoder.arrays)
        return m.ResultBody(node, state, refs, [], [], [], 0.001, False)


@contextlib.contextmanager
def _worker(tmp_path: Path, protocol: int, write: Write) -> Iterator[tuple[OlderWorker, dict[str, Any]]]:
    keys, elsewhere, pool = tmp_path / "keys", tmp_path / "elsewhere", tmp_path / "pool"
    create_keys(keys)
    elsewhere.mkdir()
    pool.mkdir()
    worker = OlderWorker(keys, protocol, write, elsewhere)
    worker.start()
    try:
        yield worker, {"endpoint": worker.endpoint, "keys": keys, "pool_dir": pool, "slot_bytes": 2**21}
    finally:
        sessions.shutdown()
        worker.stop()
        assert list(pool.iterdir()) == [], "a directory of replies is left"


def test_a_worker_that_answers_with_files_gives_the_results_of_scikit_learn(tmp_path: Path) -> None:
    with _worker(tmp_path, FILE_REPLIES, _as_files) as (worker, settings):
        with offload(fallback="raise", **settings) as session:
            scaler = StandardScaler().fit(X)
            result = scaler.transform(X)
        left = list(worker.directory.iterdir())
        inside = worker.directory.parent

    here = StandardScaler().fit(X)
    assert session.report().offloaded == 2
    assert worker.greetings == [PROTOCOL, FILE_REPLIES]
    assert inside == tmp_path / "pool"
    assert left == []
    np.testing.assert_array_equal(result, here.transform(X))
    for name, value in vars(here).items():
        np.testing.assert_array_equal(getattr(scaler, name), value, strict=isinstance(value, np.ndarray))
    assert result.flags.owndata
    assert session.report().calls[1].bytes_received >= X.nbytes


def _outside(directory: Path, arrays: list[Any]) -> list[Any]:
    return [f"../../elsewhere/{name}" for name in _as_files(directory.parent.parent / "elsewhere", arrays)]


def _absolute(directory: Path, arrays: list[Any]) -> list[Any]:
    return [str(directory / name) for name in _as_files(directory, arrays)]


def _linked(directory: Path, arrays: list[Any]) -> list[Any]:
    elsewhere = directory.parent.parent / "elsewhere"
    names = _as_files(elsewhere, arrays)
    for name in names:
        (directory / name).symlink_to(elsewhere / name)
    return names


def _piped(directory: Path, arrays: list[Any]) -> list[Any]:
    names = [f"reply_{number}.npy" for number in range(len(arrays))]
    for name in names:
        os.mkfifo(directory / name)
    return names


def _too_large(directory: Path, arrays: list[Any]) -> list[Any]:
    names = _as_files(directory, arrays)
    with (directory / names[0]).open("r+b") as file:
        file.truncate(2**36)
    return names


def _of_objects(directory: Path, arrays: list[Any]) -> list[Any]:
    return _as_files(directory, [array.astype(object) for array in arrays])


def _not_there(directory: Path, arrays: list[Any]) -> list[Any]:
    return [f"reply_{number}.npy" for number in range(len(arrays))]


def _too_few(directory: Path, arrays: list[Any]) -> list[Any]:
    return _as_files(directory, arrays)[:1]


def _mixed(directory: Path, arrays: list[Any]) -> list[Any]:
    return [*_as_files(directory, arrays)[:-1], [64, "<f8", [4], "C", True]]


_ATTACKS: dict[str, tuple[Write, str]] = {
    "a file outside the directory": (_outside, "something else than names of files"),
    "an absolute path": (_absolute, "something else than names of files"),
    "a link": (_linked, "cannot be opened"),
    "a named pipe": (_piped, "not a regular file"),
    "a file that is too large": (_too_large, "what a reply may have"),
    "objects": (_of_objects, "holds no array that travels"),
    "no file": (_not_there, "cannot be opened"),
    "a file for one of the arrays only": (_too_few, "malformed|not there|outside"),
    "files and spans mixed": (_mixed, "something else than names of files"),
}


@pytest.mark.falls_back
@pytest.mark.parametrize("what", _ATTACKS)
def test_a_reply_that_is_no_file_of_the_session_is_refused_and_the_call_is_done_here(tmp_path: Path, what: str) -> None:
    write, words = _ATTACKS[what]
    with _worker(tmp_path, FILE_REPLIES, write) as (_, settings):
        with offload(**settings) as session, pytest.warns(FallbackWarning, match=words):
            scaler = StandardScaler().fit(X)
        with offload(fallback="raise", **settings), pytest.raises((ProtocolError, EngineError), match=words):
            StandardScaler().fit(X)

    assert session.report().calls[-1].where == "local"
    np.testing.assert_array_equal(scaler.mean_, StandardScaler().fit(X).mean_)


@pytest.mark.falls_back
def test_a_worker_of_the_current_protocol_that_answers_with_files_is_refused(tmp_path: Path) -> None:
    with _worker(tmp_path, PROTOCOL, _as_files) as (worker, settings):
        with (
            offload(**settings),
            pytest.warns(FallbackWarning, match="answered with files, which is of an older protocol than it speaks"),
        ):
            scaler = StandardScaler().fit(X)
        assert list((tmp_path / "pool").iterdir()) == [], "a directory is made for older workers only"

    assert worker.greetings == [PROTOCOL]
    np.testing.assert_array_equal(scaler.mean_, StandardScaler().fit(X).mean_)


def test_a_worker_of_any_other_protocol_is_refused_in_its_own_words_and_nothing_is_left(tmp_path: Path) -> None:
    with _worker(tmp_path, 3, _as_files) as (worker, settings):
        with (
            offload(fallback="raise", **settings),
            pytest.raises(VersionMismatch, match="This worker speaks protocol 3"),
        ):
            StandardScaler().fit(X)
        assert list((tmp_path / "pool").iterdir()) == []

    assert worker.greetings == [PROTOCOL, FILE_REPLIES]


_KILLED = """
import os, signal, sys
import numpy as np
from sklearn.preprocessing import StandardScaler
import sklearn_wsl_gpu
settings = dict(endpoint={endpoint!r}, keys={keys!r}, pool_dir={pool!r}, slot_bytes=2**21)
with sklearn_wsl_gpu.offload(fallback="raise", **settings):
    StandardScaler().fit(np.eye(3))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_client_leaves_the_next_one_removes(tmp_path: Path) -> None:
    with _worker(tmp_path, FILE_REPLIES, _as_files) as (worker, settings):
        where = {"endpoint": worker.endpoint, "keys": str(settings["keys"]), "pool": str(settings["pool_dir"])}
        assert run_python(_KILLED.format(**where)).returncode == -9
        left = worker.directory
        assert left.exists()

        with offload(fallback="raise", **settings):
            StandardScaler().fit(X)

        assert not left.exists()
        assert worker.directory.exists()


def test_a_forked_child_leaves_the_directory_of_its_parent_alone(tmp_path: Path) -> None:
    with _worker(tmp_path, FILE_REPLIES, _as_files) as (worker, settings), offload(fallback="raise", **settings):
        StandardScaler().fit(X)
        child = os.fork()
        if not child:
            sessions.shutdown()
            os._exit(0)
        os.waitpid(child, 0)

        assert worker.directory.exists()
        StandardScaler().fit(X)
