"""A worker's reply as scikit-learn would have left it: check all, then assign once."""

from __future__ import annotations

import builtins
import sys
import warnings
from collections import deque
from collections.abc import Sequence
from itertools import repeat
from typing import Any, TypeAlias

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.sparse
import sklearn.exceptions

from sklearn_wsl_gpu import _compat, graphs
from sklearn_wsl_gpu.arrays import ArrayRef, InlineArray, check_array_ref, check_inline, is_inline
from sklearn_wsl_gpu.errors import RemoteProtocolError, Unsupported
from sklearn_wsl_gpu.estimators import METHODS, Graph, Row
from sklearn_wsl_gpu.gather import NAMES, Gathered
from sklearn_wsl_gpu.invocation import Invocation
from sklearn_wsl_gpu.pool import placing
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.session import Reply
from sklearn_wsl_gpu.state import Decoder, checks, objects
from sklearn_wsl_gpu.state.decoding import set_generator
from sklearn_wsl_gpu.state.encoding import global_generator

_PACKAGE = __name__.partition(".")[0]

#: A random generator, and one in the state that it is to have.
_Advanced: TypeAlias = tuple[np.random.RandomState, np.random.RandomState]


def _warning_classes() -> dict[str, type[Warning]]:
    namespaces: list[Any] = [builtins, sklearn.exceptions, np.exceptions, scipy.linalg, scipy.optimize, scipy.sparse]
    return {
        f"{cls.__module__}.{cls.__qualname__}": cls
        for namespace in namespaces
        for cls in vars(namespace).values()
        if isinstance(cls, type) and issubclass(cls, Warning)
    }


_WARNINGS = _warning_classes()


def adopt(call: Invocation, gathered: Gathered, reply: Reply) -> Any:
    """Apply a reply to an estimator, and return what the method returns.

    Parameters
    ----------
    call : Invocation
        What was called.
    gathered : Gathered
        What was sent.
    reply : Reply
        What came back; its lease is released, or kept by the result.
    """
    row, estimator, data = call.row, call.estimator, call.data
    source = _Source(reply)
    try:
        state, value = _decode(gathered, reply, source)
    finally:
        source.release()
    is_wrapped = _compat.is_output_wrapped(call.raw)
    if is_wrapped and scipy.sparse.issparse(value) and _compat.has_container(estimator):
        # Who says what is wrong, and in which words, depends on the class.
        raise Unsupported("Sparse output does not go into the container that set_output names.", "estimator-error")
    names, attributes = METHODS[call.method].names, vars(estimator)
    assignments: list[graphs.Assignment] = []
    merged = None
    if state is not None:
        if isinstance(row, Graph) and row.fits_parts:
            assignments += graphs.fitted_parts(row, attributes, state.pop(row.parts, None))
            state[row.parts] = row.list_after_fit(attributes[row.parts])
        merged = _merge(call, gathered, state)
    if row.named and data is not None:
        if names == "set" and not (call.method == "partial_fit" and "n_features_in_" in attributes):
            found = _compat.feature_names(data)
            assert merged is not None
            merged = _with_names(merged, attributes, found)
        elif names != "ignore" and (NAMES in attributes or type(data) is not np.ndarray):
            _compat.check_feature_names(estimator, data, reset=False)
    advanced = _side_effects(gathered, reply)
    if merged is not None:
        _assign([(estimator, merged), *assignments])
    _advance(advanced)
    if reply.body.value == ["self"]:
        return estimator
    if gathered.result is not None and isinstance(value, np.ndarray):
        value = gathered.result.make(value)
    # scikit-learn knows one container for both transform and fit_transform.
    return _compat.wrap_output("transform", value, data, estimator) if is_wrapped else value


def adopt_value(gathered: Gathered, reply: Reply, catches: bool = False) -> Any:
    """Return the value of a reply to a call of no estimator.

    Parameters
    ----------
    gathered : Gathered
        What was sent.
    reply : Reply
        What came back; its lease is released.
    catches : bool
        Whether scikit-learn would catch an error in the middle of it.

    Raises
    ------
    Unsupported
        If it would, and a warning is such an error here.
    """
    source = _Source(reply)
    try:
        value = Decoder(source, _inputs(gathered), gathered.generators).decode(reply.body.value)
    finally:
        source.release()
    if catches and _would_raise(reply.body.warnings):
        raise Unsupported("A warning is an error here, and one of a fit fails that fit only.", "warning-is-error")
    _advance(_side_effects(gathered, reply))
    return value


def _side_effects(gathered: Gathered, reply: Reply) -> list[_Advanced]:
    """Warn and write as the worker has; return the generators that are to be advanced once all else is done."""
    advanced = _advanced_generators(gathered, reply.body.generators)
    _warn_again(reply.body.warnings)
    _write_again(reply.body.output)
    return advanced


def _advance(advanced: list[_Advanced]) -> None:
    for generator, following in advanced:
        generator.set_state(following.get_state(legacy=False))


def _inputs(gathered: Gathered) -> _Inputs:
    return _Inputs([*gathered.arrays, *gathered.lent])


def _merge(call: Invocation, gathered: Gathered, state: dict[str, Any]) -> dict[str, Any]:
    row, attributes = call.row, vars(call.estimator)
    # What a refit has removed goes; what an earlier fit left and this one did not touch stays.
    gone = gathered.sent - state.keys() - row.initial_names - row.parameters - {NAMES}
    if isinstance(row, Graph):
        gone |= {NAMES}
    # The same object, where it is the same: scikit-learn's estimator checks ask for identity.
    state |= {name: mine for name in row.rewrites.split() if _are_equal(mine := attributes[name], state.get(name))}
    merged = {name: item for name, item in attributes.items() if name not in gone} | state
    _check_state(row, state, merged)
    if gathered.result is not None:
        own = row.parameters | {NAMES}
        merged |= {name: gathered.result.make(item) for name, item in state.items() if name not in own}
    return merged


def _with_names(merged: dict[str, Any], before: dict[str, Any], names: Any) -> dict[str, Any]:
    """Return attributes with names of columns, or without, in the order in which a local fit makes them."""
    rest = {name: value for name, value in merged.items() if name != NAMES}
    if names is None:
        return rest
    if NAMES in before:
        all_of = {**rest, NAMES: names}
        return {name: all_of[name] for name in before if name in all_of} | rest
    old = {name: value for name, value in rest.items() if name in before}
    return {**old, NAMES: names, **rest}


def _assign(assignments: Sequence[graphs.Assignment]) -> None:
    # In one call of compiled code: an interrupt, which comes between two steps of Python's, leaves all or nothing.
    before = [vars(one) for one, _ in assignments]
    targets, states = zip(*assignments, strict=True)
    deque(map(object.__setattr__, targets, repeat("__dict__"), states), maxlen=0)
    del before  # what is not held any more may run code of its own, but not in between


def _decode(gathered: Gathered, reply: Reply, source: _Source) -> tuple[dict[str, Any] | None, Any]:
    body = reply.body
    decoder = Decoder(source, _inputs(gathered), gathered.generators)
    # The state first, and a result that is one of its arrays is the same array. What has to be checked, because
    # compiled code trusts it as an index, is no float, and a private copy.
    source.allow_views("fc")
    state = None if body.state is None else decoder.attributes(body.state)
    source.allow_views("fcbiumMSU")
    value = None if body.value == ["self"] else decoder.decode(body.value)
    return state, value


class _Inputs(Sequence[Array]):
    """The arrays of a call as the worker has seen them: what was strided here was contiguous there."""

    def __init__(self, arrays: list[Array]) -> None:
        self._arrays = list(arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __getitem__(self, index: Any) -> Any:
        array = self._arrays[index]
        if not array.flags.forc:
            array = self._arrays[index] = np.array(array, order=placing.memory_order(array))
        return array


class _Source(Sequence[Array]):
    """The arrays of a reply, taken from their span when they are first asked for; those of files are there already."""

    def __init__(self, reply: Reply) -> None:
        self._pool, self._lease = reply.pool, reply.lease
        limit = self._lease.size if self._lease is not None else 0
        refs = () if reply.files else reply.body.refs
        self._refs = [check_inline(ref) if is_inline(ref) else check_array_ref(ref, limit)[0] for ref in refs]
        self._made: dict[int, Array] = dict(enumerate(reply.files))
        self._window: Array | None = None
        self._kinds = ""

    def __len__(self) -> int:
        return len(self._refs) or len(self._made)

    def __getitem__(self, index: Any) -> Any:
        made = self._made.get(index)
        if made is None:
            made = self._made[index] = self._take(self._refs[index])
        return made

    def allow_views(self, kinds: str) -> None:
        """From now on large arrays of these kinds of dtype are views on the span, if the pool has room to spare."""
        self._kinds = kinds
        if self._lease is None:
            return
        placed = {number: ref for number, ref in enumerate(self._refs) if isinstance(ref, ArrayRef)}
        large = [number for number, ref in placed.items() if number not in self._made and self._is_large(ref)]
        if large and self._window is None:
            end = max(ref.offset + placing.nbytes_of(ref) for ref in placed.values())
            # What is copied beside it is held as long.
            if 2 * sum(placing.nbytes_of(placed[number]) for number in large) < end:
                return
            window = self._pool.window(self._lease)
            if self._pool.keep(self._lease, window, end):
                self._window = window

    def release(self) -> None:
        """Give the span back, unless the user keeps views of it: then it goes back with the last of them."""
        if self._window is None and self._lease is not None:
            self._lease.release()

    def _is_large(self, ref: ArrayRef) -> bool:
        return ref.dtype[1] in self._kinds and placing.nbytes_of(ref) >= self._pool.thresholds.view

    def _take(self, ref: ArrayRef | InlineArray) -> Array:
        if isinstance(ref, InlineArray):
            return placing.from_inline(ref)
        assert self._lease is not None
        if self._window is not None and self._is_large(ref):
            array = placing.view(self._window.data, 0, ref)
        else:
            window = self._pool.window(self._lease)
            array = placing.view(window.data, 0, ref).copy(order="K")
        array.flags.writeable = ref.writeable
        return array


def _are_equal(mine: Any, theirs: Any) -> bool:
    return isinstance(mine, str) and isinstance(theirs, str) and mine == theirs


def _check_state(row: Row, state: dict[str, Any], merged: dict[str, Any]) -> None:
    assert row.cls is not None
    own = row.untouched - ({row.parts} if isinstance(row, Graph) and row.fits_parts else set())
    for name in state:
        if name in own or callable(getattr(row.cls, name, None)):
            raise RemoteProtocolError("The worker sent an attribute that is not its to set.")
    probe = objects.blank(row.cls)
    vars(probe).update(merged)
    checks.check_estimator(row.name, probe)


def _advanced_generators(gathered: Gathered, pairs: Sequence[Any]) -> list[_Advanced]:
    found = []
    for number, node in pairs:
        if not -1 <= number < len(gathered.generators):
            raise RemoteProtocolError("The worker advanced a random generator that is not there.")
        following = np.random.RandomState(0)
        try:
            set_generator(following, node)
        except (ValueError, TypeError):
            raise RemoteProtocolError("The worker sent a malformed random generator.") from None
        found.append((global_generator() if number == -1 else gathered.generators[number], following))
    return found


def user_level() -> int:
    """Return the stacklevel, for the caller of this function, of the frame that called into scikit-learn."""
    level, frame = 0, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame = frame.f_back
        level += 1
    return level + 1


def _would_raise(recorded: Sequence[Any]) -> bool:
    if not any(action == "error" for action, *_ in warnings.filters):
        return False
    with warnings.catch_warnings():
        warnings.showwarning = lambda *_, **__: None
        try:
            _warn_again(recorded)
        except Warning:
            return True
    return False


def _warn_again(recorded: Sequence[Any]) -> None:
    for category, text, module, line in recorded:
        if not category:
            # Filters were changed, so that repeated warnings are shown again; leaving a context changes them too.
            with warnings.catch_warnings():
                continue
        cls = _WARNINGS.get(category, UserWarning)
        loaded = sys.modules.get(module)
        if loaded is None or getattr(loaded, "__file__", None) is None:
            warnings.warn(text, cls, stacklevel=user_level())
        else:
            registry = vars(loaded).setdefault("__warningregistry__", {})
            warnings.warn_explicit(text, cls, str(loaded.__file__), int(line), module, registry)


def _write_again(output: Sequence[Any]) -> None:
    for stream, text in output:
        target = sys.stderr if stream == "stderr" else sys.stdout
        if target is not None:  # as `print` does
            target.write(text)
