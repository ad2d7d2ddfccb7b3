"""What is run here or on a worker, and compared to the last bit.

    python cases.py estimators FILE             every method of every estimator that may be offloaded
    python cases.py quickstart FILE             the scores of examples/quickstart.py, of fewer rows
    python cases.py … FILE --offload            the same with a worker, as SKLEARN_WSL_GPU_… say
    python cases.py refused WORDS               whether opening a session fails, for a reason with these words
    python cases.py compare FILE FILE           exit code 1 where anything differs

The files are pickles: what is fitted in Windows is looked at in Linux.
"""

from __future__ import annotations

import os

# BLAS adds in another order with another number of threads.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import contextlib
import pickle
import sys
import warnings
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.preprocessing import StandardScaler

import sklearn_wsl_gpu
from examples.quickstart import analyse
from sklearn_wsl_gpu import sessions
from sklearn_wsl_gpu.estimators import ROWS
from sklearn_wsl_gpu.testing import first_difference
from tests.parity import cases


def _estimators() -> dict[str, Any]:
    found: dict[str, Any] = {"its data": (cases.X, cases.CATEGORIES, cases.CLASSES, cases.NUMBERS)}
    for name, row in ROWS.items():
        if row.cls is None or not row.cls.__module__.startswith("sklearn."):
            continue  # of a package that is not there
        labels = cases.takes_labels(name)
        data, target = (cases.CLASSES, None) if labels else cases.data_for(name)
        for method in row.method_names:
            try:
                found[f"{name}.{method}"] = cases.do(name, method, data, target)
            except Exception as error:
                found[f"{name}.{method}"] = f"{type(error).__name__}: {error}"
    return found


def _quickstart() -> dict[str, Any]:
    # More than what travels in messages, and the same wherever it is made.
    X = np.random.default_rng(0).integers(-1000, 1000, size=(20_000, 50)) / 1024
    data = {
        "digits": load_digits(return_X_y=True),
        "breast cancer": load_breast_cancer(return_X_y=True),
        "made": (X, (X[:, :3].sum(axis=1) > 0).astype("i8")),
    }
    scores = {name: analyse(*arguments, 1_000) for name, arguments in data.items()}
    return {f"{name}, {score}": value for name, about in scores.items() for score, value in about.items()}


def _run(what: str, path: str, offloaded: bool) -> None:
    around = sklearn_wsl_gpu.offload(fallback="raise") if offloaded else contextlib.nullcontext()
    with warnings.catch_warnings(), around as session:
        warnings.simplefilter("ignore")
        found = {"estimators": _estimators, "quickstart": _quickstart}[what]()
        if session is not None:
            calls = session.report().calls
            for one in sessions.live():
                print(one, *one.moving.carriers, sep="\n")
            print(session.report())
            if {call.where for call in calls} != {"worker"}:
                raise SystemExit("Something was done here.")
    with open(path, "wb") as file:
        _Pickler(file).dump(found)
    print(f"{len(found)} results")


def _refused(words: str) -> None:
    with sklearn_wsl_gpu.offload(fallback="raise"):
        try:
            StandardScaler().fit(np.eye(3))
        except sklearn_wsl_gpu.OffloadError as error:
            print(error)
            if words in str(error):
                return
    raise SystemExit(f"It was not refused, or for another reason than that it {words}.")


def _compare(one: dict[str, Any], other: dict[str, Any]) -> int:
    differing = {name: first_difference(one[name], other.get(name), name) for name in one}
    wrong = {name: words for name, words in differing.items() if words or isinstance(one[name], str)}
    for name, words in wrong.items():
        print(words or f"{name}: {one[name]}")
    print(f"{len(one) - len(wrong)} of {len(one)} are the same to the last bit")
    return bool(wrong)


class _Pickler(pickle.Pickler):
    """Keeps the order in memory of arrays that have gaps, too."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is np.ndarray and not value.flags.forc:
            return value.copy(order="K").__reduce__()
        return NotImplemented


def _load(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        found: dict[str, Any] = pickle.load(file)
        return found


if __name__ == "__main__":
    command, argument, *rest = sys.argv[1:]
    if command == "compare":
        sys.exit(_compare(_load(argument), _load(rest[0])))
    elif command == "refused":
        _refused(argument)
    else:
        _run(command, argument, "--offload" in rest)
