"""What is sent in single precision: X, to an engine that would make it so itself, if the user allows it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from sklearn_wsl_gpu import support
from sklearn_wsl_gpu.estimators import ROWS
from sklearn_wsl_gpu.gather import Gathered, gather
from sklearn_wsl_gpu.invocation import Invocation
from sklearn_wsl_gpu.pool import Geometry, Pool, placing

X = np.random.default_rng(0).normal(size=(5_000, 20))
Y = np.arange(5_000.0)
SINGLE = {"KNeighborsRegressor", "KNeighborsClassifier", "NearestNeighbors", "TSNE", "HDBSCAN"}


@pytest.fixture
def pool() -> Iterator[Pool]:
    with closing(Pool(Geometry(2**20, 4, 1, 0))) as made:
        yield made


def _gathered(pool: Pool, data: Any, single: bool) -> Gathered:
    row = ROWS["KNeighborsRegressor"]
    assert row.cls is not None
    return gather(Invocation(row, "fit", row.cls.fit, row.cls(), (data, Y), {}), "cuml", 0, 0, pool, single=single)


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray, lambda X: X[::2]])
def test_x_is_written_in_single_precision_and_y_is_not(pool: Pool, layout: Any) -> None:
    data = layout(X)
    exact, found = _gathered(pool, data, False), _gathered(pool, data, True)
    lease = pool.lease_input(found.nbytes)
    pool.put(lease, found.refs, found.arrays)
    sent = [placing.view(pool.segment.map, lease.ref.start, ref) for ref in found.refs]

    assert exact.nbytes - found.nbytes >= data.nbytes // 2 - 4096
    assert [array.dtype for array in sent] == [np.float32, np.float64]
    np.testing.assert_array_equal(sent[0], data.astype(np.float32))
    np.testing.assert_array_equal(sent[1], Y)
    del sent
    lease.release()


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.float16])
def test_what_is_not_in_double_precision_is_sent_as_it_is(pool: Pool, dtype: Any) -> None:
    data = (100 * X).astype(dtype)

    assert _gathered(pool, data, True).refs[0].dtype == np.dtype(dtype).str


def test_only_engines_that_compute_in_nothing_else_are_said_to_do_so() -> None:
    assert {name for name in ROWS if support.is_single("cuml", ROWS[name])} == SINGLE
    assert not any(support.is_single(engine, row) for engine in ("cpu", "array_api") for row in ROWS.values())


def test_a_table_is_written_in_single_precision_too(pool: Pool) -> None:
    pd = pytest.importorskip("pandas")

    exact, found = _gathered(pool, pd.DataFrame(X), False), _gathered(pool, pd.DataFrame(X), True)

    assert exact.nbytes - found.nbytes >= X.nbytes // 2 - 4096


def test_what_is_too_large_for_single_precision_is_for_the_engine_to_refuse(pool: Pool) -> None:
    found = _gathered(pool, np.where(X > 2, 1e300, X), True)
    lease = pool.lease_input(found.nbytes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # local scikit-learn warns of nothing
        pool.put(lease, found.refs, found.arrays)

    sent = placing.view(pool.segment.map, lease.ref.start, found.refs[0])
    assert np.isinf(sent).sum() == (X > 2).sum()
    del sent
    lease.release()
