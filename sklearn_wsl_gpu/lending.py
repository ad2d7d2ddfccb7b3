"""Arrays that stay in the pool from one call to the next: in a search the data of all fits is that of the last one.

A span that a call was sent in is not given back while a `lending` block runs; later calls of the block, in its thread,
name the arrays in it instead of sending them again. Nobody looks whether they are what they were: no code of a user,
which might change them, may run in a block.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from sklearn_wsl_gpu.arrays import ArrayRef
from sklearn_wsl_gpu.pool import Lease
from sklearn_wsl_gpu.pool.placing import Array


class Loan:
    """A span that is still held, and the arrays that lie in it, which do not change meanwhile.

    Attributes
    ----------
    lease : Lease
    arrays : sequence of ndarray
        The caller's own arrays, held so that no other comes to lie where one was.
    refs : sequence of ArrayRef
        Where each lies in the span.
    """

    def __init__(self, lease: Lease, arrays: Sequence[Array], refs: Sequence[ArrayRef]) -> None:
        self.lease = lease
        self.arrays = arrays
        self.refs = refs


class _Block:
    def __init__(self) -> None:
        self.owner: object = None
        self.loan: Loan | None = None
        self.made: dict[int, tuple[Any, Any]] = {}


_block: ContextVar[_Block | None] = ContextVar("sklearn_wsl_gpu.lending", default=None)


@contextlib.contextmanager
def lending() -> Iterator[None]:
    """Hold the span of the block's first call of many fits until the block is left."""
    outer, block = _block.get(), _Block()
    _block.set(block)
    try:
        yield
    finally:
        _block.set(outer)
        give_back(block)


def stop() -> None:
    """Share nothing any more in the block that runs, because code of a user does so from now on."""
    give_back()
    _block.set(None)


def wanted() -> bool:
    """Tell whether the span of a call would be held."""
    block = _block.get()
    return block is not None and block.loan is None


def lend(owner: Any, loan: Loan) -> None:
    """Hold a span of a session's pool from now on, in the place of one that is held."""
    block = _block.get()
    if block is None:
        loan.lease.release()
        return
    give_back(block)
    block.owner, block.loan = owner, loan


def current(owner: Any) -> Loan | None:
    """Return what is held in the pool of a session; what is held in another's is given back."""
    block = _block.get()
    if block is None:
        return None
    if block.owner is not owner:
        give_back(block)
    return block.loan


def give_back(block: _Block | None = None) -> None:
    """Give the span back that is held, if there is one."""
    block = block or _block.get()
    if block is not None and block.loan is not None:
        loan, block.loan, block.owner = block.loan, None, None
        loan.lease.release()


def once(value: Any, make: Callable[[Any], Any]) -> Any:
    """Return what is made of a value, in a block the very same each time."""
    block = _block.get()
    if block is None:
        return make(value)
    if id(value) not in block.made:
        block.made[id(value)] = (value, make(value))
    return block.made[id(value)][1]


def surrender() -> None:
    """Hold the span no longer, and do not give it back: whoever asks has taken it over."""
    block = _block.get()
    if block is not None:
        block.loan = block.owner = None
