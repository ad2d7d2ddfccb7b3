"""Parts of small tables: each is made an array of for the call only, and none is taken for another."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu.state import Encoder
from sklearn_wsl_gpu.testing import assert_same
from tests.parity.cases import on_the_worker

pytestmark = pytest.mark.usefixtures("shared_worker")

_random = np.random.default_rng(0)
TABLES = {
    "one block": pd.DataFrame(np.asfortranarray(_random.normal(size=(60, 4)))),
    "columns": pd.DataFrame({name: _random.normal(size=60) for name in "abcd"}),
    "bools beside numbers": pd.DataFrame(
        {"a": _random.normal(size=60), "b": _random.random(60) > 0.5, "c": _random.integers(0, 9, 60)}
    ),
    "bools beside whole numbers": pd.DataFrame({"b": _random.random(60) > 0.5, "c": _random.integers(0, 9, 60)}),
}
Y = pd.Series(_random.normal(size=60), name="y")
WEIGHTS = pd.DataFrame({"other": Y, "weights": _random.uniform(0.5, 2, size=60)})["weights"]
SLICES: dict[str, Callable[[Any], Any]] = {
    "rows": lambda data: data[10:30],
    "every other row": lambda data: data.iloc[::2],
    "backwards": lambda data: data.iloc[::-1].iloc[:20],
    "every other column": lambda data: data.iloc[:20, ::2] if data.ndim == 2 else data.iloc[:20],
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("part", SLICES)
def test_a_fit_on_parts_of_tables_is_one_on_these_parts(table: str, part: str) -> None:
    X, y, weights = (SLICES[part](data) for data in (TABLES[table], Y, WEIGHTS))
    local = LinearRegression().fit(X, y), LinearRegression().fit(X, y, sample_weight=weights)
    scores = cross_val_score(make_pipeline(StandardScaler(), LinearRegression()), X, y, cv=3)
    with on_the_worker():
        remote = LinearRegression().fit(X, y), LinearRegression().fit(X, y, sample_weight=weights)
        found = cross_val_score(make_pipeline(StandardScaler(), LinearRegression()), X, y, cv=3)

    for one, other in zip(remote, local, strict=True):
        assert_same(one, other)
    np.testing.assert_array_equal(found, scores)


def test_an_array_whose_id_names_a_node_is_held_as_long_as_the_node() -> None:
    encoder = Encoder(strided=True)
    array = np.arange(60.0).reshape(30, 2)[:9:2, :1]
    alive = weakref.ref(array)

    node = encoder.encode(array)
    del array

    assert node[0] == "v"  # what is sent is the memory that it lies in
    assert alive() is not None
