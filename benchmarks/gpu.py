"""What a GPU engine gains, and what this project adds to it: each estimator at three sizes.

Contestants take turns in one run: plain scikit-learn; the engine's library called directly in this process (cuML, or
scikit-learn on device arrays); and the same call through a worker. The ratio of the last two is what the bridge costs.
Each result is judged beside scikit-learn's, by the measure and tolerance that cuML's own tests have for the estimator.

On a machine with a GPU: python benchmarks/gpu.py --json benchmarks/results/gpu.json
Without one, to see that it runs: python benchmarks/gpu.py --engine array_api --device cpu --scale 0.01
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

if __name__ == "__main__":
    # scikit-learn computes on device arrays, in this process too, only where SciPy has found this when it was imported.
    os.environ["SCIPY_ARRAY_API"] = "1"

import numpy as np
import sklearn
from parity import judge, parity_of
from sklearn.base import clone, is_classifier, is_regressor

import sklearn_wsl_gpu
from sklearn_wsl_gpu.estimators import Row, find
from sklearn_wsl_gpu.support import TABLES
from wsl_worker.engines.cuml import kinds

#: Rows and columns: of most estimators, of those whose time grows with the square of the rows, and of those that give
#: back a matrix as large as that, or that are declined from 4096 rows on.
SIZES = ((10_000, 20), (100_000, 50), (1_000_000, 50))
SQUARE = ((2_000, 10), (10_000, 20), (40_000, 20))
SMALL = ((500, 10), (2_000, 20), (4_000, 20))
SLOW = frozenset(
    [
        "DBSCAN",
        "HDBSCAN",
        "SpectralEmbedding",
        "TSNE",
        "SVC",
        "SVR",
        "KernelRidge",
        "KernelDensity",
        "KNeighborsClassifier",
        "KNeighborsRegressor",
        "NearestNeighbors",
        "KernelCenterer",
        "Nystroem",
        "hdbscan.HDBSCAN",
    ]
)
FEW = frozenset({"SpectralClustering", "umap.UMAP"})
#: So that the answer is the data's, of four groups, and not that of a seed.
PARAMETERS: dict[str, dict[str, Any]] = {
    "KMeans": {"n_clusters": 4, "n_init": 10},
    "DBSCAN": {"eps": 5.0},
    "HDBSCAN": {"min_cluster_size": 20},
    "hdbscan.HDBSCAN": {"min_cluster_size": 20},
    "PCA": {"n_components": 3, "svd_solver": "full"},
    "IncrementalPCA": {"n_components": 3},
    "TruncatedSVD": {"n_components": 4},
    "GaussianMixture": {"n_components": 4, "init_params": "random_from_data"},
    "SpectralClustering": {"n_clusters": 4, "gamma": 0.05},
    "RandomForestClassifier": {"n_estimators": 50},
    "RandomForestRegressor": {"n_estimators": 50},
    "PolynomialFeatures": {"degree": 2},
    "Nystroem": {"n_components": 50},
}
#: The method that is timed beside fit, the first of these that there is.
AFTERWARDS = ("predict", "transform", "kneighbors", "score_samples")
_PATIENCE_SECONDS = 120.0


class Contestants(NamedTuple):
    """One call, done in three ways."""

    plain: Callable[[], Any]
    direct: Callable[[], Any]
    worker: Callable[[], Any]


def data_of(name: str, rows: int, columns: int) -> tuple[Any, Any]:
    """Return X, and y if it takes one: blobs, in single precision, as most people on GPUs have them."""
    random = np.random.default_rng(0)
    groups = random.integers(0, 4, rows)
    X = (random.normal(size=(rows, columns)) + 3.0 * random.normal(size=(4, columns))[groups]).astype(np.float32)
    if name in ("OneHotEncoder", "TargetEncoder"):
        X = np.floor(X[:, :5])
    if name in ("LabelEncoder", "LabelBinarizer"):
        return groups, None
    if name == "KernelCenterer":
        return X[:2000] @ X[:2000].T, None
    if name == "TargetEncoder":
        return X, (groups == 0).astype(int)
    estimator = make(name)
    if is_classifier(estimator):
        return X, groups
    if not is_regressor(estimator):
        return X, None
    y = (X @ random.normal(size=X.shape[1]).astype(np.float32)).astype(np.float32)
    return X, np.abs(y) if name == "PoissonRegressor" else y


def row_of(name: str) -> Row:
    """Return the row of an estimator that is installed."""
    row = find(name)
    assert row is not None
    return row


def make(name: str) -> Any:
    """Return the estimator as it is timed."""
    row = row_of(name)
    assert row.cls is not None
    seed = {"random_state": 0} if "random_state" in row.parameters else {}
    return row.cls(**seed, **PARAMETERS.get(name, {}))


def contestants(name: str, method: str, engine: str, device: str, X: Any, y: Any) -> Contestants:
    """Return a call of an estimator's method in three ways."""
    settings = {"engine": engine, "device": device, "fallback": "raise"}
    data = [X] if y is None else [X, y]
    given = data if method == "fit" else [X]
    local = make(name) if method == "fit" else make(name).fit(*data)
    there = clone(local)
    if method != "fit":
        with sklearn_wsl_gpu.offload(**settings):
            there.fit(*data)

    def worker() -> Any:
        with sklearn_wsl_gpu.offload(**settings):
            return getattr(there, method)(*given)

    direct = direct_call(name, method, data) if engine == "cuml" else _by_array_api(name, method, device, data)
    return Contestants(lambda: getattr(local, method)(*given), direct, worker)


def cuml_model(name: str) -> Any:
    """Return cuML's estimator for the same computation. Nothing of this needs a GPU."""
    parameters = vars(make(name))
    changes = {"affinity": "precomputed"} if parameters.get("affinity") == "rbf" else {}
    return kinds.make(row_of(name), parameters, **changes)


def direct_call(name: str, method: str, data: list[Any]) -> Callable[[], Any]:
    """Return a call of cuML in this process, of a model that is fitted if that is needed."""
    model = cuml_model(name)

    def fit() -> Any:
        if getattr(model, "affinity", None) != "precomputed":
            return model.fit(*data)
        cupy, metrics = importlib.import_module("cupy"), importlib.import_module("cuml.metrics")
        return model.fit(metrics.pairwise_kernels(cupy.asarray(data[0]), metric="rbf", gamma=make(name).gamma))

    if method == "fit":
        return fit
    fit()
    return lambda: getattr(model, method)(data[0])


def _by_array_api(name: str, method: str, device: str, data: list[Any]) -> Callable[[], Any]:
    if device == "cpu":
        torch = importlib.import_module("torch")
        there, back = torch.asarray, lambda value: value.numpy() if hasattr(value, "numpy") else value
    else:
        cupy = importlib.import_module("cupy")
        there, back = cupy.asarray, lambda value: cupy.asnumpy(value) if hasattr(value, "get") else value
    model = make(name)
    if "solver" in model.get_params() and model.solver == "auto":
        model.set_params(solver="svd")

    def run() -> Any:
        with sklearn.config_context(array_api_dispatch=True):
            return back(getattr(model, method)(*map(there, data if method == "fit" else data[:1])))

    if method != "fit":
        with sklearn.config_context(array_api_dispatch=True):
            model.fit(*map(there, data))
    return run


def in_turn(three: Contestants, rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Return median seconds and last results; a contestant that is slow is asked once."""
    seconds: dict[str, list[float]] = {name: [] for name in three._fields}
    results: dict[str, Any] = {}
    three.direct(), three.worker()  # once beforehand: what is compiled or loaded at the first call
    for _ in range(rounds):
        for name, run in three._asdict().items():
            if seconds[name] and seconds[name][0] > _PATIENCE_SECONDS / rounds:
                continue
            begin = time.perf_counter()
            results[name] = run()
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(found) for name, found in seconds.items()}, results


def sizes_of(name: str) -> tuple[tuple[int, int], ...]:
    """Return the three sizes, rows and columns, at which an estimator is measured."""
    return SMALL if name in FEW else SQUARE if name in SLOW else SIZES


def methods_of(name: str, engine: str) -> list[str]:
    """Return fit, and the method that is timed beside it: what a fit is judged by, or the first that there is."""
    there_are = set(row_of(name).method_names) - set(TABLES[engine][name].without.split())
    return ["fit", *[method for method in (parity_of(name).of, *AFTERWARDS) if method in there_are][:1]]


def measure(names: list[str], engine: str, device: str, scale: float) -> Iterator[dict[str, Any]]:
    """Yield what was found of each estimator, size and method."""
    for name in names:
        for most, columns in sizes_of(name):
            rows = max(int(most * scale), 200)
            X, y = data_of(name, rows, columns)
            for method in methods_of(name, engine):
                line: dict[str, Any] = {"estimator": name, "method": method, "rows": len(X), "columns": X[0].size}
                try:
                    seconds, results = in_turn(contestants(name, method, engine, device, X, y), 3)
                    line |= {
                        "seconds": seconds,
                        "speedup": seconds["plain"] / seconds["worker"],
                        "overhead": seconds["worker"] / seconds["direct"] - 1.0,
                        **judge(name, results["worker"], results["plain"], X, y),
                    }
                except Exception as error:  # the others shall still be measured
                    line["error"] = f"{type(error).__name__}: {str(error)[:300]}"
                yield line


def verdict(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many results are within their tolerance, and which are not, or are none at all."""

    def those(lines: list[dict[str, Any]]) -> list[str]:
        return [what(line) for line in lines]

    judged = [line for line in found if "error" not in line]
    return {
        "within": sum(line["within"] for line in judged),
        "outside": those([line for line in judged if not line["within"]]),
        "errors": those([line for line in found if "error" in line]),
    }


def what(line: dict[str, Any]) -> str:
    return f"{line['estimator']}.{line['method']} {line['rows']} x {line['columns']}"


def _about(engine: str, device: str) -> dict[str, Any]:
    versions = {}
    for name in ("numpy", "scikit-learn", "sklearn-wsl-gpu", "cuml-cu13", "cuml-cu12", "cupy-cuda13x", "torch"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    found: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "versions": versions}
    found |= {"engine": engine, "device": device, "python": platform.python_version(), "system": platform.platform()}
    for key, command in {
        "gpu": ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
        "commit": ["git", "rev-parse", "HEAD"],
    }.items():
        try:
            found[key] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            found[key] = ""
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("estimators", nargs="*", help="names; all of the engine's by default")
    parser.add_argument("--engine", choices=sorted(TABLES), default="cuml" if "cuml" in TABLES else "array_api")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of rows")
    parser.add_argument("--json", help="file to write the results to")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    names = options.estimators or [name for name in TABLES[options.engine] if find(name) is not None]
    found = []
    print(f"{'':42} {'plain':>10} {'direct':>10} {'worker':>10} {'speed-up':>9} {'overhead':>9} {'parity':>9}")
    for line in measure(names, options.engine, options.device, options.scale):
        found.append(line)
        if "error" in line:
            print(f"{what(line):42} {line['error']}", flush=True)
            continue
        times = " ".join(f"{line['seconds'][name] * 1e3:7.1f} ms" for name in Contestants._fields)
        parity = f"{line['parity']:9.1e} {'of' if line['within'] else 'NOT within'} {line['tolerance']:.0e}"
        print(f"{what(line):42} {times} {line['speedup']:8.2f}x {line['overhead']:8.1%} {parity}", flush=True)
    judgement = verdict(found)
    print(", ".join(f"{key}: {one if key == 'within' else len(one)}" for key, one in judgement.items()))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(
                {**_about(options.engine, options.device), "verdict": judgement, "results": found}, file, indent=1
            )


if __name__ == "__main__":
    main()
