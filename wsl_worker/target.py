"""Results that are computed where they are to lie, by estimators that can overwrite the array they are given."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from sklearn_wsl_gpu.arrays import ArrayRef
from sklearn_wsl_gpu.estimators import MIN_OVERWRITTEN_BYTES, Row
from sklearn_wsl_gpu.pool import placing
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.protocol.messages import CallBody
from sklearn_wsl_gpu.state.encoding import array_key


class Space(NamedTuple):
    """Where a call may compute its result.

    Attributes
    ----------
    span : ndarray of uint8
        The bytes of the span that is granted for the result.
    own : bool
        Whether it is the span of the call's own arrays, which may be overwritten.
    """

    span: Array
    own: bool


class Target:
    """The array X of a call in the span of its result, if it can be overwritten with the result there.

    Without it the estimator makes a copy of X, in fresh memory, whose first touch costs many times the copy itself;
    and that is copied into the span.

    Parameters
    ----------
    row : Row
    call : CallBody
    views : sequence of ndarray
        The arrays of the call.
    arguments : list
        What the method is called with; X is replaced in it.
    space : Space or None

    Attributes
    ----------
    in_use : bool
        Whether there is such an array.
    lost : int
        Number of the call's array that is overwritten; -1 for none.
    """

    def __init__(
        self, row: Row, call: CallBody, views: Sequence[Array], arguments: list[Any], space: Space | None
    ) -> None:
        self.in_use, self.lost = False, -1
        self._row = row
        able = space is not None and call.method in row.overwrites.split() and "copy" not in dict(call.keywords)
        if not able or len(arguments) != 1 or type(arguments[0]) is not np.ndarray:
            return
        assert space is not None
        X: Array = arguments[0]
        if X.nbytes < MIN_OVERWRITTEN_BYTES or X.dtype.kind != "f":
            return
        if space.own:
            own = views[: len(call.refs)]
            self.lost = next((number for number, view in enumerate(own) if view is X), -1)
            if self.lost < 0:
                return
            offset, dtype, shape, order, _ = call.refs[self.lost]
            self._ref = ArrayRef(offset, dtype, tuple(shape), order, True)
            # Behind all that was sent.
            self._end = max(ref[0] + view.nbytes for ref, view in zip(call.refs, own, strict=True))
            X.flags.writeable = True
        else:
            (ref,), self._end = placing.plan([X])
            if self._end > space.span.nbytes:
                return
            self._ref = ref._replace(writeable=True)
            arguments[0] = placing.view(space.span.data, 0, self._ref)
            np.copyto(arguments[0], X)
        self._key = array_key(arguments[0])
        self.in_use = True

    @contextlib.contextmanager
    def overwriting(self, model: Any) -> Iterator[None]:
        """Let a model of plain scikit-learn overwrite X, if that is where the result is to lie."""
        before = {name: getattr(model, name) for name in self._row.copying} if self.in_use else {}
        vars_of = vars(model) if before else {}
        vars_of.update(dict.fromkeys(before, False))
        try:
            yield
        finally:
            vars_of.update(before)

    def plan(self, arrays: Sequence[Array]) -> tuple[list[ArrayRef], int, frozenset[int]]:
        """Return where each array of the result lies, how long the span is, and which of them lie there already."""
        placed = frozenset(number for number, array in enumerate(arrays) if array_key(array) == self._key)
        others, nbytes = placing.plan([array for number, array in enumerate(arrays) if number not in placed], self._end)
        if placed and not others:
            nbytes = self._ref.offset + arrays[min(placed)].nbytes  # what was sent behind it is no part of the result
        rest = iter(others)
        return [self._ref if number in placed else next(rest) for number in range(len(arrays))], nbytes, placed
