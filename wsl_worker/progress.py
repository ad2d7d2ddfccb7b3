"""The tasks of a fit, as scikit-learn's callbacks see them, told while it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from sklearn.base import BaseEstimator

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # before scikit-learn 1.9
    CallbackSupportMixin = None

Event = list[Any]
Tell = Callable[[Event], None]
#: As deep as there are estimators in estimators.
ANY_DEPTH = 2**31


class _Teller:
    """A callback in scikit-learn's sense: it tells of every task that begins and ends, in parts of estimators too."""

    def __init__(self, tell: Tell, depth: int) -> None:
        self._tell = tell
        self.max_propagation_depth = None if depth >= ANY_DEPTH else depth

    def setup(self, estimator: Any, context: Any) -> None:
        """Nothing is kept here."""

    def teardown(self, estimator: Any, context: Any) -> None:
        """Nothing is kept here."""

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        most = -1 if context.max_subtasks is None else context.max_subtasks
        merged = context.source_task_name or ""
        name = type(estimator).__name__
        self._tell(["begin", _path(context), context.task_name, most, context.sequential_subtasks, name, merged])

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        self._tell(["end", _path(context), "", 0, False, "", ""])


def _path(context: Any) -> list[int]:
    path: list[int] = []
    while context.parent is not None:
        path.insert(0, context.task_id)
        context = context.parent
    return path


@contextlib.contextmanager
def told(model: Any, tell: Tell, depth: int) -> Iterator[None]:
    """Tell of the tasks of a model, in a ``with`` block; of one that has no callbacks there is nothing to tell.

    Parameters
    ----------
    model : object
    tell : callable
        Takes each event.
    depth : int
        How deep in estimators that are made of others, as ``max_propagation_depth`` of scikit-learn's callbacks;
        `ANY_DEPTH` for everything.
    """
    if not hasattr(model, "_init_callback_context"):
        yield
        return
    # Not by set_callbacks: what it has to say of a solver was said when the user called it.
    model._skl_callbacks = [_Teller(tell, depth)]
    try:
        yield
    finally:
        del model._skl_callbacks


class ToldFits:
    """Tells of fits of a search or a cross-validation: their scores, and their tasks by the number of the fit.

    Parameters
    ----------
    tell : callable
        Takes each event.
    depth : int
        As in `told`.
    """

    def __init__(self, tell: Tell, depth: int) -> None:
        self._tell = tell
        self._caller: Any = None
        if CallbackSupportMixin is not None:
            self._caller = type("Search", (CallbackSupportMixin, BaseEstimator), {})()
            self._caller._skl_callbacks = [_Teller(tell, depth)]
            self._root = self._caller._init_callback_context(max_subtasks=None, sequential_subtasks=False)

    def arguments(self, number: int) -> dict[str, Any]:
        """Return what scikit-learn's function for one fit is to be told of who watches."""
        if self._caller is None:
            return {}
        context = self._root.subcontext(task_name="candidate-split-evaluation", task_id=number)
        return {"caller": self._caller, "callback_ctx": context}

    def score(self, number: int, score: Any) -> None:
        """Tell that a fit is done."""
        self._tell(["score", [number], repr(float(score)) if isinstance(score, float) else "", 0, False, "", ""])
