"""What a GPU engine gains, and what this project adds to it: each estimator at three sizes.

Contestants take turns in one run: plain scikit-learn; the engine's library called directly in this process (cuML, or
scikit-learn on device arrays); and the same call through a worker. The ratio of the last two is what the bridge costs.
Results are compared with scikit-learn's, by the measure and tolerance that fit the estimator.

On a machine with a GPU: python benchmarks/gpu.py --json benchmarks/results/gpu.json
Without one, to see that it runs: python benchmarks/gpu.py --engine array_api --device cpu --scale 0.01
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy as np
import sklearn
from sklearn.base import clone, is_classifier, is_clusterer, is_regressor
from sklearn.metrics import adjusted_rand_score

import sklearn_wsl_gpu
from sklearn_wsl_gpu.estimators import Row, find
from sklearn_wsl_gpu.support import TABLES

#: Rows and columns: of most estimators, and of those whose time grows with the square of the rows.
SIZES = ((10_000, 20), (100_000, 50), (1_000_000, 50))
SQUARE = ((2_000, 10), (10_000, 20), (40_000, 20))
SLOW = frozenset(
    [
        "DBSCAN",
        "HDBSCAN",
        "SpectralClustering",
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
        "umap.UMAP",
        "hdbscan.HDBSCAN",
    ]
)
PARAMETERS: dict[str, dict[str, Any]] = {
    "KMeans": {"n_clusters": 8, "n_init": 1},
    "DBSCAN": {"eps": 2.0},
    "PCA": {"n_components": 5, "svd_solver": "full"},
    "IncrementalPCA": {"n_components": 5},
    "TruncatedSVD": {"n_components": 5},
    "GaussianMixture": {"n_components": 4, "init_params": "random_from_data"},
    "SpectralClustering": {"n_clusters": 4},
    "RandomForestClassifier": {"n_estimators": 50},
    "RandomForestRegressor": {"n_estimators": 50},
    "PolynomialFeatures": {"degree": 2},
    "Nystroem": {"n_components": 50},
}
#: The method that is timed beside fit, the first of these that there is.
AFTERWARDS = ("predict", "transform", "kneighbors", "score_samples")
#: Estimators whose result is not unique, so that none is compared.
FREE = frozenset({"TSNE", "umap.UMAP", "SpectralEmbedding", "IsolationForest", "Nystroem", "GaussianMixture"})
_PATIENCE_SECONDS = 120.0


class Contestants(NamedTuple):
    """One call, done in three ways."""

    plain: Callable[[], Any]
    direct: Callable[[], Any]
    worker: Callable[[], Any]


def data_of(name: str, rows: int, columns: int) -> tuple[Any, Any]:
    """Return X and y for an estimator: blobs, in single precision, as most people on GPUs have them."""
    random = np.random.default_rng(0)
    groups = random.integers(0, 4, rows)
    X = (random.normal(size=(rows, columns)) + 3.0 * random.normal(size=(4, columns))[groups]).astype(np.float32)
    if name in ("OneHotEncoder", "TargetEncoder"):
        X = np.floor(X[:, :5])
    if name == "KernelCenterer":
        X = X[:2000] @ X[:2000].T
        return X, None
    cls = row_of(name).cls
    assert cls is not None
    if is_classifier(cls()):
        return X, groups
    y = (X @ random.normal(size=X.shape[1]).astype(np.float32)).astype(np.float32)
    return X, (groups == 0).astype(int) if name == "TargetEncoder" else np.abs(y) if name == "PoissonRegressor" else y


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
    given = [X] if method != "fit" else [y if not row_of(name).named else X, *([] if y is None else [y])]
    given = given[:1] if not row_of(name).named else given
    local = make(name) if method == "fit" else make(name).fit(*_fit_arguments(name, X, y))
    there = clone(local)
    if method != "fit":
        with sklearn_wsl_gpu.offload(**settings):
            there.fit(*_fit_arguments(name, X, y))

    def worker() -> Any:
        with sklearn_wsl_gpu.offload(**settings):
            return getattr(there, method)(*given)

    direct = _cuml(name, method, X, y) if engine == "cuml" else _by_array_api(name, method, device, X, y)
    return Contestants(lambda: getattr(local, method)(*given), direct, worker)


def _fit_arguments(name: str, X: Any, y: Any) -> list[Any]:
    if not row_of(name).named:
        return [y]
    return [X] if y is None else [X, y]


def _cuml(name: str, method: str, X: Any, y: Any) -> Callable[[], Any]:
    package, _, bare = row_of(name).path.rpartition(".")
    home = {"umap": "cuml.manifold", "hdbscan": "cuml.cluster"}.get(package, package.replace("sklearn", "cuml"))
    cls = getattr(importlib.import_module(home), bare)
    model = cls(**cls._params_from_cpu(make(name)))
    if method == "fit":
        return lambda: model.fit(*_fit_arguments(name, X, y))
    model.fit(*_fit_arguments(name, X, y))
    return lambda: getattr(model, method)(X)


def _by_array_api(name: str, method: str, device: str, X: Any, y: Any) -> Callable[[], Any]:
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
            given = [there(item) for item in _fit_arguments(name, X, y)] if method == "fit" else [there(X)]
            return back(getattr(model, method)(*given))

    if method != "fit":
        with sklearn.config_context(array_api_dispatch=True):
            model.fit(*[there(item) for item in _fit_arguments(name, X, y)])
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


def difference(name: str, method: str, found: Any, wanted: Any) -> float | None:
    """Return how far a result is from scikit-learn's, from 0 for equal up; None where none is to be compared."""
    if method == "fit":
        if name in FREE or not hasattr(wanted, "labels_"):
            return None
        return 1.0 - float(adjusted_rand_score(wanted.labels_, found.labels_))
    if name in FREE:
        return None
    found, wanted = (np.asarray(one[0] if isinstance(one, tuple) else one) for one in (found, wanted))
    estimator = make(name)
    if is_clusterer(estimator):
        return 1.0 - float(adjusted_rand_score(wanted, found))
    if is_classifier(estimator):
        return float(np.mean(found != wanted))
    if not is_regressor(estimator):  # components are unique but for their signs
        found, wanted = np.abs(found), np.abs(wanted)
    return float(np.linalg.norm(found - wanted) / max(np.linalg.norm(wanted), 1e-12))


def measure(names: list[str], engine: str, device: str, scale: float) -> Iterator[dict[str, Any]]:
    """Yield what was found of each estimator, size and method."""
    for name in names:
        for most, columns in SQUARE if name in SLOW else SIZES:
            rows = max(int(most * scale), 200)
            X, y = data_of(name, rows, columns)
            after = next((method for method in AFTERWARDS if method in row_of(name).method_names), None)
            without = TABLES[engine][name].without.split()
            for method in ["fit", *([] if after is None or after in without or not row_of(name).named else [after])]:
                line: dict[str, Any] = {"estimator": name, "method": method, "rows": rows, "columns": X.shape[1]}
                try:
                    seconds, results = in_turn(contestants(name, method, engine, device, X, y), 3)
                    line |= {
                        "seconds": seconds,
                        "speedup": seconds["plain"] / seconds["worker"],
                        "overhead": seconds["worker"] / seconds["direct"] - 1.0,
                        "difference": difference(name, method, results["worker"], results["plain"]),
                    }
                except Exception as error:  # the others shall still be measured
                    line["error"] = f"{type(error).__name__}: {str(error)[:300]}"
                yield line


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
    print(f"{'':42} {'plain':>10} {'direct':>10} {'worker':>10} {'speed-up':>9} {'overhead':>9} {'difference':>10}")
    for line in measure(names, options.engine, options.device, options.scale):
        found.append(line)
        what = f"{line['estimator']}.{line['method']} {line['rows']} x {line['columns']}"
        if "error" in line:
            print(f"{what:42} {line['error']}", flush=True)
            continue
        times = " ".join(f"{line['seconds'][name] * 1e3:7.1f} ms" for name in Contestants._fields)
        apart = "" if line["difference"] is None else f"{line['difference']:10.1e}"
        print(f"{what:42} {times} {line['speedup']:8.2f}x {line['overhead']:8.1%} {apart}", flush=True)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({**_about(options.engine, options.device), "results": found}, file, indent=1)


if __name__ == "__main__":
    main()
