"""The settings that make a pool or a worker: some tests start their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import FallbackWarning, offload, sessions

X = np.random.default_rng(0).normal(size=(40, 3))


@pytest.mark.usefixtures("running_worker")
def test_slots_and_slot_bytes_make_the_pool() -> None:
    with offload(slots=(2, 1, 1), slot_bytes=64 * 1024) as session:
        Ridge().fit(X, X[:, 0])
        status = session.status()

    assert status["pool_bytes"] == 4 * 64 * 1024
    geometry = sessions.live()[0].pool.geometry
    assert (geometry.slot_bytes, geometry.inputs, geometry.outputs, geometry.scratch) == (65536, 2, 1, 1)


@pytest.mark.usefixtures("running_worker")
def test_what_does_not_fit_in_the_pool_says_which_setting_to_change() -> None:
    with (
        offload(slots=(1, 1, 0), slot_bytes=4096, pool_limit=0, fallback="raise"),
        pytest.raises(MemoryError, match="slot"),
    ):
        StandardScaler().fit(np.ones((1000, 10)))


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no memory file system at /dev/shm")
def test_pool_dir_is_where_the_pool_lies() -> None:
    def files() -> set[str]:
        return {os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if _is_open(number)}

    with offload(pool_dir="/dev/shm", slot_bytes=1 << 20, fallback="raise"):
        StandardScaler().fit(X)
        assert [name for name in files() if name.startswith("/dev/shm/")]
    sessions.shutdown()
    with offload(slot_bytes=1 << 20, fallback="raise"):
        StandardScaler().fit(X)
        assert not [name for name in files() if name.startswith("/dev/shm/")]


def _is_open(number: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")


def test_model_bytes_bounds_what_the_worker_keeps() -> None:
    def sent(**settings: int) -> list[int]:
        model = LinearRegression().fit(X, X)
        with offload(fallback="raise", **settings) as session:
            for _ in range(2):
                model.predict(X)
        return [call.bytes_sent for call in session.report().calls]

    first, second = sent(model_bytes=0)
    assert abs(first - second) < 32  # numbers are written as short as they are
    first, second = sent()
    assert first > second + 100


ENGINE = """
from wsl_worker.engines.cpu import CpuEngine

class Doubling(CpuEngine):
    name = "doubling"

    def call(self, model, method, arguments, keywords):
        value = super().call(model, method, arguments, keywords)
        return 2 * value if method == "transform" else value
"""

PROGRAM = """
import numpy as np
from sklearn.preprocessing import MaxAbsScaler
from sklearn_wsl_gpu import offload, shutdown

X = np.arange(1.0, 9).reshape(4, 2)
with offload(engine="doubling", fallback="raise") as session:
    print(MaxAbsScaler().fit(X).transform(X).max(), {call.engine for call in session.report().calls})
with offload(engine="cpu", fallback="raise") as session:
    print(MaxAbsScaler().fit(X).transform(X).max(), {call.engine for call in session.report().calls})
shutdown()
"""


def _run_with(tmp_path: Path, engine: str, program: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "doubling.py").write_text(engine)
    info = tmp_path / "doubling-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: doubling\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sklearn_wsl_gpu.engines]\ndoubling = doubling:Doubling\n")
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )


CRASHING = """
import os
from wsl_worker.engines.cpu import CpuEngine

class Doubling(CpuEngine):
    name = "doubling"

    def __init__(self, device="auto"):
        os.abort()
"""

TWICE = """
import numpy as np
from sklearn.preprocessing import MaxAbsScaler
from sklearn_wsl_gpu import offload

with offload(engine="doubling", fallback="quiet") as session:
    for _ in range(2):
        MaxAbsScaler().fit(np.eye(3))
for call in session.report().calls:
    print(call.reason.words)
"""


def test_an_engine_that_crashes_when_it_starts_is_told_of_and_not_waited_for_at_every_call(tmp_path: Path) -> None:
    ran = _run_with(tmp_path, CRASHING, TWICE)

    words = "The worker's engine does not start: its process was ended by signal 6 (Aborted) while it started"
    assert [line.partition(",")[0] for line in ran.stdout.splitlines()] == [words] * 2, ran.stderr


def test_an_engine_of_somebody_else_is_used_by_its_name(tmp_path: Path) -> None:
    ran = _run_with(tmp_path, ENGINE, PROGRAM)

    assert (ran.stdout, ran.stderr) == ("2.0 {'doubling'}\n1.0 {'cpu'}\n", "")


@pytest.mark.falls_back
@pytest.mark.usefixtures("running_worker")
def test_timeout_bounds_a_call_and_the_call_is_done_here() -> None:
    with offload():
        StandardScaler().fit(X)
    data = np.random.default_rng(0).normal(size=(5000, 30))
    model = KMeans(60, n_init=1, max_iter=30, tol=0, random_state=0)

    with offload(timeout=0.001) as session, pytest.warns(FallbackWarning, match=r"\[deadline\]"):
        model.fit(data)
    with offload():
        StandardScaler().fit(X)  # by now the worker has confirmed that it does not write any more

    reason = session.report().calls[0].reason
    assert reason is not None
    assert reason.code == "deadline"
    assert model.cluster_centers_.shape == (60, 30)
