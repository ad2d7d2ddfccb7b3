"""One call, from policy to adopt."""

from __future__ import annotations

import contextlib
import copy
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sklearn_wsl_gpu import _compat, graphs, inheritance, inputs, lending, policy, progress, sessions, support
from sklearn_wsl_gpu.adopt import adopt, user_level
from sklearn_wsl_gpu.config import Frame, Settings, suspended
from sklearn_wsl_gpu.errors import EngineError, FallbackWarning, OffloadError, Reason, Unsupported, guarded
from sklearn_wsl_gpu.estimators import Graph, third_party
from sklearn_wsl_gpu.gather import Gathered, attributes_to_send, fingerprint, gather
from sklearn_wsl_gpu.invocation import Invocation
from sklearn_wsl_gpu.measuring import note_local, placed, predict
from sklearn_wsl_gpu.predictions import Prediction, Work
from sklearn_wsl_gpu.recording import record, record_remote
from sklearn_wsl_gpu.reporting import CallRecord
from sklearn_wsl_gpu.session import LoanInTheWay, ModelMissing, Reply, Session
from sklearn_wsl_gpu.state.encoding import global_generator
from sklearn_wsl_gpu.workload import of_call, offered

#: Failures that may be the user's own error: scikit-learn, run here, gives the canonical one.
_JUDGED_BY_SCIKIT_LEARN = frozenset({"estimator-error"})


def dispatch(frame: Frame, call: Invocation) -> Any:
    """Do a wrapped call: on the worker if it may go there, else here."""
    if isinstance(call.row, Graph):
        return _dispatch_graph(frame, call)
    try:
        with guarded:
            reason = policy.reason_to_stay(frame.settings, _facts(call)) or policy.cheaper_here(_predict(frame, call))
        if reason is None:
            return _offload(frame, call)
        if reason.code not in policy.CHOSEN:
            raise Unsupported(reason.words, reason.code)
    except OffloadError as error:
        if frame.settings.fallback == "raise" and error.code not in _JUDGED_BY_SCIKIT_LEARN:
            raise
        failure = error.with_traceback(None)
    else:
        return _stay(frame, call, reason)
    # Outside of the handler: to an error of scikit-learn's that comes now, this one is not the context.
    try:
        return _fall_back(frame, call, failure)
    finally:
        del failure  # what it came through may hold arrays


def _dispatch_graph(frame: Frame, call: Invocation) -> Any:
    cheaper = None
    try:
        with guarded:
            # Whether it is included is for its parts to say, too.
            reason = policy.reason_to_stay(replace(frame.settings, include=None), _facts(call))
            if reason is None:
                reason = graphs.reason_to_split(frame.settings, call.row, call.estimator, call.data)
            if reason is None:
                cheaper = policy.cheaper_here(_predict(frame, call))
        if reason is None and cheaper is None:
            return _offload(frame, call)
    except OffloadError as error:
        reason = error.reason
    if cheaper is not None:
        return _stay(frame, call, cheaper)
    # Its parts are offloaded, or not, each by itself; what is wrong with the call they have to say.
    name = type(call.estimator).__name__
    record(frame, CallRecord(name, call.method, "in parts", "scikit-learn", reason))
    return call.run_here()


def _predict(frame: Frame, call: Invocation) -> Prediction | None:
    return predict(_work(frame, call)) if frame.settings.policy == "auto" else None


def _work(frame: Frame, call: Invocation) -> Work:
    return placed(of_call(frame.settings, call), frame.settings, call.data)


def _facts(call: Invocation) -> policy.Facts:
    estimator = call.estimator
    return policy.Facts(
        call.row.name,
        _find_override(call),
        inputs.count_elements(call.data),
        call.is_in_place or call.row.works_in_place(estimator),
        call.fits and progress.stays(estimator),
    )


def _find_override(call: Invocation) -> str | None:
    estimator, row = call.estimator, call.row
    own = inheritance.find_own(estimator, row)
    if own is not None or type(estimator) is row.cls:
        return own
    if not _compat.validates_like(row.cls, estimator, target=call.fits):
        return "__sklearn_tags__"
    if call.fits and not _compat.has_valid_parameters(estimator):
        # The worker knows the parameters of the table's class only: local scikit-learn tells what is wrong.
        return "_parameter_constraints"
    return inheritance.find_override(type(estimator), row, call.method)


def _offload(frame: Frame, call: Invocation) -> Any:
    begin = time.perf_counter()
    settings = frame.settings
    deadline = None if settings.timeout is None else time.monotonic() + settings.timeout
    with guarded:
        session = sessions.obtain(settings)
        times = begin, time.perf_counter()
        engines = support.able(session.engines, call.row, call.request)
        _check_version(session, call.row.package)
        if isinstance(call.row, Graph):
            graphs.check_table(session.version("pandas"), call.data)
        mark = None if call.fits else fingerprint(attributes_to_send(call))
    with progress.watched(call.estimator, fits=call.fits) as watch:
        with guarded:
            asked = _ask_in_turn(session, engines, call, mark, (deadline, settings), watch)
        if watch is not None:
            watch.finish()
        return _take(frame, call, session, asked, mark, times)


def _check_version(session: Session, package: str) -> None:
    if package == "sklearn":  # which was compared when the session was opened
        return
    here, there = third_party.installed_version(package), session.version(package)
    if here != there:
        raise Unsupported(
            f"{package} is {here or 'of unknown version'} here and {there or 'of unknown version'} at the worker; "
            "results could differ. Install the same version on both sides.",
            "version-mismatch",
        )


def _take(
    frame: Frame, call: Invocation, session: Session, asked: _Asked, mark: bytes | None, times: tuple[float, float]
) -> Any:
    reply, answered = asked.reply, time.perf_counter()
    try:
        value = adopt(call, asked.gathered, reply)
        if reply.body.kept:
            with contextlib.suppress(OffloadError):  # the call is done: it must not be done again
                mark = _mark_of_fitted(call, asked) if call.fits else mark
            if mark is not None:
                session.remember_model(asked.engine, mark, asked.model)
        return value
    finally:
        what = type(call.estimator).__name__, call.method, asked.engine
        work = offered(_work(frame, call), session.engines)
        record_remote(frame, what, work, reply, (*times, answered))


class _Asked(NamedTuple):
    reply: Reply
    gathered: Gathered
    engine: str
    model: int
    stale: bool


def _ask_in_turn(
    session: Session,
    engines: Sequence[str],
    call: Invocation,
    mark: bytes | None,
    terms: tuple[float | None, Settings],
    watch: progress.Progress | None,
) -> _Asked:
    for engine in engines[:-1]:
        try:
            return _ask(session, engine, call, mark, terms, watch)
        except Unsupported as error:
            # What only the data tell, such as NaN: the next engine may take them.
            if error.code != "unsupported-by-engine":
                raise
    return _ask(session, engines[-1], call, mark, terms, watch)


def _ask(
    session: Session,
    engine: str,
    call: Invocation,
    mark: bytes | None,
    terms: tuple[float | None, Settings],
    watch: progress.Progress | None,
) -> _Asked:
    deadline, settings = terms
    single = settings.precision == "engine" and support.is_single(engine, call.row)
    model = 0 if mark is None else session.model(engine, mark)
    stale = call.fits and graphs.was_fitted(call.row, call.estimator)
    while True:
        number = session.next_number()
        loan = lending.current(session)
        depth = -1 if watch is None else progress.depth_of(call.estimator)
        keep = 0 if model else number
        gathered = gather(
            call, engine, model, keep, session.pool,
            watched=depth, loan=loan, priority=settings.priority, single=single,
        )  # fmt: skip
        try:
            reply = session.request(number, gathered, deadline, None if watch is None else watch.show)
            return _Asked(reply, gathered, engine, model or number, stale)
        except ModelMissing:
            if mark is not None:
                session.forget_model(engine, mark)
            model = 0
        except LoanInTheWay:
            lending.give_back()


def _mark_of_fitted(call: Invocation, asked: _Asked) -> bytes | None:
    if asked.stale:
        return None
    attributes = attributes_to_send(call, fitted=True)
    known = asked.gathered.sent | {name for name, _ in asked.reply.body.state or ()}
    # What an earlier fit has left here is not part of the worker's model.
    return fingerprint(attributes) if attributes.keys() <= known else None


def _stay(frame: Frame, call: Invocation, reason: Reason) -> Any:
    begin = time.perf_counter()
    try:
        with suspended():
            value = call.run_here()
        note_local(of_call(frame.settings, call), time.perf_counter() - begin)
        return value
    finally:
        seconds = {"compute": time.perf_counter() - begin}
        name = type(call.estimator).__name__
        record(frame, CallRecord(name, call.method, "local", "scikit-learn", reason, seconds))


def _judge(frame: Frame, call: Invocation, error: OffloadError) -> None:
    """Have scikit-learn say what is wrong, if it is, on a copy: nothing is done, so nothing is to be changed."""
    drawn = global_generator().get_state(legacy=False)
    try:
        try:
            estimator = copy.deepcopy(call.estimator)
        except Exception:  # it holds what cannot be copied
            estimator = copy.copy(call.estimator)
        _stay(frame, Invocation(call.row, call.method, call.raw, estimator, call.args, call.kwargs), error.reason)
    finally:
        global_generator().set_state(drawn)


def _fall_back(frame: Frame, call: Invocation, error: OffloadError) -> Any:
    if frame.settings.fallback == "raise":
        _judge(frame, call, error)
        # scikit-learn has no objection, so the engine failed.
        raise EngineError(f"The worker failed where local scikit-learn does not: {error}") from error
    value = _stay(frame, call, error.reason)
    what = f"{call.row.name}.{call.method}"
    if frame.settings.fallback == "local" and (error.code, what) not in frame.warned:
        frame.warned.add((error.code, what))
        text = f"{what} was done by local scikit-learn: {error} [{error.code}]"
        warnings.warn(text, FallbackWarning, stacklevel=user_level())
    return value
