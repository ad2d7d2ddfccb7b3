"""One call, from policy to adopt."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from sklearn_wsl_gpu import inputs, policy, sessions
from sklearn_wsl_gpu.adopt import adopt, user_level
from sklearn_wsl_gpu.config import Frame, suspended
from sklearn_wsl_gpu.errors import EngineError, FallbackWarning, OffloadError, Reason, Unsupported
from sklearn_wsl_gpu.estimators import METHODS, Row
from sklearn_wsl_gpu.gather import attributes_to_send, fingerprint, gather
from sklearn_wsl_gpu.reporting import CallRecord
from sklearn_wsl_gpu.session import ModelMissing, Session

#: Failures that may be the user's own error: scikit-learn, run here, gives the canonical one.
_JUDGED_BY_SCIKIT_LEARN = frozenset({"estimator-error"})


def dispatch(
    frame: Frame, row: Row, method: str, raw: Callable[..., Any], estimator: Any, args: tuple[Any, ...], kwargs: Any
) -> Any:
    """Do a wrapped call: on the worker if it may go there, else here."""
    data = args[0] if args else kwargs.get("X", kwargs.get("y"))
    reason = policy.reason_to_stay(frame.settings, _facts(row, estimator, data, args, kwargs))
    if reason is None:
        try:
            return _offload(frame, row, method, raw, estimator, args, kwargs, data)
        except OffloadError as error:
            return _fall_back(frame, row, method, raw, estimator, args, kwargs, error)
    if reason.code in policy.CHOSEN:
        return _stay(frame, row, method, raw, estimator, args, kwargs, reason)
    return _fall_back(frame, row, method, raw, estimator, args, kwargs, Unsupported(reason.words, reason.code))


def _facts(row: Row, estimator: Any, data: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> policy.Facts:
    in_place = kwargs.get("copy", True) is False or (len(args) > 1 and args[1] is False)
    return policy.Facts(
        row.name,
        type(estimator) is not row.cls,
        inputs.count_elements(data),
        in_place or row.works_in_place(estimator),
        hasattr(estimator, "_skl_callbacks") or hasattr(estimator, "_parent_callback_ctx"),
    )


def _offload(
    frame: Frame,
    row: Row,
    method: str,
    raw: Callable[..., Any],
    estimator: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    data: Any,
) -> Any:
    begin = time.perf_counter()
    settings = frame.settings
    deadline = None if settings.timeout is None else time.monotonic() + settings.timeout
    session = sessions.obtain(settings)
    if row.name not in session.estimators:
        raise Unsupported(f"The engine {session.engine} does not compute {row.name}.", "unsupported-by-engine")
    fits = METHODS[method].fits
    mark = None if fits else fingerprint(attributes_to_send(row, method, estimator))
    started = time.perf_counter()
    reply, gathered, number, gather_seconds = _ask(session, row, method, estimator, args, kwargs, mark, deadline)
    answered = time.perf_counter()
    value = adopt(row, method, estimator, raw, data, gathered, reply)
    if reply.body.kept:
        if fits:
            mark = fingerprint(attributes_to_send(row, "predict", estimator))
        if mark is not None:
            session.remember_model(mark, number)
    seconds = {
        "gather": started - begin + gather_seconds,
        "send": reply.send_seconds,
        "compute": reply.body.seconds,
        "receive": max(reply.wait_seconds - reply.body.seconds, 0.0),
        "adopt": time.perf_counter() - answered,
    }
    sent = len(gathered.body) + gathered.nbytes
    _record(frame, CallRecord(row.name, method, "worker", session.engine, None, seconds, sent, reply.nbytes))
    return value


def _ask(
    session: Session,
    row: Row,
    method: str,
    estimator: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    mark: bytes | None,
    deadline: float | None,
) -> Any:
    model = 0 if mark is None else session.model(mark)
    while True:
        begin = time.perf_counter()
        number = session.next_number()
        gathered = gather(row, method, estimator, args, kwargs, model, 0 if model else number)
        gather_seconds = time.perf_counter() - begin
        try:
            reply = session.request(
                number, (row.name, method), gathered.body, gathered.arrays, gathered.refs, gathered.nbytes, deadline
            )
        except ModelMissing:
            assert mark is not None
            session.forget_model(mark)
            model = 0
            continue
        return reply, gathered, model or number, gather_seconds


def _stay(
    frame: Frame,
    row: Row,
    method: str,
    raw: Callable[..., Any],
    estimator: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    reason: Reason,
) -> Any:
    begin = time.perf_counter()
    try:
        with suspended():
            return raw(estimator, *args, **kwargs)
    finally:
        seconds = {"compute": time.perf_counter() - begin}
        _record(frame, CallRecord(type(estimator).__name__, method, "local", "scikit-learn", reason, seconds))


def _fall_back(
    frame: Frame,
    row: Row,
    method: str,
    raw: Callable[..., Any],
    estimator: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    error: OffloadError,
) -> Any:
    judged = error.code in _JUDGED_BY_SCIKIT_LEARN
    if frame.settings.fallback == "raise" and not judged:
        raise error
    before = dict(vars(estimator))
    value = _stay(frame, row, method, raw, estimator, args, kwargs, error.reason)
    if frame.settings.fallback == "raise":
        # scikit-learn has no objection, so the engine failed: undo, and say so.
        estimator.__dict__ = before
        raise EngineError(f"The worker failed where local scikit-learn does not: {error}") from error
    key = (error.code, f"{row.name}.{method}")
    if key not in frame.warned:
        frame.warned.add(key)
        warnings.warn(
            f"{row.name}.{method} was done by local scikit-learn: {error} [{error.code}]",
            FallbackWarning,
            stacklevel=user_level(),
        )
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
