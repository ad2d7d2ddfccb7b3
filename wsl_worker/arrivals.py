"""How far the arrays of requests that are not called yet have come. Book-keeping only.

What has come may be copied to a device, while the rest is on its way.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import NamedTuple

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.pool.layout import SPAN_HEADER_BYTES

#: A client that begins transfers, and neither calls nor cancels, is followed no further.
_MAX_FOLLOWED = 256


class Arrival(NamedTuple):
    """What has come of a span.

    Attributes
    ----------
    transfer : int
        Another for each time that the span is sent; never given twice in a session.
    span : SpanRef
    nbytes : int
        Of the span, from its start on; the header comes last all the same. 0 says that the transfer came to nothing.
    """

    transfer: int
    span: SpanRef
    nbytes: int


class Arrivals:
    """The arrivals of one session, noted by the threads that receive.

    Parameters
    ----------
    tell : callable
        Takes each arrival; called by those threads, and must not wait for them.
    """

    def __init__(self, tell: Callable[[Arrival], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._known: dict[tuple[int, SpanRef], Arrival] = {}

    def note(self, request: int, span: SpanRef, begin: int, end: int) -> None:
        """Take note that bytes of a span have come for a request.

        Those behind its header begin a transfer, and those that follow go on with it. If others come, it is over.
        """
        if end <= SPAN_HEADER_BYTES or not request:  # the header, or what a client measures
            return
        key = request, span
        with self._lock:
            known = self._known.get(key)
            if known is not None and known.nbytes == begin:
                arrival = known._replace(nbytes=end)
            else:
                self._forget(key)
                if begin != SPAN_HEADER_BYTES:
                    return
                arrival = Arrival(next(self._numbers), span, end)
                if len(self._known) >= _MAX_FOLLOWED:
                    self._forget(next(iter(self._known)))
            self._known[key] = arrival
            self._tell(arrival)

    def take(self, request: int, span: SpanRef | None) -> int:
        """Return the number of the transfer of a request that is called, and forget it; 0 if there was none."""
        with self._lock:
            found = [key for key in self._known if key[0] == request]
            taken = {key[1]: self._known.pop(key).transfer for key in found}
        return 0 if span is None else taken.get(span, 0)

    def forget(self, request: int) -> None:
        """Take note that a request comes to nothing."""
        with self._lock:
            for key in [key for key in self._known if key[0] == request]:
                self._forget(key)

    def _forget(self, key: tuple[int, SpanRef]) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self._tell(known._replace(nbytes=0))
