"""The ways to a client's pool: what the worker answers to offers, and the memory that it makes for itself."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.carriers import file, shared, stream
from sklearn_wsl_gpu.errors import ConfigurationError, OffloadError, PoolError, WorkerUnavailable
from sklearn_wsl_gpu.pool import Geometry, Segment
from sklearn_wsl_gpu.protocol import messages as m
from sklearn_wsl_gpu.protocol.fields import offer as check_offer
from wsl_worker.arrivals import Arrival
from wsl_worker.background import Answer, Background
from wsl_worker.bulk import Bulk
from wsl_worker.files import OFFERED, Files

#: A client that is silent for so long, and has no connection, is gone. One that uses a file may have none.
_DESERTED_SECONDS, _DESERTED_FILES_SECONDS = 60.0, 900.0


class Accepted(NamedTuple):
    """A segment of a client's pool, as the worker has it.

    Attributes
    ----------
    descriptor : int
        Of its memory: the client's, or the worker's own.
    geometry : Geometry
    carriers, refused : list of list
        As in `Welcome`.
    """

    descriptor: int
    geometry: Geometry
    carriers: list[list[Any]]
    refused: list[list[str]]
    #: Whether it is the worker's own memory.
    own: bool = False


class Doors:
    """Opens the ways to the pools of clients.

    Parameters
    ----------
    bulk : Bulk
        Serves the streams.
    """

    def __init__(self, bulk: Bulk) -> None:
        self._bulk = bulk
        self._files: dict[int, Files] = {}
        #: Does what is to be done on files; the front gives its answers.
        self.background = Background()
        #: Told of the arrivals of each session, in the front's thread.
        self.arrived: Callable[[int, Arrival], None] = lambda session, arrival: None

    def accept(self, session: int, number: int, offer: list[Any], budget: int) -> Accepted:
        """Take a segment of a session's pool that the client offers.

        Parameters
        ----------
        session, number : int
            Of the session, and of the segment in its pool.
        offer : list
            See `Hello`; unchecked.
        budget : int
            Bytes that it may have.

        Raises
        ------
        WorkerUnavailable
            With the reason, if there is no way to it.
        """
        region, offers = check_offer(offer)
        refused: list[list[str]] = []
        first: OffloadError | None = None
        for one in offers:
            if one[0] == shared.NAME:
                try:
                    descriptor, geometry, proof = shared.accept(one, budget)
                except WorkerUnavailable as error:
                    refused.append([shared.NAME, str(error)])
                    first = error
                else:
                    return Accepted(descriptor, geometry, [[shared.NAME, proof]], [])
        ways = {one[0]: one[1:] for one in offers}
        if not ways.keys() & {stream.NAME, file.NAME}:
            raise first or WorkerUnavailable(
                "The worker does not know any carrier that the client offers.", "no-carrier"
            )
        path = ways.get(file.NAME, [""])
        if len(path) != 1 or type(path[0]) is not str:
            raise WorkerUnavailable("The client's offer of its pool is malformed.", "no-carrier")
        known = self._bulk.account(session)
        account = known or self._bulk.open(session, stream.NAME in ways, partial(self._tell, session))
        try:
            segment = account.segments[number] = _own(region, budget)
            descriptor = os.dup(segment.descriptor)
        except BaseException:
            self._bulk.close_account(session) if known is None else self.drop(session, number)
            raise
        answers: dict[str, list[Any]] = {stream.NAME: [stream.NAME, account.key, self._bulk.routes]}
        if file.NAME in ways:
            if session not in self._files:
                self._files[session] = Files(account, self.background)
            self._files[session].add(number, path[0])
            answers[file.NAME] = OFFERED
        accepted = [answers[name] for name in ways if name in answers]
        return Accepted(descriptor, segment.geometry, accepted, refused, own=True)

    def do(self, session: int, message: m.Fetch | m.Store | m.Probe, answer: Answer) -> None:
        """Have done what a client asks for on the files of its pool; see `Files.do`."""
        if session not in self._files:
            raise PoolError("The worker knows no files of this session's pool.")
        self._files[session].do(message, answer)

    def call(self, session: int, request: int) -> bool:
        """Let nothing be brought there for a request any more; tell whether that is certain by now."""
        account = self._bulk.account(session)
        return account is None or account.call(request)

    def transfer(self, session: int, request: int, span: SpanRef | None) -> int:
        """Return by which transfer the span of a request has come that is called; see `Arrivals`."""
        account = self._bulk.account(session)
        return 0 if account is None else account.arrivals.take(request, span)

    def cancel(self, session: int, request: int) -> bool:
        """Let nothing be moved for a request any more; tell whether that is certain by now."""
        account, files = self._bulk.account(session), self._files.get(session)
        if account is None:
            return True
        return account.cancel(request) and not (files is not None and files.may_write_for(request))

    def warm(self, session: int, number: int, start: int, nbytes: int) -> None:
        """Make pages of the worker's own memory of a segment ready for what will come."""
        account = self._bulk.account(session)
        if account is not None and number in account.segments:
            self._bulk.warm(account.segments[number], start, nbytes)

    def is_deserted(self, session: int, silence: float) -> bool:
        """Tell whether a session has streams that its client has let go, and has been silent for so many seconds.

        Of a client on another kernel nothing else tells that it is gone.
        """
        account = self._bulk.account(session)
        limit = _DESERTED_SECONDS if session not in self._files else _DESERTED_FILES_SECONDS
        return account is not None and min(silence, time.monotonic() - account.alone_since) > limit

    def empty(self, session: int) -> None:
        """Give the worker's own memory of a session's first segment back to the system."""
        account = self._bulk.account(session)
        if account is not None:
            account.segments[0].empty()

    def drop(self, session: int, number: int) -> None:
        """Let go of a segment."""
        if session in self._files:
            self._files[session].drop(number)
        account = self._bulk.account(session)
        segment = None if account is None else account.segments.pop(number, None)
        if segment is not None:
            segment.close()

    def close(self, session: int) -> None:
        """Let go of all that belongs to a session."""
        files = self._files.pop(session, None)
        if files is not None:
            files.close()
        self._bulk.close_account(session)

    def _tell(self, session: int, arrival: Arrival) -> None:
        self.background.post(lambda: self.arrived(session, arrival))


def _own(region: list[int], budget: int) -> Segment:
    try:
        epoch, slot_bytes, inputs, outputs, scratch = region
        geometry = Geometry(slot_bytes, inputs, outputs, scratch)
    except (ValueError, ConfigurationError):
        raise WorkerUnavailable("The client's offer of its pool is malformed.", "no-carrier") from None
    if geometry.file_bytes > budget or epoch < 0:
        raise shared.too_large(geometry, budget)
    try:
        return Segment.create(geometry, epoch=epoch)
    except (OffloadError, OSError) as error:
        raise WorkerUnavailable(f"The worker has no memory for this pool: {error}", "no-carrier") from error
