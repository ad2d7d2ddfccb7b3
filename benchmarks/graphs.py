"""Pipelines and searches as one call: what that gains over offloading their parts, and over plain scikit-learn.

Contestants take turns in one run: plain scikit-learn; each part offloaded by itself; the whole as one call. Bytes sent
are those of arrays and metadata, and stand beside the bytes of X and y.

On any machine: python benchmarks/graphs.py
On one with a GPU: python benchmarks/graphs.py --engine auto --json benchmarks/results/graphs_gpu.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import sklearn_wsl_gpu

SIZES = ((1_000, 10), (20_000, 20), (200_000, 20))
#: What makes a whole be offloaded in parts: it is excluded itself, or its score is the caller's own function.
CONTESTANTS = ("plain", "in parts", "whole")


def _own_score(estimator: Any, X: Any, y: Any) -> float:
    return float(estimator.score(X, y))


def _pipeline() -> Any:
    return make_pipeline(StandardScaler(), PCA(5, svd_solver="full"), LogisticRegression(max_iter=30))


def _search(scoring: Any) -> Any:
    grid = {"pca__n_components": [2, 4, 6, 8], "logisticregression__C": [0.01, 0.1, 1.0, 10.0, 100.0]}
    return GridSearchCV(_pipeline(), grid, cv=5, scoring=scoring)


def _union() -> Any:
    return make_pipeline(make_union(PCA(5, svd_solver="full"), MinMaxScaler()), Ridge())


WORK: dict[str, Callable[[Any, Any, Any], Any]] = {
    "Pipeline.fit": lambda X, y, scoring: _pipeline().fit(X, y),
    "union, Pipeline.fit": lambda X, y, scoring: _union().fit(X, y),
    "cross_val_score, 5 folds": lambda X, y, scoring: cross_val_score(_pipeline(), X, y, scoring=scoring),
    "GridSearchCV, 20 candidates, 5 folds": lambda X, y, scoring: _search(scoring).fit(X, y),
}


def measure(name: str, rows: int, columns: int, rounds: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Return seconds, and bytes sent, of each contestant."""
    random = np.random.default_rng(0)
    X = random.normal(size=(rows, columns)).astype(np.float32)
    y = (X[:, 0] + X[:, 1] + random.normal(size=rows) > 0).astype(np.int64)
    seconds: dict[str, list[float]] = {one: [] for one in CONTESTANTS}
    sent: dict[str, int] = {}
    for _ in range(rounds):
        for one in CONTESTANTS:
            inside: AbstractContextManager[Any] = nullcontext()
            if one != "plain":
                exclude = ["Pipeline"] if one == "in parts" else []
                inside = sklearn_wsl_gpu.offload(**settings, exclude=exclude)
            begin = time.perf_counter()
            with inside as session:
                WORK[name](X, y, _own_score if one == "in parts" else None)
            seconds[one].append(time.perf_counter() - begin)
            if session is not None:
                sent[one] = sum(call.bytes_sent for call in session.report().calls)
    medians = {one: statistics.median(found) for one, found in seconds.items()}
    return {
        "work": name, "rows": rows, "columns": columns, "bytes": X.nbytes + y.nbytes, "seconds": medians, "sent": sent,
        "sent_ratio": {one: count / (X.nbytes + y.nbytes) for one, count in sent.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="cpu")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="file to write the results to")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    settings = {"engine": options.engine, "device": options.device, "fallback": "quiet"}
    with sklearn_wsl_gpu.offload(**settings) as session:
        StandardScaler().fit(np.eye(3))  # the worker is up
        engines = session.status()["engines"]
    found = []
    print(f"{'':54}" + "".join(f"{one:>12}" for one in CONTESTANTS) + f"{'sent in parts':>15}{'sent whole':>12}")
    for name in WORK:
        for rows, columns in SIZES:
            line = measure(name, rows, columns, options.rounds, settings)
            found.append(line)
            times = "".join(f"{line['seconds'][one]:10.3f} s" for one in CONTESTANTS)
            in_parts, whole = line["sent_ratio"]["in parts"], line["sent_ratio"]["whole"]
            print(f"{name:38}{rows:>9} x {columns:<4}{times}{in_parts:13.2f} x{whole:10.3f} x", flush=True)
    if options.json:
        about = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"), "engines": engines,
            "python": platform.python_version(), "system": platform.platform(),
            "versions": {name: version(name) for name in ("numpy", "scikit-learn", "sklearn-wsl-gpu")},
        }  # fmt: skip
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({**about, "results": found}, file, indent=1)


if __name__ == "__main__":
    main()
