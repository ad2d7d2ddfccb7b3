"""What the worker has already of the arrays that users keep in the pool, where it has memory of its own for them.

Whoever owns such an array may change it between two calls, so what was sent before counts only for the very same
bytes: a digest of what is there now is compared with that of what was there just before it was sent.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from sklearn_wsl_gpu.arrays import SpanRef

#: To look takes a core or several: it has to be so much faster than to send.
_WORTH = 0.5
#: Parts that are not smaller than this are looked at side by side, by so many threads at most.
_PART_BYTES = 2 * 1024 * 1024
_THREADS = 4
_MOST = 256


class Extent(NamedTuple):
    """Bytes of a span.

    Attributes
    ----------
    ref : SpanRef
    begin, end : int
        Offsets in the span.
    """

    ref: SpanRef
    begin: int
    end: int

    def overlaps(self, other: Extent) -> bool:
        """Tell whether they have bytes in common."""
        same = (self.ref.segment, self.ref.start) == (other.ref.segment, other.ref.start)
        return same and self.begin < other.end and other.begin < self.end


@dataclass(slots=True, eq=False)
class Sending:
    """An extent that is about to be sent: its digest where it was looked at, and what that took in seconds."""

    extent: Extent
    #: Whether it is worth looking at the next time, as far as is known.
    pays: bool
    digest: bytes | None = None
    seconds: float = 0.0
    #: Whether some of these bytes are sent by somebody else at the same time, who may see others there.
    spoiled: bool = False


class _Sent(NamedTuple):
    digest: bytes | None
    pays: bool


class Unchanged:
    """Knows which extents the worker has as they are here.

    The first time an extent is only sent. The second time it is looked at before, which shows how long that takes
    beside sending, and from the third time on it is sent if it has changed; where looking is not much faster, always.
    """

    def __init__(self) -> None:
        self._sent: OrderedDict[Extent, _Sent] = OrderedDict()
        self._under_way: list[Sending] = []
        self._lock = threading.Lock()

    def begin(self, extent: Extent, payload: memoryview) -> Sending | None:
        """Return what is to be sent, for `end`; None if the worker has it."""
        with self._lock:
            known = self._sent.get(extent)
        sending = Sending(extent, known is None or known.pays)
        if known is not None and known.pays:
            began = time.perf_counter()
            sending.digest = digest(payload)
            sending.seconds = time.perf_counter() - began
            with self._lock:
                if sending.digest == known.digest and self._sent.get(extent) is known:
                    self._sent.move_to_end(extent)
                    return None
        with self._lock:
            for other in [other for other in self._sent if other.overlaps(extent)]:
                del self._sent[other]
            for one in self._under_way:
                if one.extent.overlaps(extent):
                    one.spoiled = sending.spoiled = True
            self._under_way.append(sending)
        return sending

    def end(self, sending: Sending, payload: memoryview, seconds: float | None) -> None:
        """Take note of what was sent in so many seconds, or None if it was not sent as a whole."""
        # Somebody may have written to it meanwhile, and put back what was there before.
        steady = sending.digest is None or seconds is None or sending.digest == digest(payload)
        with self._lock:
            self._under_way.remove(sending)
            if seconds is None or sending.spoiled or not steady:
                return
            pays = sending.pays and sending.seconds <= _WORTH * seconds
            self._sent[sending.extent] = _Sent(sending.digest, pays)
            while len(self._sent) > _MOST:
                self._sent.popitem(last=False)


def digest(payload: memoryview) -> bytes:
    """Return what differs for bytes that differ."""
    count = max(min(os.cpu_count() or 1, _THREADS, len(payload) // _PART_BYTES), 1)
    size = -(-len(payload) // count)
    parts = [payload[begin : begin + size] for begin in range(0, len(payload), size or 1)]
    if count == 1:
        return b"".join(map(_digest, parts))
    try:
        with ThreadPoolExecutor(count) as threads:
            return b"".join(threads.map(_digest, parts))
    except RuntimeError:  # there are too many threads, or the interpreter is ending
        return b"".join(map(_digest, parts))


def _digest(part: memoryview) -> bytes:
    return hashlib.sha256(part).digest()
