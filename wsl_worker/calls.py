"""One call: from the bytes of its body to those of its result."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from sklearn_wsl_gpu.errors import RemoteProtocolError, Unsupported
from sklearn_wsl_gpu.estimators import METHODS, Graph, Row, find, walk
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.protocol.messages import CallBody, ResultBody
from sklearn_wsl_gpu.state import Decoder, Encoder, objects
from sklearn_wsl_gpu.state.decoding import set_generator
from sklearn_wsl_gpu.state.encoding import generator_node, global_generator
from sklearn_wsl_gpu.support import facts_of, facts_of_data, request_of
from wsl_worker.binding import Binding, unabandoned
from wsl_worker.engines.base import Engine
from wsl_worker.finished import Finished, finish
from wsl_worker.fits import Fits
from wsl_worker.models import Models
from wsl_worker.progress import ToldFits, told
from wsl_worker.surroundings import Backend, Output, Warnings, scikit_learn_settings
from wsl_worker.target import Space, Target

#: A model costs at least this, whatever its arrays take.
_MODEL_OVERHEAD_BYTES = 16 * 1024
#: Every attribute of a fitted estimator but this one: names of columns are the client's business.
_NAMES = "feature_names_in_"
_NOTHING = contextlib.nullcontext()


class ModelMissing(Exception):
    """The call names a model that is not kept (any more)."""


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


class _Inputs:
    """The arrays of a call as they are kept on a device: those of a span that is held come again in later calls."""

    def __init__(self, models: Models, session: int, views: Sequence[Array], places: Sequence[int]) -> None:
        self._models = models
        self._session = session
        self._places = {id(view): place for view, place in zip(views, places, strict=True)}
        self._keeps_changeable = False

    def get(self, engine: Engine, X: Any) -> Any:
        place = self._places.get(id(X))
        return None if place is None else self._models.get((self._session, f"inputs of {engine.name}", place))

    def keep(self, engine: Engine, X: Any, resident: Any) -> None:
        place = self._places.get(id(X))
        if place is not None:
            self._keeps_changeable = self._keeps_changeable or place < 0
            self._models.keep((self._session, f"inputs of {engine.name}", place), resident, X.nbytes)

    def forget_changeable(self) -> None:
        """Forget what has a negative place: it may be something else in the next call."""
        if self._keeps_changeable:
            self._models.forget(self._session, lambda key: key[2] < 0)


class Calls:
    """Does calls with the engines.

    Parameters
    ----------
    engines : mapping of str to Engine
    models : Models
        Keeps what is to be kept.
    output : Output
        What is written meanwhile.
    """

    def __init__(self, engines: Mapping[str, Engine], models: Models, output: Output) -> None:
        self._engines = engines
        self._models = models
        self._output = output
        self._backend = Backend()
        self._call_engines: Sequence[Engine] = ()

    def run(
        self,
        session: int,
        call: CallBody,
        views: Sequence[Array],
        places: Sequence[int],
        tell: Callable[[list[Any]], None],
        space: Space | None = None,
    ) -> Finished:
        """Do a call.

        Parameters
        ----------
        session : int
            Whose models are looked for, and kept.
        call : CallBody
        views : sequence of ndarray
            The arrays that the call's nodes count into; they lie where the client may write when it is done.
        places : sequence of int
            Where each of them lies; never the same number for anything else, but for negative ones, which count for
            this call only.
        tell : callable
            Takes each event of the progress, if the call is watched.
        space : Space or None
            Where the result may be computed.

        Raises
        ------
        ModelMissing
            If the state of the estimator has to come along.
        OffloadError
            If it is not done here. What an estimator raises is passed on.
        """
        names = call.engine.split(",")
        missing = next((name for name in names if name not in self._engines), None)
        if missing is not None:
            raise Unsupported(f"This worker has no engine {missing}.", "unsupported-by-engine")
        engines = [self._engines[name] for name in names]
        inputs = _Inputs(self._models, session, views, places)
        self._call_engines = engines
        try:
            return self._run(session, call, engines, views, inputs, tell, space)
        except ModelMissing:
            raise
        except Exception as error:
            self._raise_meaning(error)
            raise
        finally:
            inputs.forget_changeable()

    def _raise_meaning(self, error: Exception) -> None:
        for engine in self._call_engines:
            meaning = engine.meaning(error)
            if meaning is not error:
                raise meaning from error

    def _run(
        self,
        session: int,
        call: CallBody,
        engines: Sequence[Engine],
        views: Sequence[Array],
        inputs: _Inputs,
        tell: Callable[[list[Any]], None],
        space: Space | None,
    ) -> Finished:
        if not call.estimator and call.method in engines[0].functions:
            return self._run_function(engines[0], call, views)
        if not call.estimator:
            return self._run_fits(engines, call, views, inputs, tell)
        row = find(call.estimator)
        if row is None or call.method not in row.method_names:
            raise Unsupported(f"{call.estimator}.{call.method} is not in this worker's table.", "not-in-table")
        computes = Binding(engines, inputs) if isinstance(row, Graph) and _needs_binding(engines) else engines[0]
        return self._run_method(session, row, computes, call, views, tell, space)

    def _run_function(self, engine: Engine, call: CallBody, views: Sequence[Array]) -> Finished:
        decoder = Decoder(views)
        arguments = [decoder.decode(node) for node in call.arguments]
        keywords = {str(name): decoder.decode(node) for name, node in call.keywords}
        generators = _Generators(decoder.generators, None)
        with _Surroundings(call, self._backend) as around:
            value = self._compute(lambda: engine.call_function(call.method, arguments, keywords), True, generators)
        encoder = Encoder(views)
        return self._finish(call, encoder, encoder.encode(value), None, around, generators, kept=False)

    def _run_fits(
        self,
        engines: Sequence[Engine],
        call: CallBody,
        views: Sequence[Array],
        inputs: _Inputs,
        tell: Callable[[list[Any]], None],
    ) -> Finished:
        decoder = Decoder(views)
        arguments = [decoder.decode(node) for node in call.arguments]
        common = {str(name): decoder.decode(node) for name, node in call.keywords}
        fits = Fits(call.method, arguments, common)
        binding = Binding(engines, inputs)
        for request in fits.requests(facts_of_data(fits.X, fits.y)):
            reason = binding.support(request)
            if reason is not None:
                raise Unsupported(reason.words, reason.code)
        generators = _Generators(decoder.generators, call.generator)
        watch = ToldFits(tell, call.watched) if call.watched >= 0 else None
        if _needs_binding(engines):
            fits.bind(binding)
        with _Surroundings(call, self._backend) as around:
            results = self._compute(lambda: unabandoned(lambda: fits.run(watch)), True, generators)
        encoder = Encoder(views, decoder.generators, call.engine == "cpu")
        return self._finish(call, encoder, encoder.encode(results), None, around, generators, kept=False)

    def _run_method(
        self,
        session: int,
        row: Row,
        engine: Engine | Binding,
        call: CallBody,
        views: Sequence[Array],
        tell: Callable[[list[Any]], None],
        space: Space | None,
    ) -> Finished:
        if row.package != "sklearn":
            objects.register(row)
        fits = METHODS[call.method].fits
        state_from = _Copies(views)
        decoder = Decoder(state_from)
        attributes = None if call.model else decoder.attributes(call.state or [])
        model = self._models.get((session, call.engine, call.model)) if attributes is None else None
        if attributes is None and model is None:
            raise ModelMissing
        arguments_from: Sequence[Array] = _Copies(views) if fits and _keeps_input(row, attributes or {}) else views
        decoder.arrays = arguments_from
        if not fits:
            decoder.own = lambda: engine.state(model) if attributes is None else attributes
        arguments = [decoder.decode(node) for node in call.arguments]
        keywords = {str(name): decoder.decode(node) for name, node in call.keywords}
        if attributes is not None:
            facts = facts_of(row, call.method, arguments, keywords)
            reason = engine.support(request_of(row, call.method, attributes, facts))
            if reason is not None:
                raise Unsupported(reason.words, reason.code)
            model = engine.load(row, attributes)
        target = Target(row, call, views, arguments, space if call.engine == "cpu" else None)
        generators = _Generators(decoder.generators, call.generator)
        watch = told(model, tell, call.watched) if call.watched >= 0 else None
        # A second fit would go on from where the first one failed.
        goes_on = fits and (call.method == "partial_fit" or _is_warm(row, attributes or {}))
        may_repeat = not goes_on and not target.in_use
        try:
            overwriting = target.overwriting(model) if target.in_use else _NOTHING
            with _Surroundings(call, self._backend, watch) as around, overwriting:
                value = self._compute(
                    lambda: engine.call(model, call.method, arguments, keywords), may_repeat, generators
                )
        except BaseException:
            # An interrupt may have left it with the parameters of that call.
            self._models.forget(session, lambda key: key[2] == call.model and target.in_use)
            raise

        known = arguments_from.made if isinstance(arguments_from, _Copies) else dict(enumerate(views))
        kept = [None if number == target.lost else known.get(number) for number in range(len(views))]
        encoder = Encoder(kept, decoder.generators, call.engine == "cpu")
        node = ["self"] if value is model else encoder.encode(value)
        state = encoder.attributes(_fitted(row, engine.state(model))) if fits else None
        own_arrays = [*state_from.made.values(), *(encoder.arrays if fits else ())]
        size = _MODEL_OVERHEAD_BYTES + sum(array.nbytes for array in own_arrays)
        is_kept = bool(call.keep) and self._models.keep((session, call.engine, call.keep), model, size)
        return self._finish(call, encoder, node, state, around, generators, is_kept, target)

    def _finish(
        self,
        call: CallBody,
        encoder: Encoder,
        node: Any,
        state: Any,
        around: _Surroundings,
        generators: _Generators,
        kept: bool,
        target: Target | None = None,
    ) -> Finished:
        body = ResultBody(
            node, state, [], around.recorded.describe(), self._output.take(), generators.advanced(), around.seconds,
            kept,
        )  # fmt: skip
        return finish(body, encoder.arrays, call.inline, target)

    def _compute(self, work: Callable[[], Any], may_repeat: bool, generators: _Generators) -> Any:
        try:
            try:
                return work()
            except Exception as error:
                self._raise_meaning(error)
                raise
        except MemoryError:
            # What partial_fit has added before it failed would be added again.
            if not may_repeat or not self._models.drop_all():
                raise
        # Outside of the handler, whose traceback holds what the first attempt had allocated.
        generators.rewind()
        return work()


def _needs_binding(engines: Sequence[Engine]) -> bool:
    # Plain scikit-learn computes the parts of an estimator by itself.
    return any(engine.name != "cpu" for engine in engines)


def _is_warm(row: Row, attributes: Mapping[str, Any]) -> bool:
    return bool(attributes.get("warm_start")) or any(
        getattr(part, "warm_start", False) for _, part in walk(row, attributes)
    )


def _keeps_input(row: Row, attributes: Mapping[str, Any]) -> bool:
    return row.keeps_input or any(part is not None and part.keeps_input for part, _ in walk(row, attributes))


def _fitted(row: Row, state: Mapping[str, Any]) -> dict[str, Any]:
    own = set(row.untouched)
    if not isinstance(row, Graph):
        own.add(_NAMES)
    elif row.fits_parts:
        own.remove(row.parts)
    return {name: value for name, value in state.items() if name not in own}


@contextlib.contextmanager
def _nested(*contexts: AbstractContextManager[Any]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for one in contexts:
            stack.enter_context(one)
        yield


class _Surroundings:
    """What a call runs in, and how long it took."""

    def __init__(self, call: CallBody, backend: Backend, watch: AbstractContextManager[None] | None = None) -> None:
        self.recorded = Warnings()
        self.seconds = 0.0
        self._backend = backend
        # Worker processes of a worker process would outlive its death. A device is asked by one thread.
        self._backend_name = "threading" if call.engine == "cpu" else "sequential"
        settings = scikit_learn_settings(call.configuration) if call.configuration else None
        more = [one for one in (settings, watch) if one is not None]
        self._around: AbstractContextManager[Any] = _nested(self.recorded, *more) if more else self.recorded

    def __enter__(self) -> _Surroundings:
        self._begin = time.perf_counter()
        self._backend.use(self._backend_name)
        self._around.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._around.__exit__(*error)
        if error[0] is not None:
            self._backend.forget()
        self.seconds = time.perf_counter() - self._begin


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
