"""One call of a wrapped method, as it passes from policy to adopt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sklearn_wsl_gpu.estimators import METHODS, Row
from sklearn_wsl_gpu.support import Request, facts_of, request_of


class Invocation(NamedTuple):
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
    """

    row: Row
    method: str
    raw: Callable[..., Any]
    estimator: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def data(self) -> Any:
        """The argument X as the user gave it (y for label encoders), or None."""
        if self.args:
            return self.args[0]
        return self.kwargs.get("X", self.kwargs.get("y"))

    @property
    def fits(self) -> bool:
        """Whether it changes the estimator's fitted state."""
        return METHODS[self.method].fits

    def request(self) -> Request:
        """Return what an engine is asked about it."""
        facts = facts_of(self.row, self.method, self.args, self.kwargs)
        return request_of(self.row, self.method, vars(self.estimator), facts)

    def run_here(self) -> Any:
        """Call scikit-learn's own method."""
        return self.raw(self.estimator, *self.args, **self.kwargs)
