"""One call of a function that is wrapped: to the worker if it has an engine for it, else it is scikit-learn's own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sklearn_wsl_gpu import _compat, inputs, measuring, policy, sessions, workload
from sklearn_wsl_gpu.adopt import adopt_value
from sklearn_wsl_gpu.config import Frame, suspended
from sklearn_wsl_gpu.errors import OffloadError, guarded
from sklearn_wsl_gpu.estimators.functions import Function
from sklearn_wsl_gpu.gather import Gathered, packed, place, settings_to_send
from sklearn_wsl_gpu.predictions import Work
from sklearn_wsl_gpu.protocol.messages import CallBody
from sklearn_wsl_gpu.recording import record, record_remote
from sklearn_wsl_gpu.reporting import CallRecord
from sklearn_wsl_gpu.session import Session
from sklearn_wsl_gpu.state import Encoder
from sklearn_wsl_gpu.support.array_api import DTYPES

_PLAIN = (type(None), bool, int, float, str)


def call(frame: Frame, function: Function, raw: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Do a call of a function.

    A worker is not started for one: it is where the estimators are. What a worker does not do, or fails at, is done
    here without a word, for it is no estimator whose place is asked for.
    """
    session, engine = sessions.peek(frame.settings), None
    if session is not None and frame.settings.include is None and _is_carried(frame, function, args, kwargs):
        engine = next((name for name, known in session.engines.items() if function.name in known), None)
    if session is None or engine is None:
        with suspended():
            return raw(*args, **kwargs)
    array = next(value for value in (*args, *kwargs.values()) if type(value) is np.ndarray)
    work = workload.of_function(frame.settings, function.name, array, engine)
    work = measuring.placed(work, frame.settings, array)
    cheaper = policy.cheaper_here(measuring.predict(work)) if frame.settings.policy == "auto" else None
    if cheaper is None:
        try:
            with guarded:
                return _offload(frame, session, engine, function, work, args, kwargs)
        except OffloadError:
            pass
    begin = time.perf_counter()
    with suspended():
        value = raw(*args, **kwargs)
    seconds = time.perf_counter() - begin
    measuring.note_local(work, seconds)
    if cheaper is not None:
        group, _, name = function.name.rpartition(".")
        record(frame, CallRecord(group, name, "local", "scikit-learn", cheaper, {"compute": seconds}))
    return value


def _is_carried(frame: Frame, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    values = [*args, *kwargs.values()]
    arrays = [value for value in values if type(value) is np.ndarray]
    return (
        bool(arrays)
        and all(array.dtype.name in DTYPES for array in arrays)
        and all(type(value) is np.ndarray or isinstance(value, _PLAIN) for value in values)
        and (inputs.count_elements(arrays[0]) or 0) >= frame.settings.min_elements
        and function.objection(args, kwargs) is None
        and ["array_api_dispatch", True] not in _compat.changed_settings()
    )


def _offload(
    frame: Frame,
    session: Session,
    engine: str,
    function: Function,
    work: Work,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:
    begin = time.perf_counter()
    deadline = None if frame.settings.timeout is None else time.monotonic() + frame.settings.timeout
    encoder = Encoder()
    arguments = [encoder.encode(inputs.convert(value)) for value in args]
    keywords = [[name, encoder.encode(inputs.convert(value))] for name, value in kwargs.items()]
    placed = place(encoder, session.pool, None)
    body = CallBody(
        "", function.name, engine, 0, 0, None, arguments, keywords, placed.named, placed.lent,
        settings_to_send(), None, -1, session.pool.thresholds.inline,
    )  # fmt: skip
    gathered = Gathered(
        ("", function.name), packed(body), encoder.arrays, placed.refs, placed.nbytes, [], frozenset(), None,
        placed.lent_arrays, placed.changeable, priority=frame.settings.priority,
    )  # fmt: skip
    reply = session.request(session.next_number(), gathered, deadline, None)
    answered = time.perf_counter()
    value = adopt_value(gathered, reply)
    group, _, name = function.name.rpartition(".")
    work = workload.offered(work, session.engines)
    record_remote(frame, (group, name, engine), work, reply, (begin, begin, answered))
    return value
