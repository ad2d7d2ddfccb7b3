"""The files of a session's pool: what a client asks to be read from them, written to them, and proved about them.

All that touches a file is done in the background, opening it too. What is read comes to lie in private memory first: so
what comes too late lands nowhere.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from functools import partial
from typing import NamedTuple

from sklearn_wsl_gpu.carriers import challenge
from sklearn_wsl_gpu.carriers.file import NAME, PIECE_BYTES
from sklearn_wsl_gpu.errors import OffloadError, PoolError, RemoteProtocolError
from sklearn_wsl_gpu.pool import Segment
from sklearn_wsl_gpu.pool.layout import CLIENT, DATA_OFFSET, PAGE, WORKER, round_up
from sklearn_wsl_gpu.protocol import messages as m
from wsl_worker.account import Account
from wsl_worker.background import Answer, Background, Errand, Lane
from wsl_worker.clientfile import READING, WRITING, ClientFile, open_file

_MAX_PLACES = 64
#: What a client is answered that offers a file; whether it can be used it then finds out.
OFFERED = [NAME, list(READING), list(WRITING)]


class _Offer(NamedTuple):
    path: str
    mirror: Segment


class Files:
    """The files of one session.

    Parameters
    ----------
    account : Account
        Knows the worker's own memory of the session's pool, and which requests are over.
    background : Background
    """

    def __init__(self, account: Account, background: Background) -> None:
        self._account = account
        self._background = background
        self._lane: Lane = background.lane()
        self._offers: dict[int, _Offer] = {}
        #: Touched by the lane's thread alone, like the two ways that were probed last.
        self._open: dict[int, ClientFile] = {}
        self._reading, self._writing = READING[0], WRITING[0]

    def add(self, number: int, path: str) -> None:
        """Take note of the file of a segment."""
        self._offers[number] = _Offer(path, self._account.segments[number])

    def drop(self, number: int) -> None:
        """Forget the file of a segment."""
        if self._offers.pop(number, None) is not None:
            with contextlib.suppress(OffloadError):  # else it is closed with the others
                self._lane.submit(Errand(partial(self._close_one, number), lambda _: None, -1, False))

    def close(self) -> None:
        """Forget all."""
        self._background.end(self._lane, self._close_all)

    def may_write_for(self, request: int) -> bool:
        """Tell whether something may still be written to a file for a request."""
        return self._lane.is_writing_for(request)

    def do(self, message: m.Fetch | m.Store | m.Probe, answer: Answer) -> None:
        """Have done what a client asks for, unchecked; it is answered later, in the front's thread.

        Raises
        ------
        OffloadError
            If it is nonsense, or not to be had.
        """
        if isinstance(message, m.Probe):
            offer = self._offer(message.segment)
            limit = offer.mirror.geometry.file_bytes - challenge.NONCE_BYTES
            right = all(DATA_OFFSET <= offset <= limit for offset in message.offsets)
            ways = WRITING if message.write else READING
            if not right or len(message.offsets) > _MAX_PLACES or not 0 <= message.way < len(ways):
                raise RemoteProtocolError("A probe names places, or a way, that there are not.")
            errand = Errand(partial(self._probe, offer, message), answer, -1, message.write)
        else:
            offer, span = self._offer(message.span.segment), message.span
            inside = span.start >= DATA_OFFSET and span.start + span.nbytes <= offer.mirror.geometry.file_bytes
            whole = message.offset >= 0 and message.offset + message.nbytes <= span.nbytes
            if (
                not inside
                or span.start % PAGE
                or span.nbytes % PAGE
                or not whole
                or not 0 < message.nbytes <= PIECE_BYTES
            ):
                raise PoolError("A transfer names bytes outside of its span.")
            if isinstance(message, m.Fetch):
                errand = Errand(partial(self._fetch, offer, message), answer, message.request, False)
            else:
                if message.offset % PAGE:
                    raise PoolError("A transfer back begins inside of a page.")
                errand = Errand(partial(self._store, offer, message), answer, message.request, True)
        self._lane.submit(errand)

    def _offer(self, number: int) -> _Offer:
        if number not in self._offers:
            raise PoolError("The worker knows no file of this segment of the session's pool.")
        return self._offers[number]

    def _file(self, number: int, offer: _Offer) -> ClientFile:
        if number not in self._open:
            self._open[number] = open_file(offer.path, offer.mirror.epoch, offer.mirror.geometry)
        return self._open[number]

    def _close_one(self, number: int, errand: Errand) -> m.Message:
        if number in self._open:
            self._open.pop(number).close()
        return m.Done()

    def _close_all(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def _probe(self, offer: _Offer, message: m.Probe, errand: Errand) -> m.Message:
        file, nbytes = self._file(message.segment, offer), challenge.NONCE_BYTES
        if not message.offsets:  # not on the way: what the client has just stored there would be written over
            file.settle()
        if message.write:
            self._writing = WRITING[message.way]
            parts = [os.urandom(nbytes) for _ in message.offsets]
            for offset, part in zip(message.offsets, parts, strict=True):
                file.write(self._writing, offset, part)
        else:
            self._reading = READING[message.way]
            parts = [bytes(file.read(self._reading, offset, nbytes)) for offset in message.offsets]
        return m.Probed(challenge.digest(parts))

    def _fetch(self, offer: _Offer, message: m.Fetch, errand: Errand) -> m.Message:
        span, mirror = message.span, offer.mirror
        data = self._file(span.segment, offer).read(self._reading, span.start + message.offset, message.nbytes)
        crc = zlib.crc32(data)
        if crc == message.crc:
            mirror.reserve(span.start + message.offset, message.nbytes)
            with self._lane.landing(errand):
                if not self._account.takes(message.request):
                    raise PoolError("The request was called or cancelled before its arrays came.")
                mirror.window(span.start + message.offset, message.nbytes).data[:] = data
                end = message.offset + message.nbytes
                self._account.arrivals.note(message.request, span, message.offset, end)
        return m.Moved(crc)

    def _store(self, offer: _Offer, message: m.Store, errand: Errand) -> m.Message:
        span, mirror = message.span, offer.mirror
        if self._account.is_over(message.request):
            raise PoolError("The request was cancelled.")
        mirror.check(span.start, span.generation, span.nbytes, CLIENT, WORKER)
        # Whole pages: what is written then needs not be read first. They are the span's to its end.
        data = mirror.window(span.start + message.offset, round_up(message.nbytes, PAGE)).tobytes()
        self._file(span.segment, offer).write(self._writing, span.start + message.offset, data)
        return m.Moved(zlib.crc32(memoryview(data)[: message.nbytes]))
