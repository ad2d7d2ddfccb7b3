"""Arrays that are made in the pool: ordinary ones, that are not sent."""

from __future__ import annotations

import gc
import os
import pickle
import re
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

import sklearn_wsl_gpu
from sklearn_wsl_gpu import offload, sessions
from sklearn_wsl_gpu.pool import Pool
from tests.integration.tools import run_python

VALUES = np.random.default_rng(0).normal(size=(50_000, 8))
TARGET = VALUES @ np.arange(8.0)

pytestmark = pytest.mark.usefixtures("running_worker")


def _pool(session: Any) -> Pool:
    return sessions.obtain(session.settings).pool


def _made(session: Any, values: np.ndarray = VALUES, order: Any = "C") -> np.ndarray:
    X = sklearn_wsl_gpu.empty(values.shape, values.dtype, order)
    X[...] = values
    assert _pool(session).find_kept(X) is not None
    return X


def _sent(session: Any) -> int:
    return session.report().calls[-1].bytes_sent


def test_an_array_that_is_made_in_the_pool_is_an_ordinary_array_and_is_not_sent() -> None:
    with offload(fallback="raise") as session:
        X = _made(session)
        assert type(X) is np.ndarray
        assert X.flags.writeable
        assert X.flags.c_contiguous
        model = LinearRegression().fit(X, sklearn_wsl_gpu.asarray(TARGET))
        assert _sent(session) < 10_000
        np.testing.assert_array_equal(model.predict(X), LinearRegression().fit(VALUES, TARGET).predict(VALUES))

    np.testing.assert_array_equal(X, VALUES)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(X)), VALUES)
    X += 1.0


def test_its_memory_goes_back_when_it_is_collected_and_not_before() -> None:
    with offload(fallback="raise") as session:
        X = _made(session)
        part = X[10:20, 2:4]
        del X
        gc.collect()
        assert _pool(session).view_bytes >= VALUES.nbytes
        StandardScaler().fit_transform(VALUES)
        np.testing.assert_array_equal(part, VALUES[10:20, 2:4])
        del part
        gc.collect()
        assert _pool(session).used_bytes == 0


def test_what_is_changed_in_it_counts_in_the_next_call() -> None:
    with offload(fallback="raise") as session:
        X = _made(session)
        scaler = StandardScaler()
        np.testing.assert_array_equal(scaler.fit(X).mean_, StandardScaler().fit(VALUES).mean_)
        X *= 3.0
        mean = scaler.fit(X).mean_
        assert _sent(session) < 10_000
        np.testing.assert_array_equal(mean, StandardScaler().fit(VALUES * 3.0).mean_)


PARTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rows": lambda X: X[1_000:40_000],
    "transposed": lambda X: X.T[:, :500].T[:500],
    "reshaped": lambda X: X.reshape(-1, 4),
    "read-only": lambda X: np.broadcast_to(X, X.shape),
}


@pytest.mark.parametrize("part", PARTS.values(), ids=list(PARTS))
def test_a_contiguous_part_of_it_is_not_sent_either(part: Callable[[np.ndarray], np.ndarray]) -> None:
    expected = StandardScaler().fit(part(VALUES)).var_
    with offload(fallback="raise") as session:
        X = part(_made(session))
        np.testing.assert_array_equal(StandardScaler().fit(X).var_, expected)
        assert _sent(session) < 10_000


def test_a_part_that_is_not_contiguous_is_sent_as_any_other_array() -> None:
    with offload(fallback="raise") as session:
        X = _made(session)[::2, ::3]
        np.testing.assert_array_equal(StandardScaler().fit(X).var_, StandardScaler().fit(VALUES[::2, ::3]).var_)
        assert _sent(session) > X.nbytes


def test_a_large_result_is_not_sent_when_it_is_passed_on() -> None:
    with offload(fallback="raise") as session:
        Z = StandardScaler().fit_transform(VALUES)
        PCA(2, random_state=0).fit(Z)
        assert _sent(session) < 10_000
        again = StandardScaler().fit_transform(Z)
        assert _sent(session) < 10_000
    expected = StandardScaler().fit_transform(VALUES)

    np.testing.assert_array_equal(Z, expected)
    np.testing.assert_array_equal(again, StandardScaler().fit_transform(expected))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_it_is_never_overwritten_by_a_call(order: str, dtype: Any) -> None:
    values = VALUES.astype(dtype)
    local = MaxAbsScaler().fit(values).transform(np.asarray(values, order=order))  # type: ignore[call-overload]
    with offload(fallback="raise") as session:
        X = _made(session, values, order)
        for _ in range(3):
            result = MaxAbsScaler().fit(X).transform(X)
            assert _sent(session) < 10_000
            np.testing.assert_array_equal(result, local)
            assert result.strides == local.strides

    np.testing.assert_array_equal(X, values)


def test_what_an_estimator_keeps_of_it_is_the_array_itself_as_it_is_here() -> None:
    with offload(fallback="raise") as session:
        X = _made(session)
        model = KNeighborsClassifier(algorithm="brute").fit(X, TARGET > 0)
        assert model._fit_X is X
        X[:] = 0.0
        np.testing.assert_array_equal(
            model.predict(VALUES[:5]), KNeighborsClassifier(algorithm="brute").fit(X, TARGET > 0).predict(VALUES[:5])
        )


def test_a_search_and_a_cross_validation_do_not_send_it() -> None:
    with offload(fallback="raise") as session:
        X, y = sklearn_wsl_gpu.asarray(VALUES), sklearn_wsl_gpu.asarray(TARGET)
        search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=3).fit(X, y)
        scores = cross_val_score(Ridge(), X, y, cv=3)
        assert sum(call.bytes_sent for call in session.report().calls) < 50_000
    local = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=3).fit(VALUES, TARGET)

    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], local.cv_results_["mean_test_score"])
    np.testing.assert_array_equal(search.best_estimator_.coef_, local.best_estimator_.coef_)
    np.testing.assert_array_equal(scores, cross_val_score(Ridge(), VALUES, TARGET, cv=3))


def test_asarray_takes_what_numpy_takes_and_keeps_the_order_of_memory() -> None:
    with offload(fallback="raise"):
        for x in ([[1, 2], [3, 4]], 5.0, np.arange(6).reshape(2, 3).T, VALUES[::3, ::-1]):
            made = sklearn_wsl_gpu.asarray(x)
            np.testing.assert_array_equal(made, np.asarray(x))
            assert made.dtype == np.asarray(x).dtype
        assert sklearn_wsl_gpu.asarray(np.asfortranarray(VALUES)).flags.f_contiguous
        assert sklearn_wsl_gpu.asarray(VALUES, order="F").flags.f_contiguous
        assert sklearn_wsl_gpu.asarray(VALUES, np.float32).dtype == np.float32
        made = sklearn_wsl_gpu.asarray(VALUES)
        assert sklearn_wsl_gpu.asarray(made) is made
        assert sklearn_wsl_gpu.asarray(made, order="C") is made
        assert sklearn_wsl_gpu.asarray(made, order="F") is not made


def test_an_array_that_cannot_lie_in_the_pool_lies_elsewhere() -> None:
    with offload(fallback="raise", slots=(1, 1, 1), slot_bytes=2**20, pool_limit=0) as session:
        X = sklearn_wsl_gpu.empty((1000, 1000))
        assert X.shape == (1000, 1000)
        assert _pool(session).view_bytes == 0
        for dtype in (object, [("a", "i4")], "V3"):
            assert sklearn_wsl_gpu.empty(3, dtype).dtype == np.dtype(dtype)  # type: ignore[arg-type]
        assert sklearn_wsl_gpu.empty((0, 5)).shape == (0, 5)
        for shape in (5, np.int64(5), (np.int64(5),), np.array([5])):
            assert sklearn_wsl_gpu.empty(shape).shape == (5,)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="negative"):
            sklearn_wsl_gpu.empty((-1, -2))
    with offload(endpoint="tcp://127.0.0.1:1", keys="/nonexistent"):
        assert sklearn_wsl_gpu.empty((3, 4)).shape == (3, 4)


@pytest.mark.falls_back
def test_it_outlives_its_worker_and_is_sent_to_the_next_one() -> None:
    with offload(fallback="quiet") as session:
        X = _made(session)
        pid = int(str(session.status()["pid"]))
        os.kill(pid, signal.SIGKILL)
        for _ in range(2):
            np.testing.assert_array_equal(StandardScaler().fit(X).mean_, StandardScaler().fit(VALUES).mean_)
    np.testing.assert_array_equal(X, VALUES)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["abc", "de"], str), (["abc", "de"], "S"), ([b"abc"], "S"), (["2020-01-01"], "M8"), ([1.5, 2.5], int),
        (np.array([1.5, 300.0]), "u1"), (np.array(["abc", "de"]), "U2"), (np.array([1, 2]), str), ([3], "M8[D]"),
    ],
    ids=str,
)  # fmt: skip
def test_asarray_gives_what_numpy_gives(values: Any, dtype: Any) -> None:
    with offload(fallback="raise"):
        found = sklearn_wsl_gpu.asarray(values, dtype)

    expected = np.asarray(values, dtype)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("call", [lambda give: give(["x"], float), lambda give: give([float("nan")], int)])
def test_asarray_refuses_what_numpy_refuses(call: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError) as expected:  # noqa: PT011
        call(np.asarray)
    with offload(fallback="raise"), pytest.raises(expected.type, match=re.escape(str(expected.value))):
        call(sklearn_wsl_gpu.asarray)


@pytest.mark.parametrize("order", ["K", "A", "C", "F", None])
def test_asarray_takes_numpys_orders_and_no_others(order: Any) -> None:
    with offload(fallback="raise"):
        for values in (VALUES, np.asfortranarray(VALUES)):
            found, expected = sklearn_wsl_gpu.asarray(values, order=order), np.asarray(values, order=order)
            assert found.strides == expected.strides
        with pytest.raises(ValueError, match="order must be one of"):
            sklearn_wsl_gpu.asarray(VALUES, order="Z")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="only 'C' or 'F' order is permitted"):
            sklearn_wsl_gpu.empty((2, 2), order="K")  # type: ignore[arg-type]


_FORKED = """
import os
import numpy as np
from sklearn.preprocessing import StandardScaler
import sklearn_wsl_gpu
with sklearn_wsl_gpu.offload(fallback="raise") as session:
    X = np.random.default_rng(0).normal(size=(200_000, 10))
    Z = StandardScaler().fit_transform(X)
    before = Z.copy()
    assert session.status()["pool_used_bytes"] >= Z.nbytes
    child = os.fork()
    if not child:
        Z *= 0
        os._exit(int(Z.any()))
    assert os.waitpid(child, 0)[1] == 0
    print(np.array_equal(Z, before))
    del Z
    print(session.status()["pool_used_bytes"])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX forks")
def test_a_forked_process_writes_to_results_of_its_own_and_holds_their_memory_while_it_lives() -> None:
    ran = run_python(_FORKED)

    assert ran.stdout.split() == ["True", "0"], ran.stderr
