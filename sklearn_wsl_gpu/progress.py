"""Progress of a fit on the worker, shown by the callbacks of the estimator here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sklearn_wsl_gpu import _compat
from sklearn_wsl_gpu.errors import RemoteProtocolError
from sklearn_wsl_gpu.saying import say
from sklearn_wsl_gpu.state import objects

#: As deep as there are estimators in estimators.
ANY_DEPTH = 2**31


def stays(estimator: Any) -> bool:
    """Tell whether an estimator has callbacks that need more than the worker tells.

    Of scikit-learn's own, `ProgressBar` looks at nothing but which tasks begin and end. Any other may look at the
    data or the estimator in the middle of a fit, or stop it.
    """
    return any(type(one) is not _compat.ProgressBar for one in getattr(estimator, "_skl_callbacks", ()))


def depth_of(estimator: Any) -> int:
    """Return how deep the callbacks of an estimator look into its parts, as a message says it; -1 without any."""
    depths = [one.max_propagation_depth for one in getattr(estimator, "_skl_callbacks", ())]
    return max((ANY_DEPTH if depth is None else depth for depth in depths), default=-1)


_NOBODY = contextlib.nullcontext()


class Progress:
    """The tasks of one fit: what the worker tells of them, as contexts of scikit-learn's callbacks.

    Parameters
    ----------
    estimator : estimator
        Whose callbacks are called.
    """

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator
        #: By the ids of tasks: what is known of one, and whose it is.
        self._tasks: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def show(self, events: Sequence[Sequence[Any]]) -> None:
        """Call the callbacks for events of the worker, in their order.

        What hangs on a task of whose begin nothing was heard is passed over: an answer that was lost costs a part
        of the display, and nothing else.

        Raises
        ------
        RemoteProtocolError
            If a task cannot be where the worker says.
        """
        for kind, ids, name, most, sequential, owner, merged in events:
            path = tuple(ids)
            if kind == "end":
                context, estimator = self._tasks.get(path, (None, None))
                if context is not None:
                    context.call_on_fit_task_end(estimator=estimator)
                continue
            if path in self._tasks or (path[:-1] not in self._tasks and path):
                continue
            task = {"task_name": name, "max_subtasks": None if most < 0 else most, "sequential_subtasks": sequential}
            try:
                self._tasks[path] = self._begin(path, task, owner, merged)
            except ValueError as error:
                raise RemoteProtocolError(f"The worker told of a task that cannot be: {error}") from None
            context, estimator = self._tasks[path]
            context.call_on_fit_task_begin(estimator=estimator)

    def finish(self) -> None:
        """Show a fit of which the worker told nothing as one task."""
        if not self._tasks:
            self.show([["begin", [], "fit", 0, True, "", ""], ["end", [], "", 0, False, "", ""]])

    def _begin(self, path: tuple[int, ...], task: dict[str, Any], owner: str, merged: str) -> tuple[Any, Any]:
        if not path:
            return self._estimator._init_callback_context(**task), self._estimator
        if not merged:
            return self._subcontext(path, **task), self._tasks[path[:-1]][1]
        # Callbacks look at no part but at what class it is of.
        part = objects.blank(objects.estimator_class(owner))
        return _compat.merged_context(self._subcontext(path, task_name=merged), part, **task), part

    def _subcontext(self, path: tuple[int, ...], **task: Any) -> Any:
        parent = self._tasks[path[:-1]][0]
        number = None if parent.sequential_subtasks else path[-1]
        return parent.subcontext(task_id=number, **task)


class _FitProgress(Progress):
    """The tasks of one of many fits, whose own task scikit-learn has here already."""

    def __init__(self, estimator: Any, context: Any, number: int) -> None:
        super().__init__(estimator)
        self._context = context
        self._number = number
        self._tasks[()] = (context.parent, estimator)

    def _subcontext(self, path: tuple[int, ...], **task: Any) -> Any:
        return self._context if path == (self._number,) else super()._subcontext(path, **task)


class FitsProgress:
    """The fits of a search or a cross-validation, as they are done: told to scikit-learn's callbacks, or in a line.

    Parameters
    ----------
    fits : sequence of mapping
        What each fit is called with.
    to_stderr : bool
        Whether to say, once a second, how many are done, and the best candidate's mean score so far.
    """

    def __init__(self, fits: Sequence[Mapping[str, Any]], *, to_stderr: bool) -> None:
        self._fits = fits
        self._done: set[int] = set()
        self._to_stderr = to_stderr
        self._told = time.monotonic()
        self._scores: dict[int, list[float]] = {}
        self._tasks: dict[int, _FitProgress] = {}
        self.best: float | None = None
        caller = fits[0].get("caller")
        if getattr(caller, "_skl_callbacks", None):
            self._tasks = {number: _FitProgress(caller, fit["callback_ctx"], number) for number, fit in enumerate(fits)}

    @property
    def depth(self) -> int:
        """How deep the worker is to tell."""
        return max(depth_of(self._fits[0].get("caller")), 0)

    def show(self, events: Sequence[Sequence[Any]]) -> None:
        """Take the worker's word of what is done.

        Raises
        ------
        RemoteProtocolError
            If there is no such fit, or no such task.
        """
        for event in events:
            kind, path, score = event[:3]
            if not path or not 0 <= path[0] < len(self._fits):
                raise RemoteProtocolError("The worker told of a fit that is not there.")
            if kind != "score":
                if self._tasks:
                    self._tasks[path[0]].show([event])
            elif path[0] not in self._done:
                self._done.add(path[0])
                self._note(path[0], score)
        if self._to_stderr and time.monotonic() - self._told >= 1.0:
            self._tell()

    def finish(self) -> None:
        """All are done."""
        self._done.update(range(len(self._fits)))
        if self._to_stderr:
            self._tell()

    def _note(self, place: int, score: str) -> None:
        candidate, splits = self._fits[place].get("candidate_progress"), self._fits[place].get("split_progress")
        if candidate is None or splits is None or not score:
            return
        scores = self._scores.setdefault(candidate[0], [])
        try:
            scores.append(float(score))
        except ValueError:
            raise RemoteProtocolError("The worker told of a score that is no number.") from None
        if len(scores) == splits[1]:
            mean = sum(scores) / len(scores)
            self.best = mean if self.best is None or not self.best >= mean else self.best

    def _tell(self) -> None:
        self._told = time.monotonic()
        best = "" if self.best is None else f", best score so far {self.best:.4g}"
        say(f"{len(self._done)} of {len(self._fits)} fits{best}")


def watched(estimator: Any, *, fits: bool) -> contextlib.AbstractContextManager[Progress | None]:
    """Return a context of what shows the progress of a fit, or of None where nobody watches."""
    return _watched(estimator) if fits and getattr(estimator, "_skl_callbacks", None) else _NOBODY


@contextlib.contextmanager
def _watched(estimator: Any) -> Iterator[Progress]:
    with _compat.callback_management_context(estimator):  # which tears the callbacks down at the end
        yield Progress(estimator)
