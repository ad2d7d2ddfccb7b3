"""Threads, processes and joblib: exact results, no deadlock, and no socket that two processes share."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sklearn_wsl_gpu import offload, patching, sessions
from sklearn_wsl_gpu.config import active
from sklearn_wsl_gpu.estimators import ROWS
from sklearn_wsl_gpu.gather import gather
from sklearn_wsl_gpu.invocation import Invocation
from sklearn_wsl_gpu.pool.thresholds import Thresholds
from sklearn_wsl_gpu.protocol import messages as m
from sklearn_wsl_gpu.sockets import Wire
from tests.integration.tools import run_python, standalone_worker

X, Y = load_iris(return_X_y=True)

pytestmark = pytest.mark.timeout(120)


@pytest.mark.usefixtures("running_worker")
def test_threads_with_contexts_of_their_own_get_exact_results() -> None:
    data = [np.random.default_rng(seed).normal(size=(300, 5)) for seed in range(6)]
    expected = [StandardScaler().fit(part).transform(part) for part in data]
    wrong: list[int] = []

    def work(number: int) -> None:
        with offload(fallback="raise") as session:
            for _ in range(20):
                if not np.array_equal(StandardScaler().fit(data[number]).transform(data[number]), expected[number]):
                    wrong.append(number)
            if session.report().offloaded != 40:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(data))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert not patching.is_installed()


def test_a_thread_that_is_started_inside_begins_without_offloading() -> None:
    seen: list[Any] = []
    with offload():
        thread = threading.Thread(target=lambda: seen.append(active()))
        thread.start()
        thread.join()

    assert seen == [None]


_CLIENT = """
import numpy as np, sys
from sklearn.preprocessing import StandardScaler
import sklearn_wsl_gpu
seed = int(sys.argv[1])
X = np.random.default_rng(seed).normal(size=(500, 4))
expected = StandardScaler().fit(X).transform(X)
with sklearn_wsl_gpu.offload(fallback="raise") as session:
    for _ in range(30):
        assert np.array_equal(StandardScaler().fit(X).transform(X), expected)
print(session.report().offloaded)
"""


def test_several_client_processes_share_one_worker(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    with standalone_worker(keys) as (endpoint, _):
        environment = {**os.environ, "SKLEARN_WSL_GPU_ENDPOINT": endpoint, "SKLEARN_WSL_GPU_KEYS": str(keys)}
        clients = [
            subprocess.Popen(
                [sys.executable, "-c", _CLIENT, str(seed)], env=environment, stdout=subprocess.PIPE, text=True
            )
            for seed in range(3)
        ]
        outputs = [client.communicate(timeout=100)[0].strip() for client in clients]

    assert outputs == ["60"] * 3


def _score(estimator: Any, data: Any, target: Any) -> float:
    return float(estimator.score(data, target))


@pytest.mark.usefixtures("running_worker")
def test_inner_fits_are_offloaded_in_joblibs_threads() -> None:
    # A score that no worker knows: the fits are not one call.
    search = GridSearchCV(SVC(), {"C": [0.1, 1.0]}, cv=3, n_jobs=2, scoring=_score)
    expected = GridSearchCV(SVC(), {"C": [0.1, 1.0]}, cv=3).fit(X, Y).cv_results_["mean_test_score"]

    with offload(fallback="raise") as session, joblib.parallel_config(backend="threading"):
        search.fit(X, Y)

    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], expected)
    assert session.report().offloaded == 2 * 3 * 2 + 1
    assert session.report().local == 0


_FORK = """
import os, sys, numpy as np
from sklearn.preprocessing import StandardScaler
import sklearn_wsl_gpu
X = np.random.default_rng(0).normal(size=(100_000, 4))
expected = StandardScaler().fit(X).transform(X)
with sklearn_wsl_gpu.offload(fallback="raise") as session:
    kept = StandardScaler().fit(X).transform(X)
    child = os.fork()
    if not child:
        right = np.array_equal(StandardScaler().fit(X).transform(X), expected) and np.array_equal(kept, expected)
        right = right and session.status()["sessions"] == 2
        del kept
        os._exit(0 if right else 1)
    kept[:] = 0
    del kept
    others = [StandardScaler().fit(X).transform(X) for _ in range(3)]
    _, status = os.waitpid(child, 0)
    assert all(np.array_equal(other, expected) for other in others)
    print(os.waitstatus_to_exitcode(status), session.report().local)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_uses_the_worker_by_a_socket_of_its_own() -> None:
    result = run_python(_FORK.replace("    kept[:] = 0\n", ""))

    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "0 0"


_SPAWN = """
import multiprocessing, numpy as np
from sklearn.preprocessing import StandardScaler
import sklearn_wsl_gpu

def work(seed):
    X = np.random.default_rng(seed).normal(size=(50, 3))
    with sklearn_wsl_gpu.offload(fallback="raise") as session:
        StandardScaler().fit(X)
    return session.report().offloaded

if __name__ == "__main__":
    with sklearn_wsl_gpu.offload(fallback="raise"):
        StandardScaler().fit(np.eye(3))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(pool.map(work, [1]))
"""


def test_a_spawned_child_offloads_too(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SPAWN)
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100, check=False)

    assert result.stdout.strip() == "[1]", result.stderr


@pytest.mark.usefixtures("running_worker")
def test_a_repeated_request_never_runs_twice() -> None:
    with offload(fallback="raise") as session:
        StandardScaler().fit(X)
        live = sessions.live()[0]
        assert live.room.ready.wait(20)
        live.pool.thresholds = Thresholds(inline=0)
        row = ROWS["KMeans"]
        assert row.cls is not None
        estimator = KMeans(3, n_init=1, random_state=0)
        gathered = gather(Invocation(row, "fit", row.cls.fit, estimator, (X,), {}), "cpu", 0, 0, live.pool)
        lease = live.pool.lease_input(gathered.nbytes)
        live.pool.put(lease, gathered.refs, gathered.arrays)
        output = live.pool.lease_output(2**20)
        call = m.Call(live._welcome.session, 77_777, lease.ref, output.ref, "normal")
        before = int(str(session.status()["done"]))
        answers = []
        for _ in range(3):
            wire = Wire(live.where.endpoint, live.where.keys, -1, greeted=True)
            answer, body = wire.ask(call, gathered.body)
            while isinstance(answer, m.Running):
                answer, body = wire.ask(m.Wait(call.session, call.request))
            answers.append((answer, body))
            wire.close()
        after = int(str(session.status()["done"]))
        lease.release()
        output.release()

    assert after - before == 1
    assert answers[0] == answers[1] == answers[2]
    assert isinstance(answers[0][0], m.Result)


def test_a_process_that_keeps_results_ends_in_silence() -> None:
    code = """
import numpy as np
from sklearn.preprocessing import StandardScaler
import sklearn_wsl_gpu
X = np.ones((300_000, 4))
with sklearn_wsl_gpu.offload(fallback="raise"):
    kept = [StandardScaler().fit_transform(X) for _ in range(3)]
"""
    result = run_python(code)

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.usefixtures("running_worker")
def test_it_nests_is_entered_again_and_decorates() -> None:
    block = offload(min_elements=1)

    @offload()
    def decorated() -> int:
        StandardScaler().fit(X)
        return 5

    @block
    def again(depth: int) -> None:
        StandardScaler().fit(X)
        if depth:
            again(depth - 1)

    with block as outer, offload(exclude=["KMeans"]) as inner, block:
        StandardScaler().fit(X)
        KMeans(2, n_init=1).fit(X)
        assert decorated() == 5
        again(2)

    assert [call.where for call in inner.report().calls] == ["worker", "local", *["worker"] * 4]
    assert outer.report().offloaded == 5
    assert active() is None
    assert not patching.is_installed()


@pytest.mark.usefixtures("running_worker")
def test_it_decorates_coroutines_and_lives_in_generators() -> None:
    @offload(fallback="raise")
    async def fit() -> bool:
        await asyncio.sleep(0)
        StandardScaler().fit(X)
        return active() is not None

    def steps() -> Iterator[int]:
        with offload(fallback="raise") as session:
            StandardScaler().fit(X)
            yield session.report().offloaded

    assert asyncio.run(fit())
    steps_taken = steps()
    assert next(steps_taken) == 1
    steps_taken.close()
    assert not patching.is_installed()


def test_classes_are_wrapped_until_the_last_of_several_threads_has_left() -> None:
    entered, leave = threading.Event(), threading.Event()
    original = StandardScaler.__dict__["fit"]

    def work() -> None:
        with offload():
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait(30)
    with offload():
        pass
    assert StandardScaler.__dict__["fit"] is not original
    leave.set()
    thread.join()
    assert StandardScaler.__dict__["fit"] is original
