"""The executor: runs one engine, one job at a time. It may die at any time; nothing but its models is lost."""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any

import numpy as np

from sklearn_wsl_gpu.arrays import SpanRef, check_array_ref, check_inline, check_span_ref, is_inline
from sklearn_wsl_gpu.errors import OffloadError, RemoteProtocolError, StaleReference
from sklearn_wsl_gpu.estimators import third_party
from sklearn_wsl_gpu.pool import Segment, numa, placing
from sklearn_wsl_gpu.pool.layout import (
    CLIENT,
    DATA_OFFSET,
    PAGE,
    SPAN_HEADER_BYTES,
    WORKER,
)
from sklearn_wsl_gpu.pool.memory import step_back
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.pool.prefault import prefault
from sklearn_wsl_gpu.protocol.messages import CallBody, decode_call, encode_body
from wsl_worker import engines
from wsl_worker.calls import Calls, ModelMissing
from wsl_worker.engines.base import DeviceLost, Engine
from wsl_worker.engines.devices import bus_id
from wsl_worker.engines.staging import Ahead
from wsl_worker.finished import Finished
from wsl_worker.link import DEVICE_LOST, Link, LinkClosed
from wsl_worker.models import Models
from wsl_worker.surroundings import Output
from wsl_worker.target import Space

#: Runs of pages that wait to be made ready; what comes beyond is not.
_MAX_TO_WARM = 16
_NOTHING = contextlib.nullcontext()


class Executor:
    """Holds the engines, the attached segments, the models, and results that wait for room.

    Parameters
    ----------
    engines : sequence of Engine
        What computes, the preferred one first.
    link : Link
        To the front.
    model_bytes : int
        Memory for kept models.
    others : sequence of str
        Devices that executors beside this one could use.
    node : int
        NUMA node of what they compute on, or -1.
    """

    def __init__(
        self, engines: Sequence[Engine], link: Link, model_bytes: int, others: Sequence[str] = (), node: int = -1
    ) -> None:
        self._others, self._node = list(others), node
        self._engines = {engine.name: engine for engine in engines}
        self._link = link
        self._models = Models(model_bytes)
        self._segments: dict[tuple[int, int], Segment] = {}
        #: Those that are the worker's own memory, which the client does not reserve.
        self._mirrors: set[tuple[int, int]] = set()
        self._waiting: dict[int, tuple[int, Finished]] = {}
        self._output = Output()
        self._calls = Calls(self._engines, self._models, self._output)
        self._to_warm: queue.Queue[tuple[Segment, int, int]] | None = None
        brings = [engine.ahead for engine in engines if engine.ahead is not None]
        self._follows, self._ahead = bool(brings), brings[0] if brings else Ahead(lambda: None)
        self._busy = self._interrupted = False
        signal.signal(signal.SIGINT, self._on_interrupt)

    def serve(self) -> None:
        """Answer the front until it is gone."""
        packages = {name.partition(".")[0] for name in third_party.installed()} | {"pandas"}
        versions = [[package, third_party.installed_version(package)] for package in sorted(packages)]
        engines = [[name, sorted(engine.estimators | engine.functions)] for name, engine in self._engines.items()]
        self._link.send(["ready", engines, versions, self._others, self._node, self._follows])
        while True:
            try:
                message = self._link.receive()
            except LinkClosed:
                return
            if message is not None:
                self._handle(*message)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        # The front interrupts a job; one that has just ended must not take the next one with it.
        self._interrupted = True
        if self._busy:
            self._busy = False
            raise KeyboardInterrupt

    def _tell(self, job: int, event: list[Any]) -> None:
        # A message must not be torn by an interrupt, nor the interrupt be lost.
        self._interrupted = self._busy = False
        self._link.send(["progress", job, event])
        self._busy = True
        if self._interrupted:
            self._busy = False
            raise KeyboardInterrupt

    def _handle(self, head: list[Any], body: bytes, descriptor: int | None) -> None:
        kind, *fields = head
        if kind == "job":
            session, job, inputs, outputs, transfer = fields
            with self._ahead.giving((session, transfer)) if self._follows else _NOTHING:
                self._job(session, job, inputs, outputs, body)
        elif kind == "arrived":
            self._follow(*fields)
        elif kind == "deliver":
            job, outputs = fields
            if job in self._waiting:
                session, finished = self._waiting.pop(job)
                self._guarded(job, lambda: self._deliver_later(session, job, finished, outputs))
        elif kind == "drop":
            self._waiting.pop(fields[0], None)
        elif kind == "attach":
            assert descriptor is not None
            self._attach(fields[0], fields[1], fields[2], descriptor)
        elif kind == "warm":
            self._warm(*fields)
        elif kind == "drop_segment":
            self._close_segment(fields[0], fields[1])
        elif kind == "detach":
            self._models.forget(fields[0])
            if self._ahead.key is not None and self._ahead.key[0] == fields[0]:
                self._ahead.forget()
            for job in [job for job, (session, _) in self._waiting.items() if session == fields[0]]:
                del self._waiting[job]
            for _, number in [key for key in self._segments if key[0] == fields[0]]:
                self._close_segment(fields[0], number)

    def _follow(self, session: int, transfer: int, span: Any, nbytes: int) -> None:
        key = session, transfer
        if nbytes:
            with contextlib.suppress(OffloadError):  # whoever calls with it is told
                ref = check_span_ref(span)
                self._ahead.follow(key, _window(self._segment(session, ref), ref), nbytes)
        elif key == self._ahead.key:
            self._ahead.forget()

    def _close_segment(self, session: int, number: int) -> None:
        self._mirrors.discard((session, number))
        segment = self._segments.pop((session, number), None)
        if segment is not None:
            segment.close()

    def _warm(self, session: int, number: int, start: int, nbytes: int) -> None:
        segment = self._segments.get((session, number))
        if segment is None or start % PAGE or not DATA_OFFSET <= start < start + nbytes <= segment.geometry.file_bytes:
            return

        # By one thread: many would keep the calls from the memory map, which all of them hold in turn.
        if self._to_warm is None:
            self._to_warm = queue.Queue(_MAX_TO_WARM)
            threading.Thread(target=_warm_all, args=(self._to_warm,), daemon=True).start()
        with contextlib.suppress(queue.Full):  # it is a favour
            self._to_warm.put_nowait((segment, start, nbytes))

    def _attach(self, session: int, number: int, own: bool, descriptor: int) -> None:
        # A client that spoils its own segment has its calls refused; the others are served.
        try:
            self._segments[session, number] = Segment.attach(descriptor)
            if own:
                self._mirrors.add((session, number))
        except (OffloadError, OSError, ValueError):
            os.close(descriptor)

    def _job(self, session: int, job: int, inputs: Any, outputs: Any, raw: bytes) -> None:
        def work() -> None:
            call = decode_call(raw)
            try:
                own = None if inputs is None else check_span_ref(inputs)
                spans = [own, *[span for span, _, _ in call.lent]]
                views, places = self._arrays(session, own, call)
                granted = None if outputs is None else check_span_ref(outputs)
                if granted is not None and granted != own:
                    self._reserve(session, granted)
                space = None
                if granted is not None:
                    space = Space(_window(self._segment(session, granted), granted), granted == own)
                finished = self._calls.run(session, call, views, places, lambda event: self._tell(job, event), space)
            except ModelMissing:
                self._busy = False  # from here on a message would be torn by an interrupt
                self._link.send(["need_model", job])
                return
            if not finished.arrays or (granted is not None and granted.nbytes >= finished.nbytes):
                self._deliver(session, job, finished, granted)
            else:
                held = [span for span in [*spans, granted] if span is not None]
                detached = self._detach(session, held, finished)
                self._busy = False
                self._waiting[job] = session, detached
                self._link.send(["need_output", job, detached.nbytes])

        self._guarded(job, work)

    def _guarded(self, job: int, work: Any) -> None:
        failure = None
        try:
            try:
                self._busy = True
                work()
            finally:
                self._busy = False
        except DeviceLost:
            os._exit(DEVICE_LOST)  # an orderly exit would wait for the device
        except (Exception, KeyboardInterrupt) as error:
            failure = _in_words(error)
        if failure is not None:
            self._link.send(["failed", job, *failure])
            self._output.take()

    def _segment(self, session: int, span: SpanRef) -> Segment:
        segment = self._segments.get((session, span.segment))
        if segment is None:
            raise StaleReference("A span names a segment that is not attached.")
        inside = span.start >= DATA_OFFSET and span.start + span.nbytes <= segment.geometry.file_bytes
        if not inside or span.start % PAGE or span.nbytes < SPAN_HEADER_BYTES:
            raise StaleReference("A span lies outside its segment.")
        return segment

    def _arrays(self, session: int, own: SpanRef | None, call: CallBody) -> tuple[list[Array], list[int]]:
        views: list[Array] = []
        places: list[int] = []
        for span, refs, constant in [(own, call.refs, True), *call.lent]:
            writers = (CLIENT,) if span is own else (CLIENT, WORKER)  # what is kept of a result comes back
            for view, offset in self._views(session, span, refs, *writers):
                views.append(view)
                # What may be changed before the next call is kept for this one only.
                places.append(span.generation << 64 | offset if constant and span is not None else ~len(places))
        return views, places

    def _views(
        self, session: int, span: SpanRef | None, raw_refs: Sequence[Any], *writers: int
    ) -> list[tuple[Array, int]]:
        if span is None:
            if not all(is_inline(raw) for raw in raw_refs):
                raise RemoteProtocolError("Array references came without a span.")
            return [(placing.from_inline(check_inline(raw)), 0) for raw in raw_refs]
        segment = self._segment(session, span)
        window = _window(segment, span)
        payload = segment.check(span.start, span.generation, span.nbytes, *writers)
        views = []
        for raw in raw_refs:
            ref, _ = check_array_ref(raw, SPAN_HEADER_BYTES + payload)
            view = placing.view(window.data, 0, ref)
            view.flags.writeable = ref.writeable
            views.append((view, ref.offset))
        return views

    def _reserve(self, session: int, span: SpanRef) -> SpanRef:
        segment = self._segment(session, span)
        if (session, span.segment) in self._mirrors:
            segment.reserve(span.start, span.nbytes)
        return span

    def _deliver(self, session: int, job: int, finished: Finished, granted: SpanRef | None) -> None:
        self._busy = False
        if finished.arrays:
            assert granted is not None
            segment = self._segment(session, granted)
            if granted.nbytes < finished.nbytes:
                raise StaleReference("The span granted for a result is too small.")
            there = [number for number in range(len(finished.arrays)) if number not in finished.placed]
            refs, arrays = [finished.refs[number] for number in there], [finished.arrays[number] for number in there]
            placing.write(segment.map, granted.start, refs, arrays)
            segment.seal(granted.start, granted.generation, finished.nbytes, WORKER)
        self._link.send(["result", job], encode_body(finished.body))

    def _deliver_later(self, session: int, job: int, finished: Finished, outputs: Any) -> None:
        self._busy = False  # an interrupt is meant for the job that has just ended
        self._deliver(session, job, finished, self._reserve(session, check_span_ref(outputs)))

    def _detach(self, session: int, spans: Sequence[SpanRef], finished: Finished) -> Finished:
        # The client may reuse the spans of its arrays once it is told that the result waits for room.
        arrays = finished.arrays
        for span in spans:
            segment = np.frombuffer(self._segment(session, span).map, np.uint8)
            base = segment.__array_interface__["data"][0] + span.start
            arrays = [
                array.copy(order="K") if base <= array.__array_interface__["data"][0] < base + span.nbytes else array
                for array in arrays
            ]
        return finished.anew(arrays)


def _in_words(error: BaseException) -> tuple[str, str]:
    """Return the code of a failure, and what there is to say."""
    if isinstance(error, OffloadError):
        return error.code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return "cancelled", "The call was cancelled."
    if isinstance(error, MemoryError):
        return "engine-error", f"The worker ran out of memory: {error}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return "estimator-error", f"{type(error).__name__}: {str(error)[:2000]} (in {last.name}, line {last.lineno})"


def _window(segment: Segment, span: SpanRef) -> Array:
    return np.frombuffer(segment.map, np.uint8, span.nbytes, span.start)


def _warm_all(runs: queue.Queue[tuple[Segment, int, int]]) -> None:
    step_back()
    while True:
        prefault(*runs.get(), threading.Event())


def _die_with(parent: int) -> None:
    # In the middle of a long computation nobody reads the link: the kernel has to tell.
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def _start_again_with(chosen: Sequence[type[Engine]]) -> None:
    # Which engines they will be is known only when libraries are loaded that have read the environment already.
    wanted = {name: value for engine in chosen for name, value in engine.environment.items()}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.environ.update(wanted)
        os.execv(sys.executable, [sys.executable, "-P", "-m", "wsl_worker.executor", *sys.argv[1:]])


def _node_of(device: str) -> int:
    """Return the NUMA node of a device, or -1: of a GPU where it is attached, of the CPU where all of ours are."""
    kind, _, number = device.partition(":")
    if kind == "cuda":
        return numa.node_of_gpu(bus_id(int(number or 0)))
    return numa.node_of_cpus(numa.allowed_cpus(), numa.nodes())


def main() -> None:
    """Run an executor; started by the front with the link's descriptor, engine, device, limit, and its own pid."""
    descriptor, (name, device), model_bytes = int(sys.argv[1]), sys.argv[2:4], int(sys.argv[4])
    _die_with(int(sys.argv[5]))
    link = Link(socket.socket(fileno=descriptor), blocking=True)
    try:
        chosen = engines.choose(name, device)
        _start_again_with(chosen)
        os.set_inheritable(descriptor, False)
        made = [engine(device) for engine in chosen]
    except Exception as error:
        link.send(["broken", f"{type(error).__name__}: {error}"])
        raise
    others = made[0].devices()[1:] if device == "auto" else []
    Executor(made, link, model_bytes, others, _node_of(made[0].devices()[0] if device == "auto" else device)).serve()


if __name__ == "__main__":
    main()
