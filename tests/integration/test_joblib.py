"""What meta-estimators fit inside themselves is offloaded, in joblib's threads and processes, by either door."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import joblib
import pytest
from sklearn.utils.parallel import Parallel

import sklearn_wsl_gpu

_SCRIPT = """
import contextlib, json, sys
import joblib, numpy as np
import sklearn_wsl_gpu
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn_wsl_gpu.config import suspended

X, y = load_iris(return_X_y=True)
two = [("logistic", LogisticRegression(max_iter=1000)), ("svc", make_pipeline(StandardScaler(), SVC(random_state=0)))]
DO = {
    "GridSearchCV": lambda n: GridSearchCV(SVC(), {"C": [0.1, 1.0]}, cv=3, n_jobs=n).fit(X, y).predict(X),
    "cross_val_score": lambda n: cross_val_score(SVC(), X, y, cv=4, n_jobs=n),
    "cross_val_predict": lambda n: cross_val_predict(make_pipeline(StandardScaler(), SVC()), X, y, cv=3, n_jobs=n),
    "OneVsRestClassifier": lambda n: OneVsRestClassifier(two[0][1], n_jobs=n).fit(X, y).predict(X),
    "VotingClassifier": lambda n: VotingClassifier(two, n_jobs=n).fit(X, y).predict(X),
    "BaggingClassifier": lambda n: BaggingClassifier(SVC(), 4, n_jobs=n, random_state=0).fit(X, y).predict(X),
    "StackingClassifier": lambda n: StackingClassifier(two, cv=2, n_jobs=n).fit(X, y).predict(X),
    "CalibratedClassifierCV": lambda n: CalibratedClassifierCV(SVC(), cv=3, n_jobs=n).fit(X, y).predict(X),
    "MultiOutputRegressor": lambda n: MultiOutputRegressor(Ridge(), n_jobs=n).fit(X, X).predict(X),
}

def main(door, count, backends):
    chosen = dict(list(DO.items())[:int(count)])
    with suspended():
        expected = {name: do(1) for name, do in chosen.items()}
    session = sklearn_wsl_gpu.enable() if door == "enable" else None  # the settings' report, and the same worker
    with sklearn_wsl_gpu.offload() if door == "with" else contextlib.nullcontext(session) as session:
        SVC().fit(X, y)
        for name, do in chosen.items():
            start = session.status()["done"]
            do(1)
            alone = session.status()["done"] - start
            for backend in backends.split(","):
                start = session.status()["done"]
                with joblib.parallel_config(backend=backend):
                    found = do(2)
                together = session.status()["done"] - start
                print(name, np.array_equal(found, expected[name]), alone == together > 0, together)
        print("local", session.report().local)

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("door", "count", "backends"),
    [("with", 9, ["threading", "loky"]), ("enable", 2, ["threading"]), ("environment", 2, ["loky"])],
)
def test_inner_fits_are_offloaded_and_exact(door: str, count: int, backends: list[str], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    # Under the variable the process is switched on before; enable() then only tells of its worker.
    script.write_text(_SCRIPT)
    environment = {**os.environ, "PYTHONWARNINGS": "ignore::FutureWarning,error::UserWarning"}
    if door == "environment":
        environment["SKLEARN_WSL_GPU"] = "1"
    ran = subprocess.run(
        [sys.executable, str(script), "with" if door == "with" else "enable", str(count), ",".join(backends)],
        capture_output=True,
        text=True,
        timeout=200,
        env=environment,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    *lines, local = ran.stdout.splitlines()
    assert len(lines) == count * len(backends)
    assert [line for line in lines if line.split()[1:3] != ["True", "True"]] == []
    assert local == "local 0"
    assert ran.stderr == ""


_SOCKETS = """
import json, multiprocessing, os, sys
import numpy as np
from sklearn.preprocessing import StandardScaler
import sklearn_wsl_gpu

def sockets():
    # The kernel's names of the open sockets.
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found

def work(inherited):
    before = sockets()
    with sklearn_wsl_gpu.offload(fallback="raise"):
        StandardScaler().fit(np.eye(3))
        # What a forked child has from its parent it must not use: it makes others.
        return bool(sockets() - before), not (sockets() - before) & set(inherited)

if __name__ == "__main__":
    with sklearn_wsl_gpu.offload(fallback="raise"):
        StandardScaler().fit(np.eye(3))
        with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
            print(json.dumps(pool.map(work, [sorted(sockets())])))
        StandardScaler().fit(np.eye(3))
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not list a process's descriptors")
@pytest.mark.parametrize(("method", "door"), [("fork", "with"), ("fork", "environment"), ("forkserver", "with")])
def test_children_never_share_a_socket_with_their_parent(method: str, door: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SOCKETS)
    environment = {**os.environ, **({"SKLEARN_WSL_GPU": "1"} if door == "environment" else {})}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(script), method],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment,
        check=False,
    )

    assert ran.stdout.strip() == "[[true, true]]", ran.stderr


def test_scikit_learn_warns_of_a_task_without_its_settings_as_it_does_without_us() -> None:
    with (
        sklearn_wsl_gpu.offload(),
        pytest.warns(UserWarning, match="instead of `joblib.delayed`") as warned,
    ):
        assert Parallel(n_jobs=2, backend="threading")(joblib.delayed(abs)(-number) for number in range(3)) == [0, 1, 2]
    assert len(warned) == 3
