"""Requests that were given up: their spans are used again when the worker has confirmed that it writes no more."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence

from sklearn_wsl_gpu.errors import OffloadError, WorkerDied, WorkerUnavailable
from sklearn_wsl_gpu.pool import Lease
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.protocol import messages as m
from sklearn_wsl_gpu.sockets import Wire, unless_shut_down

_SETTLE_SECONDS = 2.0


class Abandoned:
    """The requests of a session that were given up, and their spans.

    Parameters
    ----------
    session : bytes
        The session's token.
    connect : callable
        Returns a new wire.
    """

    def __init__(self, session: bytes, connect: Callable[[], Wire]) -> None:
        self._session = session
        self._connect = connect
        self._waiting: list[tuple[int, list[Lease], Sequence[Array]]] = []
        self._lock = threading.Lock()

    def add(self, number: int, leases: list[Lease], lent: Sequence[Array], wire: Wire | None) -> None:
        """Give up a request.

        Parameters
        ----------
        number : int
        leases : list of Lease
            Released when nothing is written to their spans any more.
        lent : sequence of ndarray
            Arrays of its that lie in the pool; held as long, since their spans are free when they are collected.
        wire : Wire or None
            The one that it was sent by; None if nothing was sent.
        """
        if wire is None:
            for lease in leases:
                lease.release()
            return
        # Until the worker confirms, it may still write to these spans.
        with self._lock:
            self._waiting.append((number, leases, lent))
        with contextlib.suppress(OffloadError), unless_shut_down:
            wire.tell(m.Cancel(self._session, number))
        wire.close(linger_ms=500)

    def settle(self, deadline: float | None = None) -> bool:
        """Release what the worker confirms until a deadline; tell whether there is a worker."""
        if not self._waiting:
            return True
        with self._lock:
            waiting, self._waiting = self._waiting, []
        try:
            while waiting and self._is_over(waiting[-1][0], deadline):
                for lease in waiting.pop()[1]:
                    lease.release()
        except WorkerUnavailable:
            return False
        finally:  # an interrupt may come here too
            with self._lock:
                self._waiting += waiting
        return True

    def wait(self, deadline: float | None) -> None:
        """As `settle`, for who needs the spans; a `WorkerDied` if there is no worker."""
        if not self.settle(deadline):
            raise WorkerDied("The worker is gone, and with it what a call waited for.")

    def _is_over(self, number: int, deadline: float | None) -> bool:
        """Tell whether the worker confirms that it writes no more for a request."""
        wire, until = self._connect(), time.monotonic() + _SETTLE_SECONDS
        try:
            answer, _ = wire.ask(
                m.Cancel(self._session, number), b"", until if deadline is None else min(until, deadline)
            )
        except WorkerUnavailable:
            raise
        except OffloadError:
            return False
        finally:
            wire.close()
        return isinstance(answer, m.Cancelled)
