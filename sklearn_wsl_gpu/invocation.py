"""One call of a wrapped method, as it passes from policy to adopt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sklearn_wsl_gpu.estimators import METHODS, Row
from sklearn_wsl_gpu.support import Request, facts_of, names_of, request_of


class Invocation:
    """What was called.

    Attributes
    ----------
    row : Row
        The estimator's row of the table.
    method : str
        Name of the method.
    raw : function
        scikit-learn's own method.
    estimator : estimator
    args, kwargs
        What it is called with.
    data : object
        The first argument, which is X nearly everywhere, as the user gave it; or None.
    fits : bool
        Whether it changes the estimator's fitted state.
    """

    __slots__ = ("args", "data", "estimator", "fits", "kwargs", "method", "raw", "row")

    def __init__(
        self,
        row: Row,
        method: str,
        raw: Callable[..., Any],
        estimator: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self.row, self.method, self.raw = row, method, raw
        self.estimator, self.args, self.kwargs = estimator, args, kwargs
        self.data: Any = args[0] if args else self.argument(0)
        self.fits = METHODS[method].fits

    def argument(self, place: int, default: Any = None) -> Any:
        """Return what a parameter of the method is given, by its place or its name."""
        if place < len(self.args):
            return self.args[place]
        names = names_of(self.row, self.method)
        return self.kwargs.get(names[place], default) if place < len(names) else default

    @property
    def is_in_place(self) -> bool:
        """Whether the caller has it overwrite the data: scikit-learn asks whether `copy` is true, if it is not None."""
        if len(self.args) < 2 and not self.kwargs:
            return False
        names = names_of(self.row, self.method)
        value = self.argument(names.index("copy"), True) if "copy" in names else True
        try:
            return value is not None and not value
        except (TypeError, ValueError):
            return False

    def request(self) -> Request:
        """Return what an engine is asked about it."""
        facts = facts_of(self.row, self.method, self.args, self.kwargs)
        return request_of(self.row, self.method, vars(self.estimator), facts)

    def run_here(self) -> Any:
        """Call scikit-learn's own method."""
        return self.raw(self.estimator, *self.args, **self.kwargs)
