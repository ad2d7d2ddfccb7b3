"""Estimators whose methods engines compute, for those of scikit-learn that are made of others, or fit others.

scikit-learn's own code runs in this process, and does what it always does; the estimators that it holds are of
subclasses, made here, whose methods ask an engine. Data stay on its device from one to the next.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from sklearn.utils.validation import _check_feature_names

from sklearn_wsl_gpu.errors import EngineError, OffloadError, Reason, Unsupported
from sklearn_wsl_gpu.estimators import METHODS, Graph, Row, row_of
from sklearn_wsl_gpu.state import objects, tables
from sklearn_wsl_gpu.support import Request, facts_of, request_of, without_target
from sklearn_wsl_gpu.support.graphs import parts
from wsl_worker.engines.base import Engine
from wsl_worker.resident import Resident, give_back, take_along

#: Methods whose results are data for the next estimator.
_HANDED_ON = frozenset({"transform", "fit_transform", "inverse_transform"})


class _Abandoned(BaseException):
    """An estimator cannot be computed: scikit-learn, which would take it for a fit that failed, is not to catch it."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class Inputs(Protocol):
    """Data that are on a device already."""

    def get(self, engine: Engine, X: Any) -> Any:
        """Return data as they are on the device of an engine, or None."""

    def keep(self, engine: Engine, X: Any, resident: Resident) -> None:
        """Keep them for another call."""


class Binding:
    """The engines that compute the parts of an estimator, with the questions of an engine for the whole.

    Parameters
    ----------
    engines : sequence of Engine
        By preference: each part is computed by the first that takes it.
    inputs : Inputs or None
        Keeps data on the device from one call to the next.
    """

    def __init__(self, engines: Sequence[Engine], inputs: Inputs | None = None) -> None:
        self._engines = engines
        self._inputs = inputs
        self._classes = _classes_of(tuple(engines))

    def support(self, request: Request) -> Reason | None:
        """Answer whether every part is taken by an engine."""
        if not isinstance(request.row, Graph):
            reasons = [engine.support(request) for engine in self._engines if request.row.name in engine.estimators]
            missing = Reason("unsupported-by-engine", f"{request.row.name} is computed by no engine here.")
            return None if None in reasons else next(iter(reasons), missing)
        for part, asked in parts(request):
            if asked is None:
                what = type(part).__qualname__
                return Reason("unsupported-part", f"{request.row.name}: it holds a {what}, which is none of the table.")
            reason = self.support(asked)
            if reason is not None:
                return reason
        return None

    def load(self, row: Row, attributes: Mapping[str, Any]) -> Any:
        """Return an estimator of scikit-learn whose parts are bound."""
        return self.bind(objects.build_estimator(objects.estimator_class(row.name), attributes))

    def call(self, model: Any, method: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Call a method of a bound estimator."""
        given = [self.along(arguments[0]), *arguments[1:]] if arguments else []
        named = {name: self.along(value) if name == "X" else value for name, value in keywords.items()}
        return give_back(unabandoned(lambda: getattr(model, method)(*given, **named)))

    def state(self, model: Any) -> Mapping[str, Any]:
        """Return the attributes of a bound estimator."""
        return objects.carried_attributes(model)

    def along(self, X: Any) -> Any:
        """Return data on the device of the engines, if they can be there."""
        engine = next((one for one in self._engines if one.arrays), None)
        if engine is None:
            return X
        known = None if self._inputs is None else self._inputs.get(engine, X)
        if known is not None:
            return known
        found = take_along(engine, X)
        if self._inputs is not None and found is not X:
            self._inputs.keep(engine, X, found)
        return found

    def bind(self, value: Any) -> Any:
        """Have all estimators in a value, however deep, be computed by the engines from now on; return the value."""
        if isinstance(value, (list, tuple)):
            for item in value:
                self.bind(item)
        elif isinstance(value, dict):
            for item in value.values():
                self.bind(item)
        elif type(value) in objects.ESTIMATOR_NAMES:
            row = row_of(type(value))
            for item in vars(value).values():
                self.bind(item)
            if row is not None and not isinstance(row, Graph):
                value.__class__ = self._classes.bound(row)
        return value


@functools.lru_cache(maxsize=8)
def _classes_of(engines: tuple[Engine, ...]) -> _Classes:
    return _Classes(engines)


class _Classes:
    """The classes whose methods some engines compute. They are made once: a class is for good."""

    def __init__(self, engines: tuple[Engine, ...]) -> None:
        self._engines = engines
        self._classes: dict[type[Any], type[Any]] = {}
        self._models: WeakKeyDictionary[Any, tuple[Engine, Any]] = WeakKeyDictionary()

    def bound(self, row: Row) -> type[Any]:
        """Return the class for estimators of a row."""
        assert row.cls is not None
        if row.cls not in self._classes:
            methods = {name: self._method(row, name) for name in row.method_names if self._is_computed(row, name)}
            bound = type(row.cls.__name__, (row.cls,), methods)
            objects.ESTIMATOR_NAMES[bound] = row.name
            self._classes[row.cls] = bound
        return self._classes[row.cls]

    def _is_computed(self, row: Row, method: str) -> bool:
        # What no engine computes, scikit-learn does with the fitted attributes, and with methods that are computed.
        return any(method in engine.methods(row) for engine in self._engines if row.name in engine.estimators)

    def _method(self, row: Row, name: str) -> Any:
        raw = getattr(row.cls, name)

        @functools.wraps(raw)
        def method(estimator: Any, /, *args: Any, **kwargs: Any) -> Any:
            try:
                return self._compute(estimator, row, name, args, kwargs)
            except (OffloadError, MemoryError) as error:
                raise _Abandoned(error) from error

        return method

    def _compute(self, estimator: Any, row: Row, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        args, kwargs = without_target(row, name, args, kwargs)
        fits, kept = METHODS[name].fits, self._models.get(estimator)
        engines = [engine for engine in self._engines if row.name in engine.estimators]
        if not fits and kept is not None:
            engines = [kept[0]]
        request = request_of(row, name, vars(estimator), facts_of(row, name, args, kwargs))
        reason: OffloadError = Unsupported(f"No engine here computes {row.name}.", "unsupported-by-engine")
        for engine in engines:
            why = engine.support(request)
            if why is not None:
                reason = Unsupported(why.words, why.code)
                continue
            try:
                return self._compute_by(engine, estimator, row, name, args, kwargs)
            except Unsupported as error:
                reason = error
            except Exception as error:
                meaning = engine.meaning(error)
                if meaning is not error:
                    raise meaning from error
                if engine.name == "cpu" or isinstance(error, (OffloadError, MemoryError)):
                    raise  # scikit-learn's own, or nobody's to catch
                # It may be none that scikit-learn would raise: then it must not count as a fit that failed.
                words = f"{row.name}.{name} failed by {engine.name}: {type(error).__name__}: {error}"
                raise EngineError(words, "estimator-error") from error
        raise reason

    def _compute_by(
        self, engine: Engine, estimator: Any, row: Row, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        fits, kept = METHODS[name].fits, self._models.get(estimator)
        model = None if fits or kept is None else kept[1]
        if model is None:
            attributes = objects.carried_attributes(estimator)
            if fits and not row.refits and name != "partial_fit" and not attributes.get("warm_start"):
                attributes = {key: value for key, value in attributes.items() if key in row.initial_names}
            model = engine.load(row, attributes)
        given = [self._argument(engine, value) for value in args]
        named = {key: self._argument(engine, value) for key, value in kwargs.items()}
        data = args[0] if args else kwargs.get("X")
        if row.named and data is not None and not isinstance(data, Resident):
            _check_feature_names(estimator, data, reset=fits)
        if name in _HANDED_ON:
            value = engine.compute(model, name, given, named)
        else:
            value = engine.call(model, name, given, named)
        if fits:
            fitted = {key: item for key, item in engine.state(model).items() if key not in row.untouched}
            vars(estimator).update(fitted)
        self._models[estimator] = (engine, model)
        if value is model:
            return estimator
        is_matrix = engine.arrays and not isinstance(value, np.ndarray) and len(getattr(value, "shape", ())) == 2
        return Resident(engine, value) if is_matrix and hasattr(value, "__dlpack__") else engine.get(value)

    def _argument(self, engine: Engine, value: Any) -> Any:
        if isinstance(value, Resident):
            return value.on(engine)
        if tables.is_table(value):
            return np.asarray(value)
        return value


def unabandoned(work: Any) -> Any:
    """Return what a function returns; what it was abandoned for is raised as it was."""
    try:
        return work()
    except _Abandoned as abandoned:
        raise abandoned.error from None
