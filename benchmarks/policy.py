"""What policy="auto" costs beside what it could: 200 calls with known times, done as the table of costs says.

Two sets. "published": the times of scikit-learn and cuml.accel in published_times.csv (source: `published`), with a
round trip of 0.4 ms and 5 GB/s; no call is made. "measured": calls that are timed here and on a worker, in turn, in
this run, and then done as a program would do them. Without a GPU the worker's engine is a stand-in for one: it
remembers what it has computed, and gives it after the time that this took divided by the speed-up that was published.
All else, the crossing above all, is real.

Ratios are to the sum of the better time of each call, which nobody can know before, and to the better of the policies
that ask nothing: all here, or all there. First with an empty table, then with what was learnt.

On any machine: OMP_NUM_THREADS=1 python benchmarks/policy.py [--json benchmarks/results/policy.json]
On one with a GPU: python benchmarks/policy.py --engine auto --json benchmarks/results/policy_gpu.json
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import sklearn_wsl_gpu
from sklearn_wsl_gpu import measuring, standing
from sklearn_wsl_gpu.costs import Table
from sklearn_wsl_gpu.predictions import Work

STAND_IN = "stand_in"
ENGINE = """
import time
from sklearn_wsl_gpu.published import outlook
from wsl_worker.engines.cpu import CpuEngine

def _key(value):
    if hasattr(value, "dtype"):
        return value.shape, value.dtype.str, value[:: max(len(value) // 100, 1)].tobytes()
    return repr(value)

class StandIn(CpuEngine):
    name = "stand_in"

    def __init__(self, device="auto"):
        self.known = {}

    def call(self, model, method, arguments, keywords):
        begin = time.perf_counter()
        key = (type(model), method, repr(model), *map(_key, arguments), *map(_key, keywords.values()))
        count, result, state, seconds = self.known.get(key, (0, None, None, 0.0))
        if count < 2:  # the first is for warming up
            found = super().call(model, method, arguments, keywords)
            seconds = time.perf_counter() - begin
            self.known[key] = count + 1, None if found is model else found, dict(vars(model)), seconds
            return found
        vars(model).update(state)
        kind = f"{type(model).__name__}.{method}"
        time.sleep(max(seconds / outlook(kind, "cuml", child=False).likely - (time.perf_counter() - begin), 0.0))
        return model if result is None else result
"""
CALLS, PASSES = 200, 3
ROUND_TRIP, BANDWIDTH = 4e-4, 5e9


class Known(NamedTuple):
    """A call: seconds here, seconds there, and what does it by the table and returns where."""

    name: str
    here: float
    there: float
    decide: Callable[[], str]


def ratios(calls: list[Known]) -> dict[str, float]:
    """Do calls in their order; return what they took as they were decided, beside what they could have taken."""
    taken = sum(call.here if call.decide() == "local" else call.there for call in calls)
    here, there = sum(call.here for call in calls), sum(call.there for call in calls)
    best = sum(min(call.here, call.there) for call in calls)
    return {
        "auto / best of each call": taken / best,
        "auto / better policy": taken / min(here, there),
        "all here / best of each call": here / best,
        "all there / best of each call": there / best,
    }


def published(seed: int) -> list[dict[str, float]]:
    """Replay 200 of the published calls."""
    table, known = Table(), []
    with (Path(__file__).parent / "published_times.csv").open() as file:
        for row in csv.DictReader(file):
            nbytes = int(float(row["megabytes"]) * 1e6)
            work = Work(row["method"], nbytes, int(row["columns"]), nbytes, "child auto auto")
            crossing = ROUND_TRIP + nbytes / BANDWIDTH
            here, there = float(row["local_ms"]) / 1e3, float(row["remote_ms"]) / 1e3 + crossing

            def decide(work: Work = work, here: float = here, there: float = there, crossing: float = crossing) -> str:
                if table.predict(work).stays:
                    table.note_local(work, here)
                    return "local"
                table.note_remote(work._replace(engine="cuml,cpu"), "cuml", there, crossing, work.nbytes)
                return "worker"

            known.append(Known(row["method"], here, there, decide))
    calls = random.Random(seed).choices(known, k=CALLS)
    return [ratios(calls) for _ in range(PASSES)]


def work() -> dict[str, Callable[[], object]]:
    """Return the calls that are measured."""
    found: dict[str, Callable[[], object]] = {}
    generator = np.random.default_rng(0)
    for rows, columns in ((500, 20), (20_000, 20), (100_000, 50)):
        X = generator.normal(size=(rows, columns))
        y = (X[:, 0] + generator.normal(size=rows) > 0).astype(int)
        size = f"{rows} x {columns}"
        classifier, clusters = LogisticRegression().fit(X, y), KMeans(8, n_init=1, random_state=0).fit(X)
        components, neighbours = PCA(5).fit(X), KNeighborsClassifier(algorithm="brute").fit(X[:5000], y[:5000])
        found |= {
            f"LogisticRegression.fit {size}": lambda X=X, y=y: LogisticRegression().fit(X, y),
            f"LogisticRegression.predict {size}": lambda X=X, model=classifier: model.predict(X),
            f"LinearRegression.fit {size}": lambda X=X, y=y: LinearRegression().fit(X, y),
            f"KMeans.fit {size}": lambda X=X: KMeans(8, n_init=1, random_state=0).fit(X),
            f"KMeans.predict {size}": lambda X=X, model=clusters: model.predict(X),
            f"PCA.fit {size}": lambda X=X: PCA(5, svd_solver="full").fit(X),
            f"PCA.transform {size}": lambda X=X, model=components: model.transform(X),
            f"StandardScaler.fit_transform {size}": lambda X=X: StandardScaler().fit_transform(X),
            f"KNeighborsClassifier.predict {size}": lambda X=X[:5000], model=neighbours: model.predict(X),
            f"SVC.fit {size}": lambda X=X[:2000], y=y[:2000]: SVC().fit(X, y),
        }
    return found


def measured(seed: int, engine: str, rounds: int) -> tuple[list[dict[str, float]], dict[str, list[float]]]:
    """Time calls here and on a worker; do 200 of them as the table says; return ratios, and the seconds of each."""
    with worker(engine) as where:
        seconds: dict[str, tuple[list[float], list[float]]] = {}
        runs = work()
        for number in range(rounds + 2):
            for name, run in runs.items():
                here = timed(run)
                with sklearn_wsl_gpu.offload(**where, fallback="quiet"):
                    there = timed(run)
                if number > 1:  # before that the stand-in learns, and everything warms up
                    for times, one in zip(seconds.setdefault(name, ([], [])), (here, there), strict=True):
                        times.append(one)
        medians = {name: [statistics.median(times) for times in both] for name, both in seconds.items()}

        def decide(run: Callable[[], object]) -> str:
            with sklearn_wsl_gpu.offload(**where, policy="auto", fallback="quiet") as session:
                run()
            return session.report().calls[0].where

        known = [
            Known(name, here, there, lambda run=runs[name]: decide(run)) for name, (here, there) in medians.items()
        ]
        calls = random.Random(seed).choices(known, k=CALLS)
        measuring._measured = measuring._Measured()  # as a new process, on a new machine
        return [ratios(calls) for _ in range(PASSES)], medians


def timed(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - begin
    del result
    return seconds


@contextmanager
def worker(engine: str) -> Iterator[dict[str, Any]]:
    """Start a worker, and keep away from what this user's programs have measured."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ["XDG_CACHE_HOME"] = os.environ["LOCALAPPDATA"] = directory
        install_engine(Path(directory))
        state, _ = standing.start(keys=directory, engine=engine, device="auto", listen="tcp://127.0.0.1:*")
        try:
            yield {"endpoint": state["endpoint"], "keys": directory}
        finally:
            sklearn_wsl_gpu.shutdown()
            standing.stop(directory, None)


def install_engine(directory: Path) -> None:
    """Make the engine known to processes that are started from here."""
    info = directory / "stand_in-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stand_in\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[sklearn_wsl_gpu.engines]\n{STAND_IN} = stand_in:StandIn\n")
    (directory / "stand_in.py").write_text(ENGINE)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(directory), os.environ.get("PYTHONPATH")]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default=STAND_IN, help="engine of the worker (default: a stand-in)")
    parser.add_argument("--seed", type=int, default=0, help="which 200 calls (default: 0)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each call is timed on either side")
    parser.add_argument("--json", help="file to write the results to")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    sets, (timings, medians) = (
        {"published": published(options.seed)},
        measured(options.seed, options.engine, options.rounds),
    )
    sets["measured"] = timings
    for name, (here, there) in medians.items():
        print(f"{name:45} {here * 1e3:10.3f} ms here {there * 1e3:10.3f} ms there")
    for name, passes in sets.items():
        for number, found in enumerate(passes, 1):
            print(f"{name}, pass {number}: " + ", ".join(f"{key} {value:.3f}" for key, value in found.items()))
    if options.json:
        about = {name: version(name) for name in ("numpy", "scikit-learn", "sklearn-wsl-gpu")}
        about |= {"python": platform.python_version(), "machine": platform.machine(), "system": platform.platform()}
        about |= {"cores": str(os.cpu_count()), "engine": options.engine, "seed": str(options.seed)}
        about |= {"load": ", ".join(map(str, os.getloadavg())) if hasattr(os, "getloadavg") else ""}
        content = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "about": about, "ratios": sets}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({**content, "seconds": medians}, file, indent=1)


if __name__ == "__main__":
    main()
