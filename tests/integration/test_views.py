"""Large results are views that the user owns; the pool gets their memory back, and never runs out because of them."""

from __future__ import annotations

import gc
import os
import pickle
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import DBSCAN
from sklearn.kernel_approximation import Nystroem
from sklearn.preprocessing import Binarizer, MaxAbsScaler, MinMaxScaler, Normalizer, StandardScaler

from sklearn_wsl_gpu import offload, sessions
from sklearn_wsl_gpu.pool.machine import available_memory
from sklearn_wsl_gpu.pool.thresholds import Thresholds

LARGE = np.random.default_rng(0).normal(size=(50_000, 8))
SMALL = LARGE[:100]
GIGABYTE = 10**9

pytestmark = pytest.mark.usefixtures("running_worker")


def _expected(X: np.ndarray) -> np.ndarray:
    return StandardScaler().fit(X).transform(X)


def test_a_large_result_is_a_writable_view_that_gives_its_memory_back_when_collected() -> None:
    with offload(fallback="raise") as session:
        result = StandardScaler().fit_transform(LARGE)
        assert int(str(session.status()["pool_kept_bytes"])) >= LARGE.nbytes
        part = result[::7, 1:3].T
        result[0] = 5.0
        assert part[0, 0] == 5.0
        del result
        gc.collect()
        assert int(str(session.status()["pool_kept_bytes"])) > 0
        del part
        gc.collect()
        assert session.status()["pool_kept_bytes"] == 0
        assert session.status()["pool_used_bytes"] == 0


def test_a_small_result_and_fitted_attributes_are_private() -> None:
    with offload(fallback="raise") as session:
        scaler = StandardScaler().fit(SMALL)
        result = scaler.transform(SMALL)
        assert result.flags.writeable
        assert session.status()["pool_used_bytes"] == 0
        np.testing.assert_array_equal(result, _expected(SMALL))


@pytest.mark.usefixtures("own_worker")
def test_a_large_fitted_attribute_is_not_copied_either_and_the_model_is_an_ordinary_one() -> None:
    local = Nystroem(n_components=500, random_state=0).fit(LARGE[:700])
    with offload(fallback="raise") as session:
        model = Nystroem(n_components=500, random_state=0).fit(LARGE[:700])
        assert int(str(session.status()["pool_kept_bytes"])) >= 1_000_000
    sessions.shutdown()

    np.testing.assert_array_equal(model.normalization_, local.normalization_)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.transform(LARGE[:9]), local.transform(LARGE[:9]))


def test_a_fit_whose_reply_is_mostly_copied_holds_no_part_of_the_pool() -> None:
    X = np.linspace(0, 1, 20_000)[:, None]
    local = DBSCAN(eps=0.01, min_samples=2).fit(X)
    with offload(fallback="raise") as session:
        DBSCAN().fit(X[:10])
        live = sessions.obtain(session.settings)
        assert live.room.ready.wait(60)
        live.pool.thresholds = Thresholds(inline=0, view=64 * 1024)

        model = DBSCAN(eps=0.01, min_samples=2).fit(X)

        # One float for each two indices, which are private copies.
        assert model.components_.nbytes > 2 * 64 * 1024
        assert session.status()["pool_used_bytes"] == 0
    np.testing.assert_array_equal(model.components_, local.components_)
    np.testing.assert_array_equal(model.labels_, local.labels_)


def test_kept_results_never_starve_the_pool() -> None:
    expected = _expected(LARGE)
    with offload(fallback="raise", slots=(1, 2, 1), slot_bytes=2**23, pool_limit=0) as session:
        kept = [StandardScaler().fit_transform(LARGE) for _ in range(12)]
        assert int(str(session.status()["pool_kept_bytes"])) <= 2 * 2**23
        for result in kept:
            np.testing.assert_array_equal(result, expected)
        del kept, result
        gc.collect()
        assert session.status()["pool_used_bytes"] == 0


def test_kept_results_are_not_overwritten_by_later_calls() -> None:
    with offload(fallback="raise"):
        first = StandardScaler().fit_transform(LARGE)
        copy = first.copy()
        for factor in range(2, 6):
            StandardScaler().fit_transform(LARGE * factor + factor)
        np.testing.assert_array_equal(first, copy)


@pytest.mark.usefixtures("own_worker")
def test_kept_results_outlive_their_worker_and_their_session() -> None:
    with offload(fallback="raise") as session:
        result = StandardScaler().fit_transform(LARGE)
        os.kill(int(str(session.status()["pid"])), signal.SIGKILL)
    sessions.shutdown()

    np.testing.assert_array_equal(result, _expected(LARGE))
    result += 1.0


@pytest.mark.parametrize(
    "X",
    [
        np.asfortranarray(LARGE),
        LARGE[::2, ::3],
        LARGE[::-1],
        LARGE.T[:3].T,
        LARGE.astype(np.float32),
        LARGE.astype(np.float16),
        (LARGE * 100).astype(np.int16),
        LARGE > 0,
    ],
    ids=["Fortran", "strided", "reversed", "transposed", "float32", "float16", "int16", "bool"],
)
def test_every_layout_and_dtype_gives_what_local_scikit_learn_gives(X: np.ndarray) -> None:
    local = _expected(X)
    with offload(fallback="raise"):
        remote = StandardScaler().fit(X).transform(X)

    assert remote.dtype == local.dtype
    np.testing.assert_array_equal(remote, local)


def test_a_read_only_input_stays_as_it_is() -> None:
    X = LARGE.copy()
    X.flags.writeable = False
    with offload(fallback="raise"):
        np.testing.assert_array_equal(StandardScaler().fit_transform(X), _expected(X))

    np.testing.assert_array_equal(X, LARGE)


@pytest.mark.slow
@pytest.mark.skipif((available_memory() or 0) < 9 * GIGABYTE, reason="needs 9 GB of memory")
def test_an_array_larger_than_several_slots_works_by_default() -> None:
    X = np.ones((1536 * 2**20 // 8 // 64, 64))
    X[::2] = 3.0

    with offload(fallback="raise") as session:
        scaler = StandardScaler().fit(X)

    assert session.report().calls[0].bytes_sent > 1.5 * 2**30
    np.testing.assert_array_equal(scaler.mean_, np.full(64, 2.0))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    "layout",
    [np.ascontiguousarray, np.asfortranarray, lambda X: X[::2, ::3], lambda X: np.broadcast_to(X, X.shape)],
    ids=["C", "Fortran", "strided", "read-only"],
)
def test_what_is_computed_where_it_was_sent_is_what_a_copy_gives(
    dtype: Any, layout: Callable[[np.ndarray], np.ndarray]
) -> None:
    X = layout(np.tile(LARGE, (6, 1)).astype(dtype))
    before = X.copy()

    def results(cls: Any) -> list[np.ndarray]:
        names = [name for name in ("transform", "inverse_transform") if hasattr(cls, name)]
        return [cls().fit_transform(X), *[getattr(cls().fit(X), name)(X) for name in names]]

    for cls in (StandardScaler, MinMaxScaler, MaxAbsScaler, Normalizer, Binarizer):
        local = results(cls)
        with offload(fallback="raise") as session:
            remote = results(cls)
            kept = sessions.obtain(session.settings).pool.view_bytes
            assert 0 <= kept - X.nbytes * len(remote) < 2**20, "nothing is kept but the results"

        np.testing.assert_array_equal(X, before)
        for here, there in zip(local, remote, strict=True):
            assert (there.dtype, there.strides, there.flags.writeable) == (here.dtype, here.strides, True)
            np.testing.assert_array_equal(there, here)
        del local, remote, here, there


def test_a_result_that_lies_before_something_else_that_was_sent_can_be_passed_on() -> None:
    X, weights = np.tile(LARGE[:, :1], (20, 1)), np.ones(20 * len(LARGE))
    with offload(fallback="raise") as session:
        result = StandardScaler(with_mean=False, with_std=False).fit_transform(X, sample_weight=weights)
        assert sessions.obtain(session.settings).pool.find_kept(result) is not None
        scaler = StandardScaler().fit(result)

    np.testing.assert_array_equal(scaler.mean_, StandardScaler().fit(X).mean_)


def test_a_model_that_was_fitted_by_the_worker_still_copies_when_it_is_used_here() -> None:
    with offload(fallback="raise"):
        scaler = StandardScaler()
        scaler.fit_transform(LARGE)
        scaler.transform(LARGE)
    X = LARGE.copy()
    scaler.transform(X)

    assert scaler.copy is True
    np.testing.assert_array_equal(X, LARGE)
