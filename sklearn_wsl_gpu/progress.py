"""Progress of a fit on the worker, shown by the callbacks of the estimator here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from sklearn_wsl_gpu import _compat
from sklearn_wsl_gpu.errors import RemoteProtocolError


def stays(estimator: Any) -> bool:
    """Tell whether an estimator has callbacks that need more than the worker tells.

    Of scikit-learn's own, `ProgressBar` looks at nothing but which tasks begin and end. Any other may look at the
    data or the estimator in the middle of a fit, or stop it.
    """
    return any(type(one) is not _compat.ProgressBar for one in getattr(estimator, "_skl_callbacks", ()))


class Progress:
    """The tasks of one fit: what the worker tells of them, as contexts of scikit-learn's callbacks.

    Parameters
    ----------
    estimator : estimator
        Whose callbacks are called.
    """

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator
        self._contexts: dict[tuple[int, ...], Any] = {}

    def show(self, events: Sequence[Sequence[Any]]) -> None:
        """Call the callbacks for events of the worker, in their order.

        What hangs on a task of whose begin nothing was heard is passed over: an answer that was lost costs a part
        of the display, and nothing else.

        Raises
        ------
        RemoteProtocolError
            If a task cannot be where the worker says.
        """
        for kind, ids, name, most, sequential in events:
            path = tuple(ids)
            if kind == "end":
                context = self._contexts.get(path)
                if context is not None:
                    context.call_on_fit_task_end(estimator=self._estimator)
                continue
            if path in self._contexts or (path[:-1] not in self._contexts and path):
                continue
            try:
                context = self._begin(path, name, None if most < 0 else most, sequential)
            except ValueError as error:
                raise RemoteProtocolError(f"The worker told of a task that cannot be: {error}") from None
            self._contexts[path] = context
            context.call_on_fit_task_begin(estimator=self._estimator)

    def finish(self) -> None:
        """Show a fit of which the worker told nothing as one task."""
        if not self._contexts:
            self.show([["begin", [], "fit", 0, True], ["end", [], "", 0, False]])

    def _begin(self, path: tuple[int, ...], name: str, most: int | None, sequential: bool) -> Any:
        if not path:
            return self._estimator._init_callback_context(
                task_name=name, max_subtasks=most, sequential_subtasks=sequential
            )
        parent = self._contexts[path[:-1]]
        number = None if parent.sequential_subtasks else path[-1]
        return parent.subcontext(task_name=name, task_id=number, max_subtasks=most, sequential_subtasks=sequential)


@contextlib.contextmanager
def watched(estimator: Any, *, fits: bool) -> Iterator[Progress | None]:
    """Yield what shows the progress of a fit, or None where nobody watches; callbacks are torn down at the end."""
    if not fits or not getattr(estimator, "_skl_callbacks", None):
        yield None
        return
    with _compat.callback_management_context(estimator):
        yield Progress(estimator)
