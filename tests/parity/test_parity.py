"""With the cpu engine every method of every row gives what local scikit-learn gives, to the last bit."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.validation import has_fit_parameter

from sklearn_wsl_gpu.estimators import METHODS, ROWS
from sklearn_wsl_gpu.testing import first_difference
from tests.parity.cases import (
    CLASSES,
    INPUTS,
    LABELS,
    WEIGHTS,
    data_for,
    do,
    kinds_for,
    make,
    on_the_worker,
    takes_labels,
)

pytestmark = [
    pytest.mark.usefixtures("shared_worker"),
    # What scikit-learn warns of here it warns of there too; test_surroundings looks at that.
    pytest.mark.filterwarnings("ignore"),
]

METHODS_OF_ROWS = [(name, method) for name, row in ROWS.items() for method in row.method_names]
WEIGHTED = [
    (name, method)
    for name, method in METHODS_OF_ROWS
    if METHODS[method].fits and has_fit_parameter(make(name), "sample_weight")
]


def _difference(name: str, method: str, data: Any, target: Any, weights: Any = None) -> str | None:
    local = do(name, method, data, target, weights)
    with on_the_worker():
        remote = do(name, method, data, target, weights)
    return first_difference(local[0], remote[0], "result") or first_difference(local[1], remote[1], name)


@pytest.mark.parametrize(("name", "method"), METHODS_OF_ROWS)
def test_a_method_gives_the_same_for_every_kind_of_input(name: str, method: str) -> None:
    labels = takes_labels(name)
    data, target = (CLASSES, None) if labels else data_for(name)
    kinds = LABELS if labels else INPUTS

    found = {kind: _difference(name, method, kinds[kind](data), target) for kind in kinds_for(name, method)}

    assert {kind: words for kind, words in found.items() if words} == {}


@pytest.mark.parametrize(("name", "method"), WEIGHTED)
def test_a_weighted_fit_gives_the_same(name: str, method: str) -> None:
    data, target = data_for(name)

    assert _difference(name, method, data, target, WEIGHTS) is None
