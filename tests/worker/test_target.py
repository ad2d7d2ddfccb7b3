"""What a worker overwrites, and what it remembers of arrays that lie with the client: nothing beyond the call."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.estimators import ROWS
from sklearn_wsl_gpu.protocol.messages import CallBody
from wsl_worker.calls import _Inputs
from wsl_worker.executor import Executor
from wsl_worker.models import Models
from wsl_worker.target import Space, Target

X = np.random.default_rng(0).normal(size=(40_000, 8))


def _call(lent: list[Any]) -> CallBody:
    return CallBody("StandardScaler", "transform", "cpu", 1, 0, None, [["a", 0]], [], [], lent, [], None, -1, 0)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_a_model_that_was_let_overwrite_its_input_copies_again_whatever_happens(error: Any) -> None:
    model = StandardScaler()
    space = Space(np.zeros(X.nbytes + 2**16, np.uint8), own=False)
    target = Target(ROWS["StandardScaler"], _call([]), [X], [X], space)
    assert target.in_use

    def work() -> None:
        with target.overwriting(model):
            assert model.copy is False
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(error):
            work()
    assert model.copy is True


def test_what_the_client_may_change_between_two_calls_has_a_place_for_one_call_only() -> None:
    span = SpanRef(0, 4096, 8192, 7)
    executor: Any = SimpleNamespace(_views=lambda session, span, refs, *writers: [(X, 64)] if refs else [])

    _, places = Executor._arrays(executor, 1, None, _call([(span, [[]], True), (span, [[]], False)]))

    assert places[0] >= 0 > places[1]


def test_nothing_that_was_made_of_such_an_array_outlives_the_call() -> None:
    models, engine = Models(2**30), SimpleNamespace(name="cuml")
    held, changeable = X[:9], X[9:]
    inputs: Any = _Inputs(models, 1, [held, changeable], [5, -1])
    inputs.keep(engine, held, "held")
    inputs.keep(engine, changeable, "changeable")
    assert inputs.get(engine, changeable) == "changeable"

    inputs.forget_changeable()

    assert inputs.get(engine, changeable) is None
    assert inputs.get(engine, held) == "held"
