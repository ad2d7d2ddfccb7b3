"""What a call costs: a tiny one against a bare REQ/REP echo, a large one against a memcpy, and both against local.

Contestants take turns (A B C A B C …) in one run; medians and ratios are printed, and written to a JSON file if
one is named. Run it on an idle machine: python benchmarks/calls.py [--json benchmarks/results/calls.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import zmq
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import sklearn_wsl_gpu

_ECHO = """
import zmq
socket = zmq.Context().socket(zmq.REP)
socket.bind("tcp://127.0.0.1:*")
print(socket.last_endpoint.decode(), flush=True)
while True:
    socket.send(socket.recv())
"""


def in_turn(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each contestant."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            begin = time.perf_counter()
            result = run()
            seconds[name].append(time.perf_counter() - begin)
            del result
    return {name: statistics.median(found) for name, found in seconds.items()}


def tiny() -> dict[str, float]:
    """Time predict on 100 rows, offloaded and local, and a bare echo of 1 kB."""
    X, y = load_iris(return_X_y=True)
    model, X = LogisticRegression(max_iter=1000).fit(X, y), X[:100]
    echo = subprocess.Popen([sys.executable, "-c", _ECHO], stdout=subprocess.PIPE, text=True)
    assert echo.stdout is not None
    socket = zmq.Context.instance().socket(zmq.REQ)
    socket.connect(echo.stdout.readline().strip())

    def ask() -> None:
        socket.send(b"x" * 1000)
        socket.recv()

    def offloaded() -> object:
        with sklearn_wsl_gpu.offload(fallback="raise"):
            begin = time.perf_counter()
            model.predict(X)
            return time.perf_counter() - begin

    inside: list[float] = []

    def timed() -> None:
        inside.append(offloaded())  # type: ignore[arg-type]

    for _ in range(100):
        ask(), offloaded(), model.predict(X)
    found = in_turn({"echo": ask, "block": timed, "local predict": lambda: model.predict(X)}, 500)
    echo.kill()
    echo.wait()
    return {
        "bare echo of 1 kB": found["echo"],
        "predict, 100 rows, offloaded": statistics.median(inside),
        "predict, 100 rows, local": found["local predict"],
    }


def large() -> dict[str, float]:
    """Time StandardScaler.transform of 256 MB, offloaded and local, and a memcpy of the same bytes."""
    X = np.random.default_rng(0).normal(size=(640_000, 50))
    copy = np.empty_like(X)
    scaler = StandardScaler().fit(X)
    begin = time.perf_counter()
    with sklearn_wsl_gpu.offload(fallback="raise"):
        scaler.transform(X)
        first = time.perf_counter() - begin

        def offloaded() -> object:
            return scaler.transform(X)

        def local() -> object:
            return StandardScaler.transform.__wrapped__(scaler, X)  # type: ignore[attr-defined]

        for _ in range(3):
            offloaded(), local(), np.copyto(copy, X)
        contestants = {
            "memcpy of 256 MB": lambda: np.copyto(copy, X),
            "transform, 256 MB, offloaded": offloaded,
            "transform, 256 MB, local": local,
        }
        return {**in_turn(contestants, 9), "transform, 256 MB, first call": first}


def outside() -> dict[str, float]:
    """Time what a wrapped method costs where no context is active."""
    from sklearn_wsl_gpu import patching

    class Nothing:
        def predict(self, X: object) -> None:
            return None

    estimator = StandardScaler()
    original = StandardScaler.transform
    StandardScaler.transform = Nothing.predict  # type: ignore[assignment]
    number = 200_000
    bare = min(timeit.repeat(lambda: estimator.transform(None), number=number, repeat=5)) / number
    patching.install()
    wrapped = min(timeit.repeat(lambda: estimator.transform(None), number=number, repeat=5)) / number
    patching.uninstall()
    StandardScaler.transform = original  # type: ignore[method-assign]
    return {"a wrapped call outside a context, more than a bare one": wrapped - bare}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file to write the results to")
    options = parser.parse_args()
    found = {**tiny(), **large(), **outside()}
    bases = {"predict": "bare echo of 1 kB", "transform": "memcpy of 256 MB"}
    for name, seconds in found.items():
        base = next((found[bases[word]] for word in bases if name.startswith(word)), None)
        ratio = "" if base is None else f"  {seconds / base:6.2f} x {bases[name.partition(',')[0]]}"
        print(f"{name:55} {seconds * 1e3:10.4f} ms{ratio}")
    if options.json:
        about = {name: version(name) for name in ("numpy", "scikit-learn", "pyzmq", "msgpack", "sklearn-wsl-gpu")}
        about |= {"python": platform.python_version(), "machine": platform.machine(), "system": platform.platform()}
        content = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "versions": about, "seconds": found}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)


if __name__ == "__main__":
    main()
