"""One call, from policy to adopt."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

from sklearn_wsl_gpu import _compat, inheritance, inputs, policy, progress, sessions, support
from sklearn_wsl_gpu.adopt import adopt, user_level
from sklearn_wsl_gpu.config import Frame, suspended
from sklearn_wsl_gpu.errors import EngineError, FallbackWarning, OffloadError, Reason, Unsupported
from sklearn_wsl_gpu.estimators import third_party
from sklearn_wsl_gpu.gather import Gathered, attributes_to_send, fingerprint, gather
from sklearn_wsl_gpu.invocation import Invocation
from sklearn_wsl_gpu.reporting import CallRecord
from sklearn_wsl_gpu.session import ModelMissing, Reply, Session

#: Failures that may be the user's own error: scikit-learn, run here, gives the canonical one.
_JUDGED_BY_SCIKIT_LEARN = frozenset({"estimator-error"})


def dispatch(frame: Frame, call: Invocation) -> Any:
    """Do a wrapped call: on the worker if it may go there, else here."""
    reason = policy.reason_to_stay(frame.settings, _facts(call))
    if reason is None:
        try:
            return _offload(frame, call)
        except OffloadError as error:
            return _fall_back(frame, call, error)
    if reason.code in policy.CHOSEN:
        return _stay(frame, call, reason)
    return _fall_back(frame, call, Unsupported(reason.words, reason.code))


def _facts(call: Invocation) -> policy.Facts:
    estimator, args = call.estimator, call.args
    in_place = call.kwargs.get("copy", True) is False or (len(args) > 1 and args[1] is False)
    return policy.Facts(
        call.row.name,
        _find_override(call),
        inputs.count_elements(call.data),
        in_place or call.row.works_in_place(estimator),
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
    session = sessions.obtain(settings)
    engines = support.able(session.engines, call.row, call.request)
    _check_version(session, call.row.package)
    mark = None if call.fits else fingerprint(attributes_to_send(call))
    with progress.watched(call.estimator, fits=call.fits) as watch:
        asked = _ask_in_turn(session, engines, call, mark, deadline, watch)
        if watch is not None:
            watch.finish()
        return _take(frame, call, session, asked, mark, begin)


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


def _take(frame: Frame, call: Invocation, session: Session, asked: _Asked, mark: bytes | None, begin: float) -> Any:
    reply, answered = asked.reply, time.perf_counter()
    try:
        value = adopt(call, asked.gathered, reply)
        if reply.body.kept:
            mark = _mark_of_fitted(call, asked) if call.fits else mark
            if mark is not None:
                session.remember_model(asked.engine, mark, asked.model)
        return value
    finally:
        seconds = {
            "gather": answered - begin - reply.send_seconds - reply.wait_seconds,
            "send": reply.send_seconds,
            "compute": reply.body.seconds,
            "receive": max(reply.wait_seconds - reply.body.seconds, 0.0),
            "adopt": time.perf_counter() - answered,
        }
        sent = len(asked.gathered.body) + asked.gathered.nbytes
        name = type(call.estimator).__name__
        _record(frame, CallRecord(name, call.method, "worker", asked.engine, None, seconds, sent, reply.nbytes))


class _Asked(NamedTuple):
    reply: Reply
    gathered: Gathered
    engine: str
    model: int


def _ask_in_turn(
    session: Session,
    engines: Sequence[str],
    call: Invocation,
    mark: bytes | None,
    deadline: float | None,
    watch: progress.Progress | None,
) -> _Asked:
    for engine in engines[:-1]:
        try:
            return _ask(session, engine, call, mark, deadline, watch)
        except Unsupported as error:
            # What only the data tell, such as NaN: the next engine may take them.
            if error.code != "unsupported-by-engine":
                raise
    return _ask(session, engines[-1], call, mark, deadline, watch)


def _ask(
    session: Session,
    engine: str,
    call: Invocation,
    mark: bytes | None,
    deadline: float | None,
    watch: progress.Progress | None,
) -> _Asked:
    model = 0 if mark is None else session.model(engine, mark)
    while True:
        number = session.next_number()
        gathered = gather(call, engine, model, 0 if model else number, watched=watch is not None)
        try:
            reply = session.request(number, gathered, deadline, None if watch is None else watch.show)
            return _Asked(reply, gathered, engine, model or number)
        except ModelMissing:
            if mark is not None:
                session.forget_model(engine, mark)
            model = 0


def _mark_of_fitted(call: Invocation, asked: _Asked) -> bytes | None:
    attributes = attributes_to_send(call, fitted=True)
    known = asked.gathered.sent | {name for name, _ in asked.reply.body.state or ()}
    # What an earlier fit has left here is not part of the worker's model.
    return fingerprint(attributes) if attributes.keys() <= known else None


def _stay(frame: Frame, call: Invocation, reason: Reason) -> Any:
    begin = time.perf_counter()
    try:
        with suspended():
            return call.run_here()
    finally:
        seconds = {"compute": time.perf_counter() - begin}
        name = type(call.estimator).__name__
        _record(frame, CallRecord(name, call.method, "local", "scikit-learn", reason, seconds))


def _fall_back(frame: Frame, call: Invocation, error: OffloadError) -> Any:
    strict = frame.settings.fallback == "raise"
    if strict and error.code not in _JUDGED_BY_SCIKIT_LEARN:
        raise error
    before = dict(vars(call.estimator))
    value = _stay(frame, call, error.reason)
    if strict:
        # scikit-learn has no objection, so the engine failed: undo, and say so.
        call.estimator.__dict__ = before
        raise EngineError(f"The worker failed where local scikit-learn does not: {error}") from error
    what = f"{call.row.name}.{call.method}"
    if frame.settings.fallback == "local" and (error.code, what) not in frame.warned:
        frame.warned.add((error.code, what))
        text = f"{what} was done by local scikit-learn: {error} [{error.code}]"
        warnings.warn(text, FallbackWarning, stacklevel=user_level())
    return value


def _record(frame: Frame, record: CallRecord) -> None:
    for report in frame.reports:
        report.add(record)
    if frame.settings.verbose:
        why = f" [{record.reason.code}]" if record.reason else ""
        print(
            f"sklearn_wsl_gpu: {record.estimator}.{record.method} {record.where} ({record.engine}){why} "
            f"{record.total_seconds:.4f} s",
            file=sys.stderr,
        )
