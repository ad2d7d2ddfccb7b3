"""`first_difference` sees every difference that a user could, and names the first place of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import BallTree, KDTree, NearestNeighbors

from sklearn_wsl_gpu.testing import assert_same, first_difference

X = np.random.default_rng(0).normal(size=(20, 3))


def _forest() -> RandomForestClassifier:
    return RandomForestClassifier(3, random_state=0).fit(X, X[:, 0] > 0)


def _linear() -> LinearRegression:
    return LinearRegression().fit(X, X[:, 0])


@pytest.mark.parametrize(
    "make",
    [
        lambda: None,
        lambda: 3.5,
        lambda: float("nan"),
        lambda: np.float32(2),
        X.copy,
        lambda: np.array(["a", None, 3.0], dtype=object),
        lambda: np.ma.masked_invalid([1.0, np.nan]),
        lambda: scipy.sparse.csr_matrix(X),
        lambda: {"a": [1, (2, X.copy())]},
        lambda: pd.DataFrame(X, columns=list("abc")),
        lambda: KDTree(X),
        lambda: BallTree(X, metric="manhattan"),
        lambda: np.random.RandomState(3),
        _linear,
        _forest,
        lambda: deepcopy(_forest()),
    ],
)
def test_equal_values_have_no_difference(make: Callable[[], Any]) -> None:
    assert first_difference(make(), make()) is None


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (1, 1.0, "it: type"),
        (1, True, "it: type"),
        (1.0, np.float64(1), "it: type"),
        (0.0, -0.0, "it: values"),
        (X, X.astype("f4"), "it: dtype"),
        (X, X[:-1], "it: shape"),
        (X, np.asfortranarray(X), "it: memory order"),
        (X, np.nextafter(X, 9), "it: values 60 of 60"),
        (np.array([0.0]), np.array([-0.0]), "it: values signs of zero"),
        (np.array(["a"]), np.array(["b"]), "it: values"),
        (np.array(["a", None], dtype=object), np.array(["a", 1], dtype=object), r"it\[1\]: type"),
        ([1, [2]], [1, [3]], r"it\[1\]\[0\]: value 2 is not 3"),
        ([1], [1, 2], "it: length 1 is not 2"),
        ({"a": 1}, {"b": 1}, r"it: names \['a'\] is not \['b'\]"),
        ({"a": 1}, {"a": 2}, r"it\['a'\]: value"),
        (scipy.sparse.csr_matrix(X), scipy.sparse.csc_matrix(X), "it: type"),
        (scipy.sparse.csr_matrix(X), scipy.sparse.csr_array(X), "it: type"),
        (scipy.sparse.csr_matrix(X), scipy.sparse.csr_matrix(2 * X), r"it\.data: values"),
        (pd.DataFrame(X), pd.DataFrame(X, columns=list("abc")), r"it\.columns: value"),
        (pd.DataFrame(X), pd.DataFrame(X + 1), "it: values"),
        (KDTree(X), KDTree(X, leaf_size=2), "it"),
        (KDTree(X), BallTree(X), "it: type"),
        (np.random.RandomState(0), np.random.RandomState(1), r"it\['state'\]\['key'\]: values"),
        (NearestNeighbors(), NearestNeighbors(n_neighbors=3), r"it\.n_neighbors: value 5 is not 3"),
    ],
)
def test_a_difference_is_named_with_its_place(one: Any, other: Any, words: str) -> None:
    found = first_difference(one, other, "it")

    assert found is not None
    assert re.match(words, found), found


def test_a_read_only_array_differs_from_a_writable_one() -> None:
    locked = X.copy()
    locked.flags.writeable = False

    assert first_difference(X, locked) == "it: writeable True is not False"


def test_a_strided_view_may_come_back_contiguous() -> None:
    assert first_difference(X[::2], X[::2].copy()) is None


def test_an_attribute_more_or_less_is_a_difference() -> None:
    more = _linear()
    more.extra_ = 1

    assert first_difference(_linear(), more, "model") == "model: names [] is not ['extra_']"


def test_a_node_of_a_tree_inside_a_forest_is_found() -> None:
    changed = _forest()
    changed.estimators_[1].tree_.threshold[0] += 1

    found = first_difference(_forest(), changed, "forest")

    assert found is not None
    assert found.startswith("forest.estimators_[1].tree_[1]['nodes']['threshold']: values 1 of ")


def test_the_padding_between_the_fields_of_a_record_is_no_difference() -> None:
    layout = np.dtype([("flag", "u1"), ("number", "f8")], align=True)
    raw = np.zeros(layout.itemsize, "u1")
    one = raw.view(layout)
    raw_other = raw.copy()
    raw_other[1] = 77

    assert first_difference(one, raw_other.view(layout)) is None


def test_numbers_within_a_tolerance_are_the_same_and_others_are_told_with_their_path() -> None:
    one, other = _linear(), _linear()
    other.coef_ = other.coef_ * (1 + 1e-7)

    assert_same(other, one, rtol=1e-6)
    assert_same(other, one, tolerances={"coef_": (1e-6, 0.0)})
    with pytest.raises(AssertionError, match=r"^LinearRegression\.coef_: values 3 of 3, first"):
        assert_same(other, one)
    with pytest.raises(AssertionError, match=r"^mine\.coef_"):
        assert_same(other, one, rtol=1e-6, tolerances={"coef_": (1e-9, 0.0)}, name="mine")
    with pytest.raises(AssertionError, match=r"\.coef_"):
        assert_same(other, one, tolerances={"intercept_": (1e-3, 0.0)})


def test_a_tolerance_is_for_numbers_and_not_for_what_kind_they_are() -> None:
    for one, other, words in [
        (np.ones(2), np.ones(2, "f4"), "dtype"),
        (np.arange(3), np.arange(3) + 1, "values"),
        (np.array([np.nan, 1.0]), np.array([1.0, 1.0]), "values"),
        (1.0, 1, "type"),
    ]:
        with pytest.raises(AssertionError, match=words):
            assert_same(other, one, rtol=10, atol=10)
    assert_same(np.array([np.nan, 1.0]), np.array([np.nan, 1.001]), atol=0.01)
    assert_same(1.0, 1.001, atol=0.01)


def test_the_tolerance_is_relative_to_what_is_desired() -> None:
    assert_same(np.array([1.1]), np.array([1.0]), rtol=0.1 + 1e-9)
    with pytest.raises(AssertionError):
        assert_same(np.array([1.0]), np.array([0.9]), rtol=0.1)


def test_a_tolerance_for_an_attribute_holds_for_what_the_attribute_holds() -> None:
    forest, other = _forest(), _forest()
    tree = other.estimators_[1].tree_
    tree.threshold[:] = tree.threshold * (1 + 1e-9)

    assert_same(other, forest, tolerances={"estimators_": (1e-6, 0.0)})
    with pytest.raises(AssertionError, match=r"^RandomForestClassifier\.estimators_\[1\]\.tree_"):
        assert_same(other, forest)
