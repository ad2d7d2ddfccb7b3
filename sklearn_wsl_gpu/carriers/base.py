"""What a carrier is: a way for the bytes of a span to reach the other side.

Spans go *there*, from the client's memory to the worker's, and *back*. The client asks for either, one at a time on a
connection: what goes both ways at once comes to a standstill in relays that wait for one side.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.errors import WorkerUnavailable
from sklearn_wsl_gpu.pool.segment import Segment
from sklearn_wsl_gpu.protocol import messages as m

THERE, BACK = 0, 1
#: Stands for a request where something is written to find out whether a carrier works.
PROBES = -1


class CarrierFailed(WorkerUnavailable):
    """A carrier did not get the bytes across, or not as they were; another one may."""

    code = "carrier-failed"


class Damaged(CarrierFailed):
    """Other bytes have come over a connection than were sent."""


class Unsettled(WorkerUnavailable):
    """The worker may still write to the client's memory, at any time: no span of it can be used again."""

    code = "carrier-stalled"


class Ask(Protocol):
    """Sends the worker a message and returns its answer."""

    def __call__(self, message: m.Message, deadline: float | None, body: bytes = b"") -> m.Message: ...


class Carrier(ABC):
    """One way between the client's memory and the worker's; the client's end of it.

    Its calls may be made by several threads at a time.
    """

    #: What it is called in an offer.
    kind: ClassVar[str]
    #: Its name, and by which route it goes if there are several.
    name: str
    #: Whether bytes have to lie in the client's segment before they go there, and not just somewhere in its memory.
    needs_segment: ClassVar[bool]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    #: Seconds that it may take to open.
    open_seconds: float

    @abstractmethod
    def open(self, segment: Segment, deadline: float, enough: threading.Event) -> None:
        """Make sure that it works.

        Parameters
        ----------
        segment : Segment
            The pool's first.
        deadline : float
            `time.monotonic` value at which to give up.
        enough : threading.Event
            Set when there is another way, so that nothing has to be tried again.

        Raises
        ------
        OffloadError
            With the reason, if it does not.
        Unsettled
            If it does not, and the pool cannot be used at all.
        """

    @abstractmethod
    def there(
        self, request: int, ref: SpanRef, offset: int, pieces: Sequence[memoryview], deadline: float | None
    ) -> None:
        """Bring bytes of a span to the worker, and the span's header after them.

        Parameters
        ----------
        request : int
            For what; a request that is cancelled brings nothing there any more.
        ref : SpanRef
        offset : int
            Of the first byte in the span, behind the header.
        pieces : sequence of memoryview of bytes
            The header first, then what lies at `offset` and on.
        deadline : float or None
            `time.monotonic` value at which to give up.

        Raises
        ------
        CarrierFailed
            If they did not get there.
        DeadlineExceeded
            If the deadline passes first.
        """

    @abstractmethod
    def back(self, request: int, ref: SpanRef, window: memoryview, deadline: float | None) -> None:
        """Bring bytes of a span from the worker into `window`: those from the span's start on, its header included."""

    def is_settled(self, request: int) -> bool:
        """Tell whether nothing may still be written to the client's memory for a request."""
        return True

    @abstractmethod
    def admit(self, number: int, segment: Segment, offered: list[Any], answer: Sequence[Any]) -> None:
        """Know another segment of the pool.

        Parameters
        ----------
        number : int
        segment : Segment
        offered : list
            What was said of it to the worker.
        answer : sequence
            What the worker said to that, unchecked.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of what it holds."""
