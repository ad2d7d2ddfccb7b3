"""One call of a wrapped method, as it passes from policy to adopt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sklearn_wsl_gpu.estimators import METHODS, Row
from sklearn_wsl_gpu.support import Request, facts_of, request_of


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
        The argument X as the user gave it (y for label encoders), or None.
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
        self.data: Any = args[0] if args else kwargs.get("X", kwargs.get("y"))
        self.fits = METHODS[method].fits

    def request(self) -> Request:
        """Return what an engine is asked about it."""
        facts = facts_of(self.row, self.method, self.args, self.kwargs)
        return request_of(self.row, self.method, vars(self.estimator), facts)

    def run_here(self) -> Any:
        """Call scikit-learn's own method."""
        return self.raw(self.estimator, *self.args, **self.kwargs)
