"""Fits that a client asks for are checked before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import get_scorer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from sklearn_wsl_gpu.errors import OffloadError, RemoteProtocolError, Unsupported
from sklearn_wsl_gpu.state.splits import Rows
from tests.parity.cases import CLASSES, X
from wsl_worker.fits import Fits

TEST = Rows(np.arange(0, 60, 2), 60)
TRAIN = Rows(np.arange(1, 60, 2), 60, TEST)
COMMON: dict[str, Any] = {
    "scorer": get_scorer("accuracy"), "verbose": 0, "fit_params": None, "score_params": None, "error_score": "raise",
}  # fmt: skip


def _asked() -> dict[str, Any]:
    return {
        "function": "fit_and_score", "estimators": [make_pipeline(StandardScaler(), SVC())],
        "candidates": [{"svc__C": 1.0}], "splits": [[TRAIN, TEST]], "fits": [(0, 0, 0, {})], "common": dict(COMMON),
    }  # fmt: skip


def _run(asked: dict[str, Any]) -> Any:
    arguments = [X, CLASSES, *(asked[name] for name in ("estimators", "candidates", "splits", "fits"))]
    fits = Fits(asked["function"], arguments, asked["common"])
    list(fits.requests({}))
    return fits.run(None)


def test_what_is_asked_rightly_is_done() -> None:
    assert set(_run(_asked())[0]) == {"fit_error", "test_scores"}


MALFORMED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an estimator that is not there": lambda asked: asked.update(fits=[(1, 0, 0, {})]),
    "a negative number": lambda asked: asked.update(fits=[(0, -1, 0, {})]),
    "a number that is none": lambda asked: asked.update(fits=[(0, "a", 0, {})]),
    "a split that is not there": lambda asked: asked.update(fits=[(0, 0, 3, {})]),
    "a split that is none": lambda asked: asked.update(splits=[[TRAIN, np.arange(3)]]),
    "half a split": lambda asked: asked.update(splits=[[TRAIN]]),
    "an argument that no fit has": lambda asked: asked.update(fits=[(0, 0, 0, {"estimator": 1})]),
    "a setting that no fit has": lambda asked: asked["common"].update(caller=1),
    "a candidate that is none": lambda asked: asked.update(candidates=["a"]),
    "too few fields": lambda asked: asked.update(fits=[(0, 0)]),
    "no list": lambda asked: asked.update(fits=None),
    "another function": lambda asked: asked.update(function="__import__"),
    "a method that fits": lambda asked: asked["common"].update(method="fit"),
    "a method that is none": lambda asked: asked["common"].update(method="__reduce__"),
    "a class that is none of the table": lambda asked: asked.update(estimators=[DecisionTreeClassifier()]),
    "a part that is none of the table": lambda asked: asked.update(candidates=[{"svc": DecisionTreeClassifier()}]),
    "a cache on disk": lambda asked: asked.update(candidates=[{"memory": "/tmp/cache"}]),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused_before_anything_is_done(name: str) -> None:
    asked = _asked()
    MALFORMED[name](asked)

    with pytest.raises(OffloadError) as caught:
        _run(asked)
    assert isinstance(caught.value, (RemoteProtocolError, Unsupported))


@pytest.mark.parametrize(
    "numbers", [np.array([0, 60]), np.array([-1]), np.array([0.0]), np.array([[0]]), [0, 1], np.array([0], "i4")]
)
def test_rows_that_are_none_are_no_split(numbers: Any) -> None:
    with pytest.raises(Unsupported):
        Rows(numbers, 60)


@pytest.mark.parametrize(
    "numbers", [np.arange(60), np.array([5, 3, 3]), np.array([], np.int64), np.arange(0, 60, 7), np.array([59])]
)
def test_rows_come_back_as_they_were(numbers: Any) -> None:
    from sklearn_wsl_gpu.state import Decoder, Encoder

    encoder = Encoder()
    test = Rows(numbers, 60)
    node = encoder.encode([Rows(np.setdiff1d(np.arange(60), numbers), 60, test), test])
    train, again = Decoder(encoder.arrays).decode(node)

    np.testing.assert_array_equal(again.numbers, numbers)
    np.testing.assert_array_equal(train.numbers, np.setdiff1d(np.arange(60), numbers))
    assert again.numbers.dtype == np.int64
