"""The carriers of one session: which of them takes which bytes, and what becomes of one that fails."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sklearn_wsl_gpu.arrays import ArrayRef, SpanRef
from sklearn_wsl_gpu.carriers import calibration, file, opening, shared, stream
from sklearn_wsl_gpu.carriers.base import BACK, THERE, Ask, Carrier, CarrierFailed, Unsettled
from sklearn_wsl_gpu.carriers.unchanged import Extent, Unchanged
from sklearn_wsl_gpu.errors import DeadlineExceeded, ProtocolError, WorkerDied, WorkerUnavailable
from sklearn_wsl_gpu.pool import Lease, Pool, placing
from sklearn_wsl_gpu.pool.layout import SPAN_HEADER_BYTES
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.pool.segment import Segment
from sklearn_wsl_gpu.protocol import messages as m

#: Pieces of memory that are smaller are gathered, so that each need not be sent by itself.
_GATHERED_BYTES = 64 * 1024
#: A worker that is there answers sooner.
_ALIVE_SECONDS = 1.0


class Moving:
    """Moves the spans of a session's pool.

    Parameters
    ----------
    pool : Pool
    wanted : sequence of str
        Names of the carriers that may be used, the preferred one first.
    ask : Ask
    """

    def __init__(self, pool: Pool, wanted: Sequence[str], ask: Ask) -> None:
        self._pool = pool
        self._ask = ask
        self._wanted = wanted
        self._offered: dict[int, list[list[Any]]] = {}
        #: Those in use, the preferred one first.
        self.carriers: list[Carrier] = []
        self._opened: list[Carrier] = []
        #: Why others are not, by name: from the beginning, or no more.
        self.refused: dict[str, str] = {}
        self.demoted: dict[str, str] = {}
        #: What was measured of them, by name; nothing where there is no choice.
        self.rates: dict[str, calibration.Rates] = {}
        #: Whether both sides have the same memory, and nothing has to be moved.
        self.is_shared = False
        #: Seconds that the least transfer takes.
        self.least_seconds = 0.0
        #: What there is to tell, until it changes; every call tells it.
        self._ways: list[tuple[str, str]] | None = None
        self._unchanged = Unchanged()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Moving by {', '.join(carrier.name for carrier in self.carriers) or 'nothing'}>"

    @property
    def is_usable(self) -> bool:
        """Whether there is a way left."""
        return bool(self.carriers)

    def offer(self, number: int, segment: Segment) -> list[Any]:
        """Return what a worker needs to know of a segment to use one of the carriers; see `Hello`."""
        about: dict[str, Callable[[Segment], list[Any]]] = {shared.NAME: shared.offer, file.NAME: file.offer}
        offered = [about[name](segment) if name in about else [name] for name in self._wanted]
        self._offered[number] = offered
        return [segment.region, offered]

    def admit(self, number: int, segment: Segment, answers: Sequence[list[Any]]) -> None:
        """Make sure that another segment is what the worker has, too.

        Raises
        ------
        WorkerUnavailable
            If it is not.
        """
        offered, answered = self._pairs(number, answers)
        for carrier in self.carriers:
            try:
                carrier.admit(number, segment, offered[carrier.kind], answered.get(carrier.kind, ()))
            except CarrierFailed as error:
                self._demote(carrier, str(error))
        if not self.is_usable:
            raise self._no_way()

    def _pairs(self, number: int, answers: Sequence[list[Any]]) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """Return what was offered of a segment, and what was answered, by kind of carrier."""
        offered = {offer[0]: offer for offer in self._offered.pop(number)}
        answered = {answer[0]: answer[1:] for answer in answers if answer[0] in offered}
        if not answered:
            raise ProtocolError("The worker did not answer to any of the ways to the pool that it was offered.")
        return offered, answered

    def open(self, welcome: m.Welcome, host: str) -> None:
        """Get ready to move, by what the worker has answered to the offers of the first segment.

        Where there are several ways, they are measured, if they were not lately.

        Parameters
        ----------
        welcome : Welcome
        host : str
            Of the worker's endpoint.

        Raises
        ------
        WorkerUnavailable
            If there is no way.
        """
        offered, answered = self._pairs(0, welcome.carriers)
        self.refused = {name: words for name, words in welcome.refused}
        if shared.NAME in answered:
            candidates: list[Carrier] = [shared.Shared(offered[shared.NAME], answered[shared.NAME])]
        else:
            candidates = [*self._candidates(welcome, answered, host)]
        opened, closed = opening.open_all(candidates, self._pool.segment)
        self.refused.update(closed)
        self._opened = self.carriers = opened
        if len(opened) > 1:
            self._calibrate(welcome)
        if not self.carriers:
            raise self._no_way()
        self.is_shared = shared.NAME in answered
        if self.is_shared:
            return
        began = time.perf_counter()
        lease = self._pool.lease_input(2 * SPAN_HEADER_BYTES)
        try:
            self._pool.seal(lease, SPAN_HEADER_BYTES)
            self.lend(0, lease.ref, SPAN_HEADER_BYTES, 0, None)
        finally:
            lease.release()
        self.least_seconds = time.perf_counter() - began
        self._pool.reserves_inputs = False

    def measure(self) -> None:
        """Measure the carriers in use anew, unless there is nothing to be moved; see `rates`."""
        for carrier in [] if self.is_shared else self.carriers:
            try:
                self.rates[carrier.name] = calibration.measure(carrier, self._pool)
                self._ways = None
            except CarrierFailed as error:
                self._demote(carrier, str(error))

    def describe(self) -> list[dict[str, Any]]:
        """Return what there is to tell of each carrier.

        Returns
        -------
        carriers : list of dict
            ``name``; ``state``, which is ``"in use"``, ``"refused"`` from the beginning, or ``"demoted"`` since;
            ``reason`` of the latter; and as far as they were measured, else None, ``round_trip`` of the least transfer
            in seconds, and bandwidths ``there`` and ``back`` in bytes per second.
        """
        states = [(carrier.name, "in use", "") for carrier in self.carriers]
        states += [(name, "demoted", words) for name, words in self.demoted.items()]
        states += [(name, "refused", words) for name, words in self.refused.items()]
        return [
            {"name": name, "state": state, "reason": words, **calibration.describe(self.rates.get(name))}
            for name, state, words in states
        ]

    @property
    def ways(self) -> list[tuple[str, str]]:
        """Name of each carrier, and in words: that it is in use, and how fast it is if that is known, or why not."""
        ways = self._ways
        if ways is not None:
            return ways
        with self._lock:
            speeds = [(carrier.name, calibration.words(self.rates.get(carrier.name))) for carrier in self.carriers]
            told = [(name, f"in use, {speed}" if speed else "in use") for name, speed in speeds]
            told += [(name, f"given up: {words}") for name, words in self.demoted.items()]
            ways = self._ways = [*told, *((name, f"refused: {words}") for name, words in self.refused.items())]
        return ways

    def is_settled(self, request: int) -> bool:
        """Tell whether nothing may still be written to the pool for a request."""
        return self.is_shared or all(carrier.is_settled(request) for carrier in self._opened)

    def _calibrate(self, welcome: m.Welcome) -> None:
        where = os.path.dirname(self._pool.segment.path or "")
        key = [*(carrier.name for carrier in self.carriers), shared.boot_id(), welcome.boot, where]
        kept = calibration.load(key)
        if kept is not None and kept.keys() >= {carrier.name for carrier in self.carriers}:
            self.rates = kept
            return
        self.measure()
        calibration.save(key, self.rates)

    def send(
        self, request: int, lease: Lease, refs: Sequence[ArrayRef], arrays: Sequence[Array], deadline: float | None
    ) -> None:
        """Bring the arrays of a request to where `placing.plan` put them, for both sides.

        Raises
        ------
        WorkerUnavailable
            If no carrier does, or the worker is gone.
        DeadlineExceeded
            If the deadline passes first.
        """
        if self.is_shared:
            self._pool.put(lease, refs, arrays)
            return

        def work(carrier: Carrier) -> None:
            if carrier.needs_segment:
                end = refs[-1].offset + placing.nbytes_of(refs[-1])
                self._reserve(lease, 0, end)
                self._pool.put(lease, refs, arrays)
                window = self._pool.window(lease).data
                pieces = [window[:SPAN_HEADER_BYTES], window[SPAN_HEADER_BYTES:end]]
            else:
                pieces = self._pieces(lease, refs, arrays)
            carrier.there(request, lease.ref, SPAN_HEADER_BYTES, pieces, deadline)

        self._by_any(THERE, lease.size, work)

    def lend(self, request: int, ref: SpanRef, offset: int, nbytes: int, deadline: float | None) -> int:
        """Bring bytes to the worker that lie in the pool already, unless it has them; return how many were moved.

        Parameters
        ----------
        ref : SpanRef
            A span whose header was written.
        offset, nbytes : int
            Which bytes of it.
        """
        if self.is_shared:
            return 0
        window = self._pool.window_of(ref).data
        header, payload = window[:SPAN_HEADER_BYTES], window[offset : offset + nbytes]
        sending = self._unchanged.begin(Extent(ref, offset, offset + nbytes), payload)
        if sending is None:
            return 0
        began, seconds = time.perf_counter(), None
        try:
            self._by_any(
                THERE, nbytes, lambda carrier: carrier.there(request, ref, offset, [header, payload], deadline)
            )
            seconds = time.perf_counter() - began
        finally:
            self._unchanged.end(sending, payload, seconds)
        return nbytes

    def receive(self, request: int, lease: Lease, nbytes: int, deadline: float | None) -> None:
        """Bring the first `nbytes` of a span here from the worker."""
        if self.is_shared:
            return
        self._reserve(lease, 0, nbytes)  # it may be the span of an input
        window = self._pool.window(lease).data[:nbytes]
        self._by_any(BACK, nbytes, lambda carrier: carrier.back(request, lease.ref, window, deadline))

    def close(self) -> None:
        """Close the carriers."""
        for carrier in self.carriers:
            carrier.close()

    def _pieces(self, lease: Lease, refs: Sequence[ArrayRef], arrays: Sequence[Array]) -> list[memoryview]:
        """Return what has to be sent of a span, from its beginning on, mostly from where it lies now."""
        end = refs[-1].offset + placing.nbytes_of(refs[-1]) if refs else SPAN_HEADER_BYTES
        self._reserve(lease, 0, SPAN_HEADER_BYTES)
        self._pool.seal(lease, end)
        window = self._pool.window(lease).data
        pieces, begin, at = [window[:SPAN_HEADER_BYTES]], SPAN_HEADER_BYTES, SPAN_HEADER_BYTES
        for ref, array in zip(refs, arrays, strict=True):
            direct = placing.raw(array, ref) if array.nbytes >= _GATHERED_BYTES else None
            if direct is None:
                self._reserve(lease, ref.offset, placing.nbytes_of(ref))
                placing.write(window, 0, [ref], [array])
            else:
                self._reserve(lease, begin, ref.offset - begin)  # a page that is not there cannot be read either
                pieces += [window[begin : ref.offset], direct]
                begin = ref.offset + len(direct)
            at = ref.offset + placing.nbytes_of(ref)
        self._reserve(lease, begin, at - begin)
        return [*pieces, window[begin:at]]

    def _reserve(self, lease: Lease, offset: int, nbytes: int) -> None:
        # A large array that is sent from where it lies takes no memory of this side's pool.
        if nbytes:
            self._pool.segments[lease.ref.segment].reserve(lease.ref.start + offset, nbytes)

    def _by_any(self, way: int, nbytes: int, work: Callable[[Carrier], None]) -> None:
        while self.carriers:
            carrier = calibration.fastest(self.carriers, self.rates, way, nbytes)
            try:
                work(carrier)
                return
            except CarrierFailed as error:
                self._demote(carrier, str(error))
            except Unsettled as error:
                self._demote(carrier, str(error))
                raise
        self._look_for_worker()
        raise self._no_way()

    def _look_for_worker(self) -> None:
        # That there is no way left may be because there is no worker; then that is what is to be told.
        try:
            self._ask(m.Status(b""), time.monotonic() + _ALIVE_SECONDS)
        except DeadlineExceeded:
            raise WorkerDied("The worker does not answer; it is gone or stopped.") from None

    def _demote(self, carrier: Carrier, words: str) -> None:
        with self._lock:
            if carrier in self.carriers:
                self.carriers = [one for one in self.carriers if one is not carrier]
                self.demoted[carrier.name] = words
                self._ways = None
        carrier.close()

    def _candidates(self, welcome: m.Welcome, answered: dict[str, Any], host: str) -> Iterator[Carrier]:
        for name in self._wanted:
            answer = answered.get(name, [])
            if name == stream.NAME and answer:
                if len(answer) != 2 or type(answer[0]) is not bytes:
                    raise ProtocolError("The worker's answer to the offer of a stream is malformed.")
                is_elsewhere = welcome.boot.split(" ")[0] != shared.boot_id().split(" ")[0]
                for route in stream.routes_of(answer[1], host):
                    is_thorough = is_elsewhere and stream.crosses_network(route)
                    yield stream.Stream(route, welcome.number, answer[0], is_thorough)
            elif name == file.NAME and answer:
                if len(answer) != 2 or not all(type(ways) is list and ways for ways in answer):
                    raise ProtocolError("The worker's answer to the offer of a file is malformed.")
                yield file.File(self._ask, welcome.session, *answer)

    def _no_way(self) -> WorkerUnavailable:
        reasons = " ".join(f"{name}: {words}" for name, words in {**self.refused, **self.demoted}.items())
        return WorkerUnavailable(f"There is no way for arrays to the worker. {reasons}", "no-carrier")
