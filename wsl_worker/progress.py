"""The tasks of a fit, as scikit-learn's callbacks see them, told while it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

Event = list[Any]


class _Teller:
    """A callback in scikit-learn's sense: it tells of every task that begins and ends."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell

    def setup(self, estimator: Any, context: Any) -> None:
        """Nothing is kept here."""

    def teardown(self, estimator: Any, context: Any) -> None:
        """Nothing is kept here."""

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        most = -1 if context.max_subtasks is None else context.max_subtasks
        self._tell(["begin", _path(context), context.task_name, most, context.sequential_subtasks])

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        self._tell(["end", _path(context), "", 0, False])


def _path(context: Any) -> list[int]:
    path: list[int] = []
    while context.parent is not None:
        path.insert(0, context.task_id)
        context = context.parent
    return path


@contextlib.contextmanager
def told(model: Any, tell: Callable[[Event], None]) -> Iterator[None]:
    """Tell of the tasks of a model, in a ``with`` block; of one that has no callbacks there is nothing to tell."""
    if not hasattr(model, "_init_callback_context"):
        yield
        return
    # Not by set_callbacks: what it has to say of a solver was said when the user called it.
    model._skl_callbacks = [_Teller(tell)]
    try:
        yield
    finally:
        del model._skl_callbacks
