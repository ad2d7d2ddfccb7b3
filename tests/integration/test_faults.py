"""Whatever dies, hangs or is interrupted: the result is right, or the estimator is untouched."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import DeadlineExceeded, FallbackWarning, WorkerDied, abandoned, offload, sessions
from sklearn_wsl_gpu.keys import create_keys
from sklearn_wsl_gpu.sockets import Wire
from tests.integration.tools import (
    POINTS,
    during_a_job,
    has_ended,
    kill,
    living_children,
    long_fit,
    standalone_worker,
    until,
)

pytestmark = pytest.mark.timeout(120)

#: what → (what is done to which process, further settings, the code that the report must show)
FAULTS: dict[str, tuple[str, int, dict[str, Any], str]] = {
    "the executor is killed": ("executor_pid", signal.SIGKILL, {}, "executor-died"),
    "the executor crashes": ("executor_pid", signal.SIGSEGV, {}, "executor-died"),
    "the executor is stopped and a deadline passes": ("executor_pid", signal.SIGSTOP, {"timeout": 2.0}, "deadline"),
    "the front is killed": ("pid", signal.SIGKILL, {}, "worker-died"),
    "the front is stopped and a deadline passes": ("pid", signal.SIGSTOP, {"timeout": 2.0}, "deadline"),
}


@pytest.fixture(scope="module")
def expected() -> KMeans:
    return long_fit().fit(POINTS)


def _same(one: KMeans, other: KMeans) -> bool:
    return np.array_equal(one.cluster_centers_, other.cluster_centers_) and np.array_equal(one.labels_, other.labels_)


@pytest.mark.falls_back
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.usefixtures("running_worker")
def test_a_fit_that_loses_its_worker_is_done_here_and_the_next_one_is_offloaded(fault: str, expected: KMeans) -> None:
    who, how, settings, code = FAULTS[fault]
    estimator = long_fit()

    with offload() as session:
        StandardScaler().fit(POINTS)  # the deadline is for the fit, and not for the start of a worker
        with offload(**settings), pytest.warns(FallbackWarning) as told:
            with during_a_job(session, lambda status: kill(status[who], how)):
                estimator.fit(POINTS)
        scaler = StandardScaler().fit(POINTS)

    assert len(told) == 1
    assert _same(estimator, expected)
    assert [(call.where, call.reason and call.reason.code) for call in session.report().calls] == [
        ("worker", None),
        ("local", code),
        ("worker", None),
    ]
    np.testing.assert_array_equal(scaler.mean_, StandardScaler().fit(POINTS).mean_)


@pytest.mark.falls_back
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("the executor is killed", WorkerDied),
        ("the front is killed", WorkerDied),
        ("the executor is stopped and a deadline passes", DeadlineExceeded),
    ],
)
@pytest.mark.usefixtures("running_worker")
def test_with_fallback_raise_a_lost_worker_is_an_error_and_the_estimator_is_untouched(
    fault: str, error: type[Exception]
) -> None:
    who, how, settings, code = FAULTS[fault]
    estimator = long_fit()
    before = dict(vars(estimator))

    with offload(fallback="raise") as session:
        StandardScaler().fit(POINTS)  # the deadline is for the fit, and not for the start of a worker
        with offload(fallback="raise", **settings), pytest.raises(error) as raised:
            with during_a_job(session, lambda status: kill(status[who], how)):
                estimator.fit(POINTS)
        StandardScaler().fit(POINTS)

    assert raised.value.code == code  # type: ignore[attr-defined]
    assert vars(estimator) == before


@pytest.mark.falls_back
@pytest.mark.parametrize("who", ["executor_pid", "pid"])
@pytest.mark.usefixtures("running_worker")
def test_a_worker_that_dies_between_two_calls_costs_at_most_one_of_them(who: str) -> None:
    with offload() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        scaler = StandardScaler().fit(POINTS)
        victim = int(str(session.status()[who]))
        kill(victim)
        until(lambda: has_ended(victim))
        results = [scaler.transform(POINTS[:100]) for _ in range(3)]

    for result in results:
        np.testing.assert_array_equal(result, StandardScaler().fit(POINTS).transform(POINTS[:100]))
    assert [call.where for call in session.report().calls][-2:] == ["worker", "worker"]


@pytest.mark.falls_back
@pytest.mark.usefixtures("running_worker")
def test_an_abandoned_call_gives_its_memory_back_once_the_worker_has_confirmed() -> None:
    with offload(timeout=0.5) as session, warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        long_fit().fit(POINTS)
        assert session.report().local == 1
    with offload() as session:
        StandardScaler().fit(POINTS)
        assert session.status()["pool_used_bytes"] == 0


@pytest.mark.falls_back
@pytest.mark.usefixtures("running_worker")
def test_an_abandoned_call_keeps_its_memory_when_the_next_call_is_interrupted_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*about: Any) -> Any:
        raise KeyboardInterrupt

    with offload():
        StandardScaler().fit(POINTS)
    with offload(timeout=0.5) as session, warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        long_fit().fit(POINTS)
        held = sessions.obtain(session.settings)
        used = held.pool.used_bytes
        assert used >= POINTS.nbytes
        with monkeypatch.context() as patch:
            patch.setattr(Wire, "ask", interrupted)
            with pytest.raises(KeyboardInterrupt):
                StandardScaler().fit(POINTS)
        assert held.pool.used_bytes == used, "nobody has said that the worker writes no more"
    with offload() as session:
        StandardScaler().fit(POINTS)
        assert session.status()["pool_used_bytes"] == 0


_LONG = """
import sys, numpy as np
sys.path.insert(0, {root!r})
from tests.integration.tools import POINTS, long_fit
import sklearn_wsl_gpu
from sklearn.preprocessing import StandardScaler
estimator = long_fit().set_params(n_init=60)
with sklearn_wsl_gpu.offload({arguments}) as session:
    StandardScaler().fit(POINTS)
    status = session.status()
    print(status["pid"], status["executor_pid"], flush=True)
    try:
        estimator.fit(POINTS)
    except KeyboardInterrupt:
        print("interrupted", sorted(set(vars(estimator)) - set(estimator.get_params())), flush=True)
        StandardScaler().fit(POINTS)
        print(session.report().calls[-1].where, session.status()["pool_used_bytes"], flush=True)
"""
_ROOT = str(Path(__file__).parents[2])


def _client(arguments: str = "") -> tuple[subprocess.Popen[str], int, int]:
    code = _LONG.format(root=_ROOT, arguments=arguments)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    front, executor = map(int, process.stdout.readline().split())
    return process, front, executor


def _busy(number: int) -> None:
    """Wait until a process that was ready has computed for some time."""
    process = psutil.Process(number)
    before = process.cpu_times().user
    until(lambda: process.cpu_times().user > before + 0.5)


def _gone(*numbers: int) -> bool:
    return not any(psutil.pid_exists(number) for number in numbers)


def test_ctrl_c_gives_the_prompt_back_leaves_the_estimator_untouched_and_the_worker_usable() -> None:
    process, front, executor = _client()
    _busy(executor)

    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    first = process.stdout.readline()
    took = time.monotonic() - begin
    second, _ = process.communicate(timeout=60)

    assert first == "interrupted []\n"
    assert took < 10  # a fit of many seconds was not waited for
    assert second == "worker 0\n"
    until(lambda: _gone(front))


def test_nothing_is_left_of_the_embedded_worker_when_its_client_is_killed() -> None:
    process, front, executor = _client()
    _busy(executor)

    process.kill()
    process.communicate()

    until(lambda: _gone(front, executor))


def test_a_worker_goes_on_serving_others_when_a_client_is_killed(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    with standalone_worker(keys) as (endpoint, _):
        with offload(endpoint=endpoint, keys=keys) as session:
            StandardScaler().fit(POINTS)
            process, _, executor = _client(f"endpoint={endpoint!r}, keys={str(keys)!r}")
            assert session.status()["sessions"] == 2
            until(lambda: session.status()["running"])

            process.kill()
            process.communicate()

            until(lambda: session.status()["sessions"] == 1 and not session.status()["running"])
            StandardScaler().fit(POINTS)
        sessions.shutdown()
    until(lambda: _gone(executor))


def test_a_stopped_worker_ends_cleanly_on_sigterm(tmp_path: Path) -> None:
    with standalone_worker(tmp_path / "keys") as (endpoint, process):
        with offload(endpoint=endpoint, keys=tmp_path / "keys") as session:
            StandardScaler().fit(POINTS)
            executor = int(str(session.status()["executor_pid"]))
        sessions.shutdown()
        process.terminate()
        assert process.wait(timeout=20) == 0
    until(lambda: _gone(executor))


@pytest.mark.usefixtures("running_worker")
def test_a_worker_ends_on_request() -> None:
    with offload() as session:
        front = int(str(session.status()["pid"]))
        session.stop_worker()
        until(lambda: has_ended(front))
        StandardScaler().fit(POINTS)

    assert session.report().offloaded == 1


@pytest.mark.falls_back
def test_kills_at_random_moments_never_give_a_wrong_result() -> None:
    rng = random.Random(0)
    data = [np.random.default_rng(seed).normal(size=(2000, 8)) for seed in range(4)]
    right = [(StandardScaler().fit(X).transform(X), KMeans(3, n_init=2, random_state=0).fit(X).labels_) for X in data]
    wrong, done, stop = [], [0], threading.Event()

    def work(seed: int) -> None:
        mine = random.Random(seed)
        with offload(fallback="quiet"):  # filters of warnings are shared by threads
            while not stop.is_set():
                number = mine.randrange(len(data))
                X, (scaled, labels) = data[number], right[number]
                got = StandardScaler().fit(X).transform(X), KMeans(3, n_init=2, random_state=0).fit(X).labels_
                if not (np.array_equal(got[0], scaled) and np.array_equal(got[1], labels)):
                    wrong.append(number)
                done[0] += 1

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    kills = 0
    while kills < 8:
        time.sleep(rng.uniform(0.2, 1.5))
        own = living_children()
        if own:
            kill(rng.choice(own).pid)
            kills += 1
    stop.set()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert done[0] > 0


@pytest.mark.falls_back
def test_a_deadline_that_passes_before_the_handshake_says_nothing_of_the_worker_or_its_keys(tmp_path: Path) -> None:
    create_keys(tmp_path / "keys")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with offload(endpoint=endpoint, keys=str(tmp_path / "keys"), timeout=0.2, fallback="quiet") as session:
            for _ in range(2):
                StandardScaler().fit(POINTS)

    assert [call.reason.code for call in session.report().calls if call.reason] == ["deadline", "deadline"]


@pytest.mark.falls_back
def test_a_call_that_waits_for_the_spans_of_one_that_was_given_up_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abandoned, "_SETTLE_SECONDS", 0.3)  # the executor takes longer than that to end
    settings: dict[str, Any] = {"slots": (1, 1, 0), "slot_bytes": 2**26, "pool_limit": 0}
    X = np.random.default_rng(0).normal(size=(3000, 1200))
    with offload(fallback="raise", **settings):
        StandardScaler().fit(X)
    with offload(fallback="quiet", timeout=0.7, **settings) as hasty:
        PCA(svd_solver="full").fit(X)
    with offload(fallback="raise", **settings) as session:
        StandardScaler().fit(X)

    assert [call.reason.code for call in hasty.report().calls if call.reason] == ["deadline"]
    assert session.report().offloaded == 1
