"""Bad input gets a clear error and nothing lost: endpoints, keys, versions, sizes, and bytes that are no messages."""

from __future__ import annotations

import contextlib
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
    VersionMismatch,
    WorkerUnavailable,
    offload,
    sessions,
)
from sklearn_wsl_gpu.keys import create_keys, read_client_keys
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


@contextlib.contextmanager
def _small_file_system(tmp_path: Path, mebibytes: int) -> Iterator[Path]:
    where = tmp_path / "small"
    where.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "none", str(where)], check=False)
    if mounted.returncode:
        pytest.skip("this system does not let a test mount a file system")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


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
    with _small_file_system(tmp_path, 28) as where:
        (where / "somebody else's").write_bytes(bytes(20 * 2**20))
        result = run_python(_FULL.format(where=str(where), fallback=fallback))

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


_FULL_BEHIND_A_STREAM = """
import numpy as np
from sklearn.linear_model import LinearRegression
import sklearn_wsl_gpu
random = np.random.default_rng(0)
X, y = random.normal(size=(60_323, 11)), random.normal(size=60_323)
settings = {{"carrier": "stream", "pool_dir": {where!r}, "slot_bytes": 2**21, "prefault": 0}}
with sklearn_wsl_gpu.offload(fallback="quiet", **settings) as session:
    LinearRegression().fit(X[:2000], y[:2000])
    try:
        with open({where!r} + "/somebody else's", "wb", 0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        pass
    LinearRegression().fit(X, y)
print([call.reason.code if call.reason else "" for call in session.report().calls])
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may mount a small file system")
def test_what_lies_between_large_arrays_on_a_full_file_system_is_no_signal_either(tmp_path: Path) -> None:
    with _small_file_system(tmp_path, 40) as where:
        result = run_python(_FULL_BEHIND_A_STREAM.format(where=str(where)))

    assert result.stdout.strip() == "['', 'pool-no-space']", (result.returncode, result.stderr)
