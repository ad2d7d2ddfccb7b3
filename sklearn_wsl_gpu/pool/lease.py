"""The right to use a span."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.errors import DeadlineExceeded, PoolTooSmall


class Owner(Protocol):
    """Who gave a lease, and takes it back."""

    def take_back(self, lease: Lease) -> None:
        """Free a span now."""

    def take_back_later(self, lease: Lease) -> None:
        """Free a span from a finalizer: without waiting for a lock."""


class Lease:
    """The right to use a span until it is released. Releasing twice is harmless.

    Attributes
    ----------
    entrusted : bool
        Whether the worker may be writing to it: then only an explicit release makes it free.
    """

    __slots__ = ("_pid", "_pool", "_released", "entrusted", "ref", "size")

    def __init__(self, pool: Owner, ref: SpanRef, size: int) -> None:
        self._pool = pool
        self._released = False
        self.entrusted = False
        self._pid = os.getpid()
        self.ref = ref
        self.size = size

    def __repr__(self) -> str:
        state = "released" if self._released else "held"
        return f"<Lease {self.size} bytes, generation {self.ref.generation}, {state}>"

    def __del__(self) -> None:
        # An interrupt may come between the grant and the first line that would release it, but also between sending
        # it and the line that would set it aside.
        if not self.entrusted:
            self.release_later()

    def release(self) -> None:
        """Give the span back; it may be reused at once."""
        if not self._released:
            self._released = True
            self._pool.take_back(self)

    def release_later(self) -> None:
        """Give the span back from a finalizer: never blocks, and does nothing in a forked child."""
        if not self._released and os.getpid() == self._pid:
            self._released = True
            self._pool.take_back_later(self)


def entrust(leases: Sequence[Lease], entrusted: bool) -> None:
    """Note that the worker may write to these spans from now on, or that it does no more."""
    for lease in leases:
        lease.entrusted = entrusted


def too_small(nbytes: int, largest: int, limit: int) -> PoolTooSmall:
    """Return the error of a call that the pool can never hold."""
    return PoolTooSmall(
        f"The arrays of this call take {nbytes / 1e6:.0f} MB, and the pool holds at most {largest / 1e6:.0f} MB at a "
        f"time (its input and scratch slots), and grows to {limit / 1e6:.0f} MB. Enlarge it with offload(slots=…), "
        "offload(slot_bytes=…) or offload(pool_limit=…), or SKLEARN_WSL_GPU_SLOTS / SKLEARN_WSL_GPU_SLOT_BYTES / "
        "SKLEARN_WSL_GPU_POOL_LIMIT."
    )


def no_room(nbytes: int) -> DeadlineExceeded:
    """Return the error of a call that has waited for room until its deadline."""
    return DeadlineExceeded(
        f"The pool had no room for {nbytes / 1e6:.0f} MB before the call's deadline. Raise timeout, enlarge the pool "
        "(slots, slot_bytes, pool_limit), or run fewer calls at once."
    )


def all_kept(nbytes: int, limit: int) -> PoolTooSmall:
    """Return the error of a call that would have to wait for the user to let go of results."""
    return PoolTooSmall(
        f"The arrays of this call take {nbytes / 1e6:.0f} MB, and the only segments of the pool that are large enough "
        f"hold results that are kept; it grows to {limit / 1e6:.0f} MB. Delete results, or enlarge it with "
        "offload(slots=…), offload(slot_bytes=…) or offload(pool_limit=…)."
    )
