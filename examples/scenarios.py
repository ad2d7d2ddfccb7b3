"""Five scenarios of arrays that go to a worker and back: small, medium, 500 MB, consecutive requests, and mixed sizes.

Each is StandardScaler.transform, whose time is mostly the way there and back; it is done once without ``offload()``
and once inside, and both times are printed.

Run it with: python examples/scenarios.py
"""

import time

import numpy as np
from sklearn.preprocessing import StandardScaler

import sklearn_wsl_gpu

MB = 1_000_000
COLUMNS = 50
#: Name, and the size in bytes of each request.
SCENARIOS = {
    "small (20 kB)": [20_000],
    "medium (10 MB)": [10 * MB],
    "large (500 MB)": [500 * MB],
    "consecutive (20 requests of 5 MB)": [5 * MB] * 20,
    "mixed (12 requests of 20 kB to 100 MB)": [20_000, MB, 20 * MB, 100 * MB] * 3,
}


def run(scaler, data, sizes):
    """Ordinary scikit-learn: transform one array after another; return seconds, and a sum to compare."""
    seconds, total = 0.0, 0.0
    for nbytes in sizes:
        X = data[: nbytes // data[0].nbytes]
        begin = time.perf_counter()
        Z = scaler.transform(X)
        seconds += time.perf_counter() - begin
        total += float(Z.sum())
    return seconds, total


def main():
    rows = max(max(sizes) for sizes in SCENARIOS.values()) // (4 * COLUMNS)
    data = np.random.default_rng(0).random((rows, COLUMNS), dtype=np.float32)
    scaler = StandardScaler().fit(data[:10_000])

    plain = {name: run(scaler, data, sizes) for name, sizes in SCENARIOS.items()}
    with sklearn_wsl_gpu.offload() as session:
        begin = time.perf_counter()
        scaler.transform(data[:100])
        start = time.perf_counter() - begin
        first = {name: run(scaler, data, sizes) for name, sizes in SCENARIOS.items()}
        again = {name: run(scaler, data, sizes) for name, sizes in SCENARIOS.items()}

    print(f"start of the worker, first call included: {start:.2f} s\n")
    print(f"{'seconds':40}{'plain':>10}{'offloaded':>12}{'once more':>12}")
    for name, (seconds, total) in plain.items():
        print(f"{name:40}{seconds:10.4f}{first[name][0]:12.4f}{again[name][0]:12.4f}")
        if {first[name][1], again[name][1]} != {total}:
            raise SystemExit("The results differ.")
    print(f"\n{session.report()}")


if __name__ == "__main__":
    main()
