"""When a call is done once more after memory has run out: never where that would go on from what has failed."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu.estimators import find
from wsl_worker.calls import _is_warm


@pytest.mark.parametrize(
    ("estimator", "is_warm"),
    [
        (RandomForestClassifier(), False),
        (RandomForestClassifier(warm_start=True), True),
        (StandardScaler(), False),
        (make_pipeline(StandardScaler(), RandomForestClassifier()), False),
        (make_pipeline(StandardScaler(), RandomForestClassifier(warm_start=True)), True),
    ],
    ids=str,
)
def test_a_warm_start_is_known_wherever_it_is(estimator: Any, is_warm: bool) -> None:
    row = find(type(estimator).__name__)
    assert row is not None

    assert _is_warm(row, vars(estimator)) is is_warm
