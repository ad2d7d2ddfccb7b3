"""The fits of a search or of a cross-validation as one call: scikit-learn makes the splits here, as it always does.

`GridSearchCV` and its like, `cross_validate`, `cross_val_score` and `cross_val_predict` all hand their fits to joblib.
There they are taken, and their results are given instead; what is done before and after stays scikit-learn's own.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from sklearn_wsl_gpu import _compat, graphs, inputs, lending, measuring, policy, progress, sessions, support, workload
from sklearn_wsl_gpu.adopt import adopt_value
from sklearn_wsl_gpu.config import Frame, suspended
from sklearn_wsl_gpu.errors import OffloadError, Reason, Unsupported, guarded
from sklearn_wsl_gpu.estimators import Row, row_of, walk
from sklearn_wsl_gpu.gather import Gathered, fingerprint, packed, place, settings_to_send
from sklearn_wsl_gpu.pool import Pool
from sklearn_wsl_gpu.predictions import Work
from sklearn_wsl_gpu.progress import FitsProgress
from sklearn_wsl_gpu.protocol.messages import CallBody
from sklearn_wsl_gpu.recording import record, record_remote
from sklearn_wsl_gpu.reporting import CallRecord
from sklearn_wsl_gpu.session import LoanInTheWay, Session
from sklearn_wsl_gpu.state import Encoder, objects
from sklearn_wsl_gpu.state.encoding import generator_node, global_generator
from sklearn_wsl_gpu.state.splits import Rows
from sklearn_wsl_gpu.support.fits import COMMON, OWN

_NAMES = {
    _compat.fit_and_score: ("fit_and_score", ("estimator", "X", "y")),
    _compat.fit_and_predict: ("fit_and_predict", ("estimator", "X", "y", "train", "test", "fit_params", "method")),
}
#: How many arguments scikit-learn gives them by position.
_POSITIONAL = 3
#: What is served on this side.
_HERE = frozenset({"estimator", "X", "y", "train", "test", "parameters", "caller", "callback_ctx"})

Task = tuple[Any, Sequence[Any], Mapping[str, Any]]


class Taken(NamedTuple):
    """What became of the tasks of a `joblib.Parallel`.

    Attributes
    ----------
    results : list or None
        Of the tasks; None if they are to be done here.
    tasks : iterable
        The same tasks.
    around : context manager
        In which to do them.
    """

    results: list[Any] | None
    tasks: Iterable[Task]
    around: AbstractContextManager[None] = nullcontext()


def take(frame: Frame, tasks: Iterable[Task], *, draws: bool, jobs: int | None) -> Taken:
    """Do the tasks of a `joblib.Parallel` on the worker, if they are fits that it can do as one call.

    Parameters
    ----------
    frame : Frame
    tasks : iterable
    draws : bool
        Whether fits here would draw from this process's global random state: in other processes they do not.
    jobs : int or None
        What joblib was asked for.

    Returns
    -------
    Taken
    """
    waiting = iter(tasks)
    before = global_generator().get_state(legacy=False)
    first = next(waiting, None)
    function = None if first is None else getattr(first[0], "function", None)
    known = next((names for ours, names in _NAMES.items() if ours is function), None)
    if first is None or known is None or len(first[1]) < _POSITIONAL:
        return Taken(None, itertools.chain([] if first is None else [first], waiting))
    name, positional = known
    estimator = first[1][0]
    taken = [first]
    try:
        with guarded:
            _check_known(estimator)
            if _differ(before, global_generator().get_state(legacy=False)) and draws and _draws(estimator):
                # Here each split is drawn when its turn comes, after what the fits before it have drawn.
                raise Unsupported(
                    "Splits and fits draw from numpy's global random state in turn.", "global-random-state"
                )
        taken += waiting  # an error in here is the user's own, of a `cv`
        with guarded:
            fits = [{**dict(zip(positional, args, strict=False)), **kwargs} for _, args, kwargs in taken]
            X = fits[0]["X"]
            work = workload.of_fits(frame.settings, name, estimator, X, len(fits), jobs)
            work = measuring.placed(work, frame.settings, X)
            cheaper = policy.cheaper_here(measuring.predict(work)) if frame.settings.policy == "auto" else None
            if cheaper is not None:
                return Taken(None, taken, _staying(frame, estimator, name, work, cheaper))
            return Taken(_offload(frame, name, fits, work, draws), taken)
    except OffloadError as error:
        lending.stop()  # of a scorer, or of a part that is none of the table
        record(frame, CallRecord(type(estimator).__name__, name, "in parts", "scikit-learn", error.reason))
        return Taken(None, itertools.chain(taken, waiting))


def runs_foreign_code(search: Any) -> bool:
    """Tell whether a search runs code of a user between its fits, though the fits themselves go as one call."""
    cv = getattr(search, "cv", None)
    kinds = [type(search), *([type(cv)] if hasattr(cv, "split") else [])]
    is_own = all(kind.__module__.startswith("sklearn.") for kind in kinds)
    return not is_own or callable(getattr(search, "refit", None)) or bool(vars(search).get("_skl_callbacks"))


@contextlib.contextmanager
def _staying(frame: Frame, estimator: Any, name: str, work: Work, reason: Reason) -> Iterator[None]:
    """Have all fits done here as one call that stayed: none of them is offloaded by itself."""
    begin = time.perf_counter()
    with suspended():
        yield
    seconds = time.perf_counter() - begin
    measuring.note_local(work, seconds)
    done = CallRecord(type(estimator).__name__, name, "local", "scikit-learn", reason, {"compute": seconds})
    record(frame, done)


def _check_known(estimator: Any) -> None:
    # Before anything is done with it: what is not of the table may notice.
    row = row_of(type(estimator))
    parts = [(row, estimator), *(walk(row, vars(estimator)) if row is not None else ())]
    unknown = next((part for own, part in parts if own is None), None)
    if unknown is not None:
        raise Unsupported(f"{type(unknown).__qualname__} is none of the table.", "unsupported-part")


def _differ(one: Any, other: Any) -> bool:
    if not one["bit_generator"] == other["bit_generator"] == "MT19937":
        return True  # who knows
    state, following = one["state"], other["state"]
    return bool(state["pos"] != following["pos"] or (state["key"] != following["key"]).any())


def _draws(estimator: Any) -> bool:
    row = row_of(type(estimator))
    parts = [(row, estimator), *(walk(row, vars(estimator)) if row is not None else ())]
    return any(own is not None and own.draws_globally(part) for own, part in parts)


class _Plan(NamedTuple):
    """What is sent once, and which of it each fit is of."""

    estimators: list[Any]
    candidates: list[Any]
    splits: list[tuple[Rows, Rows]]
    fits: list[tuple[int, int, int, dict[str, Any]]]
    common: dict[str, Any]


def _offload(frame: Frame, name: str, fits: Sequence[Mapping[str, Any]], work: Work, draws: bool) -> list[Any]:
    begin = time.perf_counter()
    settings, first = frame.settings, fits[0]
    deadline = None if settings.timeout is None else time.monotonic() + settings.timeout
    caller = first.get("caller")
    if progress.stays(caller) or ["enable_metadata_routing", True] in _compat.changed_settings():
        raise Unsupported(
            "Callbacks that look at the fits, or metadata that is routed to them, stay here.", "callbacks"
        )
    plan = _plan(fits)
    planned = time.perf_counter()
    session = sessions.obtain(settings)
    starting = time.perf_counter() - planned
    graphs.check_table(session.version("pandas"), first["X"])
    engines = _engines(frame, session, plan, first["X"], first["y"])
    watch = FitsProgress(fits, to_stderr=bool(settings.verbose))
    depth = watch.depth if settings.verbose or getattr(caller, "_skl_callbacks", None) else -1
    while True:
        loan = lending.current(session)
        gathered = _gather(name, plan, first["X"], first["y"], engines, session.pool, depth, loan)
        try:
            gathered = replace(gathered, priority=settings.priority)
            reply = session.request(session.next_number(), gathered, deadline, watch.show)
            break
        except LoanInTheWay:
            lending.give_back()
    answered = time.perf_counter()
    if not draws:
        reply.body = reply.body._replace(generators=[pair for pair in reply.body.generators if pair[0] != -1])
    results: list[Any] = adopt_value(gathered, reply, catches=True)
    watch.finish()
    what, times = (type(first["estimator"]).__name__, name, engines), (begin, begin + starting, answered)
    record_remote(frame, what, workload.offered(work, session.engines), reply, times)
    return results


def _plan(fits: Sequence[Mapping[str, Any]]) -> _Plan:
    first = fits[0]
    unknown = {name for fit in fits for name in fit} - COMMON - OWN - _HERE
    if unknown:
        raise Unsupported(f"Fits with {', '.join(sorted(unknown))} are not known to this version; they stay here.")
    common = {name: value for name, value in first.items() if name in COMMON}
    plan = _Plan([], [], [], [], common)
    known: dict[Any, int] = {}
    splits: list[tuple[Any, Any]] = []
    rows = _count_rows(first["X"])
    for fit in fits:
        same = all(fit[name] is first[name] for name in ("X", "y"))
        if not same or not all(_is_same(fit.get(name), value) for name, value in common.items()):
            raise Unsupported("The fits have not all the same data and settings.")
        mark = fingerprint(objects.carried_attributes(fit["estimator"]))
        if mark is None:
            raise Unsupported(f"A {type(fit['estimator']).__name__} like this does not travel to a worker.")
        numbers = (
            _number(known, (type(fit["estimator"]), mark), plan.estimators, fit["estimator"]),
            _number(known, id(fit.get("parameters")), plan.candidates, fit.get("parameters")),
            _number(known, (id(fit["train"]), id(fit["test"])), splits, (fit["train"], fit["test"])),
        )
        own = {name: value for name, value in fit.items() if name in OWN}
        plan.fits.append((*numbers, own))
    plan.splits.extend(_split(train, test, rows) for train, test in splits)
    return plan


def _is_same(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and isinstance(one, (bool, int, float, str)) and one == other)


def _number(known: dict[Any, int], key: Any, found: list[Any], value: Any) -> int:
    if key not in known:
        known[key] = len(found)
        found.append(value)
    return known[key]


def _count_rows(X: Any) -> int:
    shape = getattr(X, "shape", None)
    return int(shape[0]) if shape else len(X)


def _split(train: Any, test: Any, count: int) -> tuple[Rows, Rows]:
    tested = Rows(np.asarray(test), count)
    return Rows(np.asarray(train), count, tested), tested


def _engines(frame: Frame, session: Session, plan: _Plan, X: Any, y: Any) -> str:
    facts = support.facts_of_data(X, y)
    taken: set[str] = set()
    for estimator in plan.estimators:
        _check_known(estimator)
    for number, candidate in dict.fromkeys((one[0], one[1]) for one in plan.fits):
        estimator = _compat.clone(plan.estimators[number])
        try:
            estimator.set_params(**_compat.clone(plan.candidates[candidate] or {}, safe=False))
        except (ValueError, TypeError) as error:
            raise Unsupported(f"scikit-learn has to say what is wrong with the parameters: {error}") from None
        row = row_of(type(estimator))
        assert row is not None
        reason = _reason_to_stay(frame, row, estimator, X)
        if reason is not None:
            raise Unsupported(reason.words, reason.code)
        able = support.able(session.engines, row, partial(support.request_of, row, "fit", vars(estimator), facts))
        taken.update(name for one in able for name in one.split(","))
    return ",".join(engine for engine in session.engines if engine in taken)


def _reason_to_stay(frame: Frame, row: Row, estimator: Any, X: Any) -> Reason | None:
    facts = policy.Facts(row.name, None, inputs.count_elements(X), False, False)
    by_policy = policy.reason_to_stay(replace(frame.settings, include=None), facts)
    return by_policy or graphs.reason_to_split(frame.settings, row, estimator, X, itself=True)


def _gather(
    name: str, plan: _Plan, X: Any, y: Any, engine: str, pool: Pool, watched: int, loan: lending.Loan | None
) -> Gathered:
    encoder = Encoder(strided=engine == "cpu")
    if loan is not None:
        encoder.know_lent(loan.arrays)
    arguments = [
        encoder.encode(inputs.convert_table(X)), encoder.encode(inputs.convert(y)), encoder.encode(plan.estimators),
        encoder.encode(plan.candidates), encoder.encode(plan.splits), encoder.encode(plan.fits),
    ]  # fmt: skip
    keywords = [[key, encoder.encode(_converted(value))] for key, value in plan.common.items()]
    placed = place(encoder, pool, loan)
    body = CallBody(
        "", name, engine, 0, 0, None, arguments, keywords, placed.named, placed.lent,
        settings_to_send(), generator_node(global_generator(), -1), watched, pool.thresholds.inline,
    )  # fmt: skip
    return Gathered(
        ("", name), packed(body), encoder.arrays, placed.refs, placed.nbytes, encoder.generators, frozenset(), None,
        placed.lent_arrays, placed.changeable, loan, True,
    )  # fmt: skip


def _converted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: inputs.convert(item) for key, item in value.items()}
    return value
