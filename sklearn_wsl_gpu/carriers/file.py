"""The carrier for two kernels that see one file: the client maps it, the worker reads and writes it.

What the file system makes of that is not believed: a segment is challenged before it is used, and of all bytes that are
moved both sides compare the crc32.
"""

from __future__ import annotations

import contextlib
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.carriers import challenge
from sklearn_wsl_gpu.carriers.base import BACK, PROBES, THERE, Ask, Carrier, CarrierFailed, Unsettled
from sklearn_wsl_gpu.errors import ProtocolError
from sklearn_wsl_gpu.pool.layout import DATA_OFFSET, SPAN_HEADER_BYTES
from sklearn_wsl_gpu.pool.segment import Segment
from sklearn_wsl_gpu.protocol import messages as m

NAME = "file"
#: Bytes that one message moves at most: so it is soon known that none move.
PIECE_BYTES = 4 * 1024 * 1024
#: Codes of a worker's refusals: an error of the file, and that it waits for the file too long.
IO_FAILED, STALLED = "carrier-io", "carrier-stalled"


class _WayFailed(CarrierFailed):
    """The file gives an error where it is read, or written, in this way; another one may do."""

    def __init__(self, words: str, way: int) -> None:
        super().__init__(words)
        self.way = way


def offer(segment: Segment) -> list[Any]:
    """Return what a worker needs to find the file of a segment."""
    return [NAME, segment.path]


class File(Carrier):
    """The client's end of a pool in files.

    Parameters
    ----------
    ask : Ask
    session : bytes
        The session's token.
    reading, writing : sequence of str
        Ways in which the worker can read and write, the cheapest first.
    """

    kind = name = NAME
    needs_segment = True
    open_seconds = 3.0

    def __init__(self, ask: Ask, session: bytes, reading: Sequence[str], writing: Sequence[str]) -> None:
        self._ask = ask
        self._session = session
        self._ways = list(reading), list(writing)
        #: The ways in use.
        self._reading = self._writing = 0
        # The worker does one piece at a time; who waits here does not seem to stall there.
        self._lock = threading.Lock()
        self._closed = False
        #: Requests for which the worker may be writing.
        self._unsettled: set[int] = set()

    def __repr__(self) -> str:
        reading, writing = self._ways
        return f"<File, read by {reading[self._reading]}, written by {writing[self._writing]}>"

    def open(self, segment: Segment, deadline: float, enough: threading.Event) -> None:
        with self._probing(0, deadline):
            self._choose(segment, deadline)

    def _choose(self, segment: Segment, deadline: float) -> None:
        # The cheapest ways that are coherent.
        reasons: dict[str, None] = {}
        for reading, _ in enumerate(self._ways[0]):
            for writing, _ in enumerate(self._ways[1]):
                self._reading, self._writing = reading, writing
                failed, words = self._try(segment, deadline)
                if failed is None:
                    return
                reasons[words] = None
                self._settle(0, PROBES, deadline)
                if failed == THERE:
                    break
        raise CarrierFailed(f"The pool's file is not coherent. {' '.join(reasons)}")

    def admit(self, number: int, segment: Segment, offered: list[Any], answer: Sequence[Any]) -> None:
        deadline = time.monotonic() + self.open_seconds
        with self._probing(number, deadline):
            if self._challenge(number, segment, deadline) is not None:
                raise CarrierFailed("A file that was added to the pool is not coherent, as the others were.")

    def there(
        self, request: int, ref: SpanRef, offset: int, pieces: Sequence[memoryview], deadline: float | None
    ) -> None:
        header, *bytes_ = pieces
        whole = SPAN_HEADER_BYTES + sum(map(len, bytes_))
        if offset == SPAN_HEADER_BYTES and whole <= PIECE_BYTES:
            self._fetch(request, ref, 0, pieces, deadline)
            return
        at = offset
        for piece in bytes_:
            for begin in range(0, len(piece), PIECE_BYTES):
                part = piece[begin : begin + PIECE_BYTES]
                self._fetch(request, ref, at, [part], deadline)
                at += len(part)
        # Last: what is torn is never taken for whole.
        self._fetch(request, ref, 0, [header], deadline)

    def back(self, request: int, ref: SpanRef, window: memoryview, deadline: float | None) -> None:
        for begin in range(0, len(window), PIECE_BYTES):
            part = window[begin : begin + PIECE_BYTES]
            crc = self._move(m.Store(self._session, request, ref, begin, len(part)), deadline)
            if zlib.crc32(part) != crc:
                self._unsettled.add(request)
                self._settle(ref.segment, request, deadline)
                raise CarrierFailed("The pool's file shows other bytes here than the worker has written to it.")

    def is_settled(self, request: int) -> bool:
        return request not in self._unsettled

    def close(self) -> None:
        with self._lock:  # nothing is stored in the pool any more, nor asked for
            self._closed = True

    def _fetch(
        self, request: int, ref: SpanRef, offset: int, parts: Sequence[memoryview], deadline: float | None
    ) -> None:
        nbytes, crc = sum(map(len, parts)), 0
        for part in parts:
            crc = zlib.crc32(part, crc)
        if self._move(m.Fetch(self._session, request, ref, offset, nbytes, crc), deadline) != crc:
            raise CarrierFailed("The worker has read other bytes from the pool's file than are written there.")

    def _move(self, message: m.Fetch | m.Store, deadline: float | None) -> int:
        answer = self._tell(message, message.request, isinstance(message, m.Store), deadline)
        if isinstance(answer, m.Moved):
            return answer.crc
        raise self._refused(answer, isinstance(message, m.Store))

    def _tell(self, message: m.Message, request: int, writes: bool, deadline: float | None) -> m.Message:
        with self._lock:
            self._check_open()
            if writes:
                self._unsettled.add(request)
            answer = self._ask(message, deadline)
            # Of what is probed more may be on its way until all is settled.
            if request != PROBES and not (isinstance(answer, m.Refused) and answer.code == STALLED):
                self._unsettled.discard(request)
        return answer

    @contextlib.contextmanager
    def _probing(self, number: int, deadline: float) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._settle(number, PROBES, deadline)
            raise
        self._unsettled.discard(PROBES)

    def _settle(self, number: int, request: int, deadline: float | None) -> None:
        """Have what the worker may have written arrive before anything else lies there; also when this is closed."""
        with self._lock:
            if request in self._unsettled:
                answer = self._ask(m.Probe(self._session, number, [], False, self._reading), deadline)
                if isinstance(answer, m.Probed):
                    self._unsettled.discard(request)

    def _check_open(self) -> None:
        if self._closed:
            raise CarrierFailed("The pool's file is not used any more.")

    def _try(self, segment: Segment, deadline: float) -> tuple[int | None, str]:
        """Return in which direction the ways in use fail, if they do, and why."""
        try:
            failed = self._challenge(0, segment, deadline)
        except _WayFailed as error:
            return error.way, str(error)
        if failed == THERE:
            how = self._ways[0][self._reading]
            return failed, f"What this process writes there the worker reads otherwise (by {how})."
        how = self._ways[1][self._writing]
        return failed, f"What the worker writes there (by {how}) this process reads otherwise."

    def _challenge(self, number: int, segment: Segment, deadline: float) -> int | None:
        where = challenge.places(DATA_OFFSET, segment.geometry.file_bytes)
        for place in where:
            segment.reserve(place, challenge.NONCE_BYTES)

        def store(place: int, nonce: bytes) -> None:
            with self._lock:
                self._check_open()
                segment.map[place : place + len(nonce)] = nonce

        def load(place: int) -> bytes:
            return segment.map[place : place + challenge.NONCE_BYTES]

        def probe(places: Sequence[int], write: bool) -> bytes:
            way = self._writing if write else self._reading
            message = m.Probe(self._session, number, list(places), write, way)
            answer = self._tell(message, PROBES, write, deadline)
            if isinstance(answer, m.Probed):
                return answer.digest
            if isinstance(answer, m.Refused) and answer.code == IO_FAILED:
                raise _WayFailed(answer.words, BACK if write else THERE)
            raise self._refused(answer, write)

        return challenge.run(where, store, load, probe)

    def _refused(self, answer: m.Message, writes: bool) -> Exception:
        if not isinstance(answer, m.Refused) or answer.code == "unknown-session":
            return ProtocolError(getattr(answer, "words", "The worker did not answer to what it was asked to move."))
        if writes and answer.code == STALLED:
            return Unsettled(answer.words, answer.code)
        return CarrierFailed(answer.words, answer.code)
