"""The executor: runs one engine, one job at a time. It may die at any time; nothing but its models is lost."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NamedTuple

import joblib
import numpy as np

from sklearn_wsl_gpu.arrays import ArrayRef, SpanRef, check_array_ref, check_span_ref
from sklearn_wsl_gpu.errors import OffloadError, RemoteProtocolError, StaleReference, Unsupported
from sklearn_wsl_gpu.estimators import METHODS, find, third_party
from sklearn_wsl_gpu.pool import Segment, placing
from sklearn_wsl_gpu.pool.layout import (
    CLIENT,
    DATA_OFFSET,
    PAGE,
    SPAN_HEADER_BYTES,
    WORKER,
    check_span_header,
    pack_span_header,
)
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.protocol.messages import ResultBody, decode_call, encode_body
from sklearn_wsl_gpu.state import Decoder, Encoder, objects
from sklearn_wsl_gpu.state.decoding import set_generator
from sklearn_wsl_gpu.state.encoding import generator_node, global_generator
from sklearn_wsl_gpu.support import Request, facts_of
from wsl_worker import engines
from wsl_worker.engines.base import DeviceLost, Engine
from wsl_worker.link import DEVICE_LOST, Link, LinkClosed
from wsl_worker.models import Models
from wsl_worker.progress import told
from wsl_worker.surroundings import Output, Warnings, scikit_learn_settings

#: A model costs at least this, whatever its arrays take.
_MODEL_OVERHEAD_BYTES = 16 * 1024
#: Every attribute of a fitted estimator but this one: names of columns are the client's business.
_NAMES = "feature_names_in_"


class _Finished(NamedTuple):
    body: ResultBody
    arrays: list[Array]
    refs: list[ArrayRef]
    nbytes: int


class _Copies(Sequence[Array]):
    """Arrays that are copied when they are first asked for, in their own memory order."""

    def __init__(self, arrays: Sequence[Array]) -> None:
        self._arrays = arrays
        self.made: dict[int, Array] = {}

    def __len__(self) -> int:
        return len(self._arrays)

    def __getitem__(self, index: Any) -> Any:
        if index not in self.made:
            copy = self._arrays[index].copy(order="K")
            copy.flags.writeable = self._arrays[index].flags.writeable
            self.made[index] = copy
        return self.made[index]


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
    """

    def __init__(self, engines: Sequence[Engine], link: Link, model_bytes: int) -> None:
        self._engines = {engine.name: engine for engine in engines}
        self._link = link
        self._models = Models(model_bytes)
        self._segments: dict[int, Segment] = {}
        self._waiting: dict[int, tuple[int, _Finished]] = {}
        self._output = Output()
        self._busy = self._interrupted = False
        signal.signal(signal.SIGINT, self._on_interrupt)

    def serve(self) -> None:
        """Answer the front until it is gone."""
        packages = {name.partition(".")[0] for name in third_party.installed()}
        versions = [[package, third_party.installed_version(package)] for package in sorted(packages)]
        engines = [[name, sorted(engine.estimators)] for name, engine in self._engines.items()]
        self._link.send(["ready", engines, versions])
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
            session, job, inputs, outputs = fields
            self._job(session, job, inputs, outputs, body)
        elif kind == "deliver":
            job, outputs = fields
            if job in self._waiting:
                session, finished = self._waiting.pop(job)
                self._guarded(job, lambda: self._deliver(session, job, finished, check_span_ref(outputs)))
        elif kind == "drop":
            self._waiting.pop(fields[0], None)
        elif kind == "attach":
            assert descriptor is not None
            self._attach(fields[0], descriptor)
        elif kind == "detach":
            self._models.forget(fields[0])
            for job in [job for job, (session, _) in self._waiting.items() if session == fields[0]]:
                del self._waiting[job]
            segment = self._segments.pop(fields[0], None)
            if segment is not None:
                segment.close()

    def _attach(self, session: int, descriptor: int) -> None:
        # A client that spoils its own segment has its calls refused; the others are served.
        try:
            self._segments[session] = Segment.attach(descriptor)
        except (OffloadError, OSError, ValueError):
            os.close(descriptor)

    def _job(self, session: int, job: int, inputs: Any, outputs: Any, raw: bytes) -> None:
        def work() -> None:
            finished = self._run(session, job, inputs, raw)
            if finished is None:
                return
            granted = None if outputs is None else check_span_ref(outputs)
            if not finished.arrays or (granted is not None and granted.nbytes >= finished.nbytes):
                self._deliver(session, job, finished, granted)
            else:
                self._waiting[job] = (session, self._detach(session, inputs, finished))
                self._link.send(["need_output", job, finished.nbytes])

        self._guarded(job, work)

    def _guarded(self, job: int, work: Any) -> None:
        self._busy = True
        try:
            work()
        except DeviceLost:
            os._exit(DEVICE_LOST)  # an orderly exit would wait for the device
        except OffloadError as error:
            self._link.send(["failed", job, error.code, str(error)])
        except KeyboardInterrupt:
            self._link.send(["failed", job, "cancelled", "The call was cancelled."])
        except MemoryError as error:
            self._link.send(["failed", job, "engine-error", f"The worker ran out of memory: {error}"])
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            words = f"{type(error).__name__}: {str(error)[:2000]} (in {last.name}, line {last.lineno})"
            self._link.send(["failed", job, "estimator-error", words])
        finally:
            self._busy = False
            self._output.take()

    def _run(self, session: int, job: int, inputs: Any, raw: bytes) -> _Finished | None:
        call = decode_call(raw)
        row = find(call.estimator)
        if row is None or call.method not in row.method_names:
            raise Unsupported(f"{call.estimator}.{call.method} is not in this worker's table.", "not-in-table")
        engine = self._engines.get(call.engine)
        if engine is None:
            raise Unsupported(f"This worker has no engine {call.engine}.", "unsupported-by-engine")
        if row.package != "sklearn":
            objects.register(row)
        views = self._views(session, inputs, call.refs)
        fits = METHODS[call.method].fits
        arguments_from: Sequence[Array] = _Copies(views) if fits and row.keeps_input else views
        state_from = _Copies(views)
        decoder = Decoder(state_from)
        attributes = None if call.model else decoder.attributes(call.state or [])
        model = self._models.get((session, call.engine, call.model)) if attributes is None else None
        if attributes is None and model is None:
            self._link.send(["need_model", job])
            return None
        decoder.arrays = arguments_from
        decoder.own = {} if fits else attributes or engine.state(model)
        arguments = [decoder.decode(node) for node in call.arguments]
        keywords = {str(name): decoder.decode(node) for name, node in call.keywords}
        if attributes is not None:
            parameters = {name: attributes[name] for name in row.parameters if name in attributes}
            request = Request(row, call.method, parameters, facts_of(row, call.method, arguments, keywords))
            reason = engine.support(request)
            if reason is not None:
                raise Unsupported(reason.words, reason.code)
            model = engine.load(row, attributes)
        generators = _Generators(decoder.generators, call.generator)

        begin = time.perf_counter()
        with (
            Warnings() as recorded,
            scikit_learn_settings(call.configuration),
            # Worker processes of a worker process would outlive its death.
            joblib.parallel_backend("threading", n_jobs=None),
            told(model, lambda event: self._tell(job, event)) if call.watched else contextlib.nullcontext(),
        ):
            work = functools.partial(engine.call, model, call.method, arguments, keywords)
            value = self._compute(work, call.method, generators)
        seconds = time.perf_counter() - begin

        known = arguments_from.made if isinstance(arguments_from, _Copies) else dict(enumerate(views))
        encoder = Encoder([known.get(number) for number in range(len(views))], decoder.generators)
        node = ["self"] if value is model else encoder.encode(value)
        state = None
        if fits:
            own = row.untouched | {_NAMES}
            fitted = {name: item for name, item in engine.state(model).items() if name not in own}
            state = encoder.attributes(fitted)
        refs, nbytes = placing.plan(encoder.arrays)
        own_arrays = [*state_from.made.values(), *(encoder.arrays if fits else ())]
        size = _MODEL_OVERHEAD_BYTES + sum(array.nbytes for array in own_arrays)
        kept = bool(call.keep) and self._models.keep((session, call.engine, call.keep), model, size)
        body = ResultBody(
            node, state, [list(ref) for ref in refs], recorded.describe(), self._output.take(),
            generators.advanced(), seconds, kept,
        )  # fmt: skip
        return _Finished(body, encoder.arrays, refs, nbytes)

    def _compute(self, work: Callable[[], Any], method: str, generators: _Generators) -> Any:
        try:
            return work()
        except MemoryError:
            # What partial_fit has added before it failed would be added again.
            if method == "partial_fit" or not self._models.drop_all():
                raise
        # Outside of the handler, whose traceback holds what the first attempt had allocated.
        generators.rewind()
        return work()

    def _segment(self, session: int, span: SpanRef) -> Segment:
        segment = self._segments.get(session)
        if segment is None or span.segment != 0:
            raise StaleReference("A span names a segment that is not attached.")
        inside = span.start >= DATA_OFFSET and span.start + span.nbytes <= segment.geometry.file_bytes
        if not inside or span.start % PAGE or span.nbytes < SPAN_HEADER_BYTES:
            raise StaleReference("A span lies outside its segment.")
        return segment

    def _views(self, session: int, inputs: Any, raw_refs: Sequence[Any]) -> list[Array]:
        if inputs is None:
            if raw_refs:
                raise RemoteProtocolError("Array references came without a span.")
            return []
        span = check_span_ref(inputs)
        segment = self._segment(session, span)
        header = segment.map[span.start : span.start + SPAN_HEADER_BYTES]
        payload = check_span_header(header, segment.epoch, span.generation, span.nbytes - SPAN_HEADER_BYTES, CLIENT)
        views = []
        window = np.frombuffer(segment.map, np.uint8, span.nbytes, span.start)
        for raw in raw_refs:
            ref, _ = check_array_ref(raw, SPAN_HEADER_BYTES + payload)
            view = placing.view(window.data, 0, ref)
            view.flags.writeable = ref.writeable
            views.append(view)
        return views

    def _deliver(self, session: int, job: int, finished: _Finished, granted: SpanRef | None) -> None:
        self._busy = False  # from here on a message would be torn by an interrupt
        if finished.arrays:
            assert granted is not None
            segment = self._segment(session, granted)
            if granted.nbytes < finished.nbytes:
                raise StaleReference("The span granted for a result is too small.")
            placing.write(segment.map, granted.start, finished.refs, finished.arrays)
            header = pack_span_header(segment.epoch, granted.generation, finished.nbytes - SPAN_HEADER_BYTES, WORKER)
            segment.map[granted.start : granted.start + SPAN_HEADER_BYTES] = header
        self._link.send(["result", job], encode_body(finished.body))

    def _detach(self, session: int, inputs: Any, finished: _Finished) -> _Finished:
        # The client may reuse the input span once it is told that the result waits for room.
        if inputs is None:
            return finished
        span = check_span_ref(inputs)
        base = np.frombuffer(self._segment(session, span).map, np.uint8).__array_interface__["data"][0] + span.start
        arrays = [
            array.copy(order="K") if base <= array.__array_interface__["data"][0] < base + span.nbytes else array
            for array in finished.arrays
        ]
        return finished._replace(arrays=arrays)


class _Generators:
    """The random generators of a call, and which of them it advanced."""

    def __init__(self, generators: Sequence[np.random.RandomState], global_node: Any) -> None:
        self._all = dict(enumerate(generators))
        if global_node is not None:
            own = global_generator()
            try:
                set_generator(own, global_node)
            except (TypeError, ValueError):
                raise RemoteProtocolError("The state of the random generator is malformed.") from None
            self._all[-1] = own
        self._before = {number: generator_node(one, number) for number, one in self._all.items()}

    def rewind(self) -> None:
        for number, generator in self._all.items():
            set_generator(generator, self._before[number])

    def advanced(self) -> list[list[Any]]:
        after = {number: generator_node(one, number) for number, one in self._all.items()}
        return [[number, node] for number, node in after.items() if node != self._before[number]]


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
    Executor(made, link, model_bytes).serve()


if __name__ == "__main__":
    main()
