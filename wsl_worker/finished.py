"""What a call came to, and where its arrays are to lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sklearn_wsl_gpu.arrays import ArrayRef
from sklearn_wsl_gpu.pool import placing
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.protocol.messages import ResultBody
from wsl_worker.target import Target


class Finished(NamedTuple):
    """What a call came to.

    Attributes
    ----------
    body : ResultBody
    arrays : list of ndarray
        What belongs to it and lies in a span.
    refs, nbytes
        Where each is to lie in the span, and the bytes that takes.
    placed : frozenset of int
        Numbers of those that lie there already.
    """

    body: ResultBody
    arrays: list[Array]
    refs: list[ArrayRef]
    nbytes: int
    placed: frozenset[int] = frozenset()

    def anew(self, arrays: list[Array]) -> Finished:
        """Return the same with other arrays of the same values, of which none lies anywhere yet."""
        return _in_span(self.body, arrays, *placing.plan(arrays))


def finish(body: ResultBody, arrays: Sequence[Array], inline: int, target: Target | None) -> Finished:
    """Return what a call came to.

    Parameters
    ----------
    body : ResultBody
        Without its refs.
    arrays : sequence of ndarray
        What its nodes count into.
    inline : int
        Bytes of arrays that may travel in the body.
    target : Target or None
        Where the result has been computed.
    """
    if target is not None and target.in_use:
        return _in_span(body, arrays, *target.plan(arrays))
    if sum(array.nbytes for array in arrays) <= inline:
        return Finished(body._replace(refs=[placing.inline(array) for array in arrays]), [], [], 0)
    return _in_span(body, arrays, *placing.plan(arrays))


def _in_span(
    body: ResultBody, arrays: Sequence[Array], refs: list[ArrayRef], nbytes: int, placed: frozenset[int] = frozenset()
) -> Finished:
    return Finished(body._replace(refs=[list(ref) for ref in refs]), list(arrays), refs, nbytes, placed)
