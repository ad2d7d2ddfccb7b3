"""Calls of different priority that wait for one device: who is served first, and that nobody waits for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sklearn_wsl_gpu.waiting import AGEING
from tests.integration.tools import run_python

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a worker runs on Linux"),
]

#: Notes what it computes, in order; a model of one cluster waits until the test lets it go on.
_ENGINE = """
import os
from wsl_worker.engines.cpu import CpuEngine

class Gated(CpuEngine):
    name = "gated"

    def call(self, model, method, arguments, keywords):
        with open(os.environ["GATED_LOG"], "a") as log:
            log.write(f"{model.n_clusters} ")
        if model.n_clusters == 1:
            open(os.environ["GATED_FIFO"]).close()
        return super().call(model, method, arguments, keywords)
"""

_PROGRAM = """
import json, os, sys, threading, time
import numpy as np
from sklearn.cluster import KMeans
import sklearn_wsl_gpu

X = np.random.default_rng(0).normal(size=(60, 2))

def fit(clusters, priority):
    with sklearn_wsl_gpu.offload(engine="gated", fallback="raise", priority=priority):
        KMeans(clusters, n_init=1, random_state=0).fit(X)

def until(condition):
    while not condition(session.status()):
        time.sleep(0.005)

with sklearn_wsl_gpu.offload(engine="gated", fallback="raise") as session:
    for arrivals in json.loads(sys.argv[1]):
        threads, queued = [threading.Thread(target=fit, args=(1, "low"))], {"high": 0, "normal": 0, "low": 0}
        threads[0].start()
        until(lambda status: status["running"])
        for clusters, priority in arrivals:
            threads.append(threading.Thread(target=fit, args=(clusters, priority)))
            threads[-1].start()
            queued[priority] += 1
            until(lambda status: status["queued_by_priority"] == queued)
        open(os.environ["GATED_FIFO"], "w").close()
        for thread in threads:
            thread.join()
    print(json.dumps(session.status()["queue_waits"]))
sklearn_wsl_gpu.shutdown()
"""


def _order(tmp_path: Path, *rounds: list[tuple[int, str]]) -> tuple[list[int], dict[str, list[float]]]:
    """Return the numbers of the calls as the engine did them, and the worker's histogram of waits."""
    (tmp_path / "gated.py").write_text(_ENGINE)
    info = tmp_path / "gated-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gated\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sklearn_wsl_gpu.engines]\ngated = gated:Gated\n")
    fifo, log = tmp_path / "fifo", tmp_path / "log"
    os.mkfifo(fifo)
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM, json.dumps(rounds)],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "GATED_FIFO": str(fifo), "GATED_LOG": str(log)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return [int(word) for word in log.read_text().split()], json.loads(ran.stdout)


def test_what_waits_for_the_device_is_done_high_before_normal_before_low(tmp_path: Path) -> None:
    arrivals = [(2, "low"), (3, "normal"), (4, "high"), (5, "low"), (6, "high")]
    order, waits = _order(tmp_path, arrivals)

    assert order == [1, 4, 6, 3, 2, 5]
    assert sum(waits["counts"]) == len(order)


def test_a_low_call_is_done_after_a_known_number_of_more_urgent_ones(tmp_path: Path) -> None:
    arrivals = [(2, "low"), *[(number, "high") for number in range(3, 2 * AGEING + 6)]]
    order, _ = _order(tmp_path, arrivals)

    assert order == [1, *range(3, 2 * AGEING + 3), 2, *range(2 * AGEING + 3, 2 * AGEING + 6)]


_JOBLIB = """
import joblib, numpy as np
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC
from sklearn_wsl_gpu import config, offload

def score(estimator, X, y):  # one that no worker knows: the fits are not one call
    frame = config.active()
    return float(frame is not None and frame.settings.priority == "low")

X = np.random.default_rng(0).normal(size=(40, 3))
with offload(fallback="raise", priority="low"), offload(min_elements=1) as inner:
    found = [inner.settings.priority]
    for backend in ("threading", "loky"):
        with joblib.parallel_config(backend=backend):
            found += cross_val_score(SVC(), X, X[:, 0] > 0, cv=2, n_jobs=2, scoring=score).tolist()
print(found)
"""


def test_the_priority_holds_in_blocks_inside_and_in_joblibs_threads_and_processes() -> None:
    result = run_python(_JOBLIB)

    assert result.stdout.strip() == "['low', 1.0, 1.0, 1.0, 1.0]", result.stderr
