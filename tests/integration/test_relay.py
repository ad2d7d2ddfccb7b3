"""A relay that does one thing at a time, as the one of WSL2: nothing comes to a standstill, results are right."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import sklearn_wsl_gpu
from sklearn_wsl_gpu import offload, sessions
from sklearn_wsl_gpu.carriers import shared, stream
from tests.integration.relay import Relay, relayed
from tests.integration.tools import standalone_worker, until

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="a worker runs on Linux"),
    pytest.mark.timeout(180),
]


class _Ways:
    """A worker, and a relay to it; what is opened with `settings` goes through the relay."""

    def __init__(self, relay: Relay, endpoint: str, keys: Path, process: Any) -> None:
        self.relay = relay
        self.port = int(endpoint.rpartition(":")[2])
        self.settings: dict[str, Any] = {
            "endpoint": f"tcp://127.0.0.2:{self.port}",
            "keys": str(keys),
            "carrier": "stream",
        }
        self.process = process


@pytest.fixture
def ways(tmp_path: Path) -> Iterator[_Ways]:
    keys = tmp_path / "keys"
    with standalone_worker(keys, "--engine", "cpu") as (endpoint, process), relayed(process.pid) as relay:
        ways = _Ways(relay, endpoint, keys, process)
        until(lambda: ways.port in relay._listeners)
        yield ways
        sklearn_wsl_gpu.shutdown()


_MUCH = 8 * 2**20


def _echo(server: socket.socket) -> None:
    """Send back what comes, in pieces that are larger than the buffers."""
    with contextlib.suppress(OSError), server.accept()[0] as end:
        while raw := end.recv(2**20, socket.MSG_WAITALL):
            end.sendall(raw)


def _both_ways_at_once(address: str, port: int) -> int:
    """Send much while another thread takes what comes back; return how much that is until nothing comes any more."""

    def send() -> None:
        with contextlib.suppress(OSError):
            end.sendall(bytes(_MUCH))

    with socket.create_connection((address, port)) as end:
        thread = threading.Thread(target=send)
        thread.start()
        end.settimeout(2.0)
        got = 0
        with contextlib.suppress(TimeoutError):
            while got < _MUCH:
                got += len(end.recv(2**20))
        end.shutdown(socket.SHUT_RDWR)
        thread.join()
    return got


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"], ids=["without a relay", "through the relay"])
def test_much_that_goes_both_ways_at_once_comes_to_a_standstill_in_the_relay_only(address: str) -> None:
    with socket.socket() as server:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            server.setsockopt(socket.SOL_SOCKET, option, 64 * 1024)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        relay = Relay("127.0.0.2", "127.0.0.1")
        relay.open(port)
        thread = threading.Thread(target=_echo, args=(server,))
        thread.start()
        got = _both_ways_at_once(address, port)
        relay.close()
        thread.join()

    assert (got == _MUCH) == (address == "127.0.0.1")


def test_through_the_relay_an_array_goes_there_and_back(ways: _Ways) -> None:
    X = np.random.default_rng(0).normal(size=(100_000, 16))
    expected = StandardScaler().fit_transform(X)
    with offload(fallback="raise", **ways.settings) as session:
        found = StandardScaler().fit_transform(X)
    np.testing.assert_array_equal(found, expected)
    assert session.report().offloaded == 1
    # By one port what is said, by the other the arrays; both went through the relay.
    assert set(ways.relay.count) == set(ways.relay._listeners)
    assert len(ways.relay.count) == 2
    assert ways.relay.nbytes > 2 * X.nbytes


def _traffic(seed: int) -> tuple[str, Any]:
    """Do some call on some data; return what it gave."""
    rng = np.random.default_rng(seed)
    rows = int(rng.choice([1, 30, 500, 5_000, 60_000]))
    X = rng.normal(size=(rows + 10, int(rng.integers(2, 20))))
    if seed % 3 == 1:
        X = np.asfortranarray(X)
    what = seed % 6
    if what == 0:
        return "scale", StandardScaler().fit_transform(X)
    if what == 1:
        return "pca", PCA(2, svd_solver="covariance_eigh").fit(X).transform(X)
    if what == 2:
        return "line", LinearRegression().fit(X, X[:, 0]).predict(X)
    if what == 3:
        model = MinMaxScaler().fit(X)
        return "chain", model.inverse_transform(model.transform(X))
    if what == 4:
        return "search", GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=2).fit(X, X[:, 0]).best_estimator_.coef_
    return "means", KMeans(3, n_init=1, max_iter=5, random_state=0).fit(X[:5000]).cluster_centers_


def test_a_days_mix_of_traffic_by_several_threads_never_comes_to_a_standstill(ways: _Ways) -> None:
    seeds = [[number + 100 * thread for number in range(12)] for thread in range(4)]
    expected = {seed: _traffic(seed) for row in seeds for seed in row}
    wrong: list[Any] = []
    done: list[int] = []

    def work(row: list[int]) -> None:
        order = list(row)
        random.Random(row[0]).shuffle(order)
        try:
            with offload(fallback="raise", slot_bytes=2**24, slots=(2, 2, 2), **ways.settings) as session:
                for seed in order:
                    name, value = _traffic(seed)
                    if not np.array_equal(value, expected[seed][1]):
                        wrong.append((name, seed))
                    done.append(seed)
                if session.report().local:
                    wrong.append(session.report().calls)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(row,)) for row in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert sorted(done) == sorted(expected)


def test_calls_that_are_cancelled_on_the_way_leave_the_next_ones_right(ways: _Ways) -> None:
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(100_000, 8)) for _ in range(4)]
    expected = [StandardScaler().fit_transform(X) for X in data]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupted = 0
    try:
        with offload(fallback="raise", slot_bytes=2**23, slots=(1, 1, 1), **ways.settings):
            StandardScaler().fit(data[0])
            for attempt in range(12):
                timer = threading.Timer(0.001 + 0.003 * attempt, os.kill, (os.getpid(), signal.SIGINT))
                try:
                    timer.start()  # on a busy machine it may be over at once
                    StandardScaler().fit_transform(data[attempt % 4])
                    timer.join()
                except KeyboardInterrupt:
                    interrupted += 1
                timer.join()
                number = (attempt + 1) % 4
                np.testing.assert_array_equal(StandardScaler().fit_transform(data[number]), expected[number])
    finally:
        signal.signal(signal.SIGINT, before)
    assert interrupted


@pytest.mark.falls_back
@pytest.mark.filterwarnings("ignore::sklearn_wsl_gpu.FallbackWarning")
def test_a_relay_that_is_cut_between_two_calls_costs_at_most_one_of_them(
    ways: _Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As long as for a worker on another kernel, whose process nobody here can see.
    monkeypatch.setattr("sklearn_wsl_gpu.sockets._STOPPED_SECONDS", 1.8)
    X = np.random.default_rng(0).normal(size=(50_000, 8))
    expected = StandardScaler().fit_transform(X)
    with offload(**ways.settings) as session:
        for _ in range(3):
            np.testing.assert_array_equal(StandardScaler().fit_transform(X), expected)
        ways.relay.cut()
        for _ in range(3):
            np.testing.assert_array_equal(StandardScaler().fit_transform(X), expected)
    assert [call.where for call in session.report().calls][-2:] == ["worker", "worker"]
    for one in sessions.live():
        assert one.broken or one.pool.used_bytes == 0


def _one_bit(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 16])


def _a_page(raw: bytes) -> bytes:
    return raw[:-8192] + raw[:8192] if len(raw) > 2 * 8192 else raw


def _once_and_late(change: Callable[[bytes], bytes], seen: list[int]) -> Callable[[bytes], bytes]:
    """Change something of what is relayed after the first megabyte."""

    def changed(raw: bytes) -> bytes:
        seen[0] += len(raw)
        other = raw if seen[0] < 2**20 or seen[1] else change(raw)
        seen[1] += other != raw
        return other

    return changed


@pytest.mark.falls_back
@pytest.mark.parametrize("way", [0, 1], ids=["there", "back"])
@pytest.mark.parametrize(("change", "is_far"), [(_one_bit, True), (_a_page, False)], ids=["one bit", "two pages"])
def test_a_relay_that_changes_what_it_relays_changes_no_result(
    ways: _Ways, way: int, change: Callable[[bytes], bytes], is_far: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_far:
        monkeypatch.setattr(stream, "crosses_network", lambda route: True)
        monkeypatch.setattr(shared, "boot_id", lambda: "another")
    monkeypatch.setattr("tests.integration.relay._BUFFER_BYTES", 64 * 1024)
    X = np.random.default_rng(0).normal(size=(50_000, 8))
    expected = StandardScaler().fit_transform(X)
    with offload(fallback="quiet", **ways.settings) as session:
        np.testing.assert_array_equal(StandardScaler().fit_transform(X), expected)
        [bulk] = ways.relay._listeners.keys() - {ways.port}
        seen = [0, 0]
        ways.relay.change[way][bulk] = _once_and_late(change, seen)
        np.testing.assert_array_equal(StandardScaler().fit_transform(X), expected)
        assert seen[1]
        np.testing.assert_array_equal(StandardScaler().fit_transform(X), expected)

    changed = session.report().calls[1]
    assert changed.where == "local"
    assert changed.reason is not None
    assert "Other bytes have come" in str(changed.reason)
    assert session.report().calls[2].where == "worker"
