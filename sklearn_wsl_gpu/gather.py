"""A call as values and arrays: the estimator's state, the arguments, and what surrounds them."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sklearn_wsl_gpu import _compat, inputs, namespaces, support
from sklearn_wsl_gpu.arrays import ArrayRef, SpanRef
from sklearn_wsl_gpu.errors import LocalProtocolError, Unsupported
from sklearn_wsl_gpu.estimators import MIN_OVERWRITTEN_BYTES, Graph, Row, row_of
from sklearn_wsl_gpu.invocation import Invocation
from sklearn_wsl_gpu.lending import Loan
from sklearn_wsl_gpu.pool import Pool, placing
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.protocol import codec
from sklearn_wsl_gpu.protocol.messages import FLOATING, CallBody, encode_body
from sklearn_wsl_gpu.state import Encoder, objects
from sklearn_wsl_gpu.state.encoding import generator_node, global_generator
from sklearn_wsl_gpu.waiting import Caller

NAMES = "feature_names_in_"
#: numpy's own defaults.
_FLOATING = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


@dataclass(frozen=True, slots=True)
class Gathered:
    """A call, ready to be sent.

    Attributes
    ----------
    kind : tuple of str
        Estimator and method.
    body : bytes
        The packed `CallBody`.
    arrays : list of ndarray
        What is sent.
    refs, nbytes
        Where to place it, and the bytes that takes; no refs if it is in the body.
    generators : list of RandomState
        Random generators of the estimator and the arguments.
    sent : frozenset of str
        Names of the attributes that went along.
    result : Kind or None
        What the result is to be made of, if not of numpy.
    lent : list of ndarray
        Arrays that the worker can see already.
    named : list of (SpanRef, ArrayRef)
        Where those of them lie that the user can change.
    loan : Loan or None
        What it names of a span that is held for it.
    lends : bool
        Whether its own span may be held, for calls to come.
    result_bytes : int
        Size of the result, if that is known; else 0.
    overwritten : bool
        Whether the worker may leave the result where X lies in the span.
    priority : str
        How urgent it is.
    """

    kind: tuple[str, str]
    body: bytes
    arrays: list[Array]
    refs: list[ArrayRef]
    nbytes: int
    generators: list[np.random.RandomState]
    sent: frozenset[str]
    result: namespaces.Kind | None
    lent: list[Array]
    named: list[tuple[SpanRef, ArrayRef]]
    loan: Loan | None = None
    lends: bool = False
    result_bytes: int = 0
    overwritten: bool = False
    priority: str = "normal"

    @property
    def caller(self) -> Caller:
        """Who asks for room for it."""
        return Caller(self.priority, ".".join(filter(None, self.kind)))

    @property
    def seen_bytes(self) -> int:
        """Bytes of all arrays that the worker sees."""
        return sum(array.nbytes for array in [*self.arrays, *self.lent])


class Placement(NamedTuple):
    """Where the arrays of a call lie.

    Attributes
    ----------
    refs, nbytes
        Of what is sent in a span: where each array lies there, and the bytes that takes.
    named : list
        What is sent, as the call names it: array refs, or small arrays themselves.
    lent : list of [span, list, bool]
        What the worker can see already, as the call names it.
    lent_arrays : list of ndarray
        The same as arrays.
    changeable : list of (SpanRef, ArrayRef)
        Where those of them lie that the user can change.
    """

    refs: list[ArrayRef]
    nbytes: int
    named: list[Any]
    lent: list[Any]
    lent_arrays: list[Array]
    changeable: list[tuple[SpanRef, ArrayRef]]


def settings_to_send() -> list[list[Any]]:
    """Return scikit-learn's settings, and what numpy does about floating-point errors, where they are not the defaults.

    Raises
    ------
    Unsupported
        If numpy is to call a function of this process, or to print, for such an error.
    """
    settings = _compat.changed_settings()
    floating: dict[str, Any] = {**np.geterr()}
    if floating != _FLOATING:
        if not set(floating.values()) <= {"ignore", "warn", "raise"}:
            raise Unsupported("numpy's floating-point errors are handled by this process (numpy.seterr).")
        settings.append([FLOATING, [floating[name] for name in _FLOATING]])
    return settings


def attributes_to_send(call: Invocation, *, fitted: bool = False) -> dict[str, Any]:
    """Return the attributes of an estimator that its method will look at.

    A fit starts from the parameters; whatever an earlier fit left stays here, unless the estimator goes on
    from there, or cleans it up. With `fitted`, return what a later prediction will look at. What users have
    noted on an estimator themselves is left out.
    """
    return namespaces.attributes_as_numpy(_attributes(call.row, call.estimator, call.method, fitted or not call.fits))


def _attributes(row: Row, estimator: Any, method: str, fitted: bool) -> dict[str, Any]:
    own = row.initial_names | row.parameters
    found = {
        name: value
        for name, value in objects.carried_attributes(estimator).items()
        if (name != NAMES or isinstance(row, Graph)) and (name in own or name[0] == "_" or name[-1] == "_")
    }
    fresh = not fitted and method != "partial_fit" and not row.refits
    if fresh and not found.get("warm_start", False):
        found = {name: value for name, value in found.items() if name in row.initial_names}
    if isinstance(row, Graph) and not fitted:
        if row.parts:
            found[row.parts] = [(one[0], _unfitted(one[1]), *one[2:]) for one in found[row.parts]]
        if row.rest:
            found[row.rest] = _unfitted(found[row.rest])
    return found


def _unfitted(part: Any) -> Any:
    row = row_of(type(part))
    if row is None:
        return part
    copy = objects.blank(type(part))
    vars(copy).update(part_attributes(row, part))
    return copy


def part_attributes(row: Row, part: Any) -> dict[str, Any]:
    """Return the attributes of a part of an estimator that a fit of the whole starts from."""
    return _attributes(row, part, "fit", False)


def fingerprint(attributes: Mapping[str, Any]) -> bytes | None:
    """Return a digest of attributes, contents of arrays included; None if they hold what does not travel.

    What a worker keeps is only used for an estimator whose present state has the very fingerprint that its
    state had when it was kept: so an attribute that was set or changed in place is always noticed.
    """
    encoder = Encoder()
    try:
        nodes = encoder.attributes(attributes)
        contents = [[array.dtype.str, array.shape, array.strides, _checksum(array)] for array in encoder.arrays]
        packed = codec.pack([nodes, contents])
    except (Unsupported, LocalProtocolError):
        return None
    return hashlib.blake2b(packed, digest_size=16).digest()


def _checksum(array: Array) -> int:
    if array.dtype.kind in "mM":
        array = array.view(np.int64)  # dates have no buffer
    if array.flags.c_contiguous:
        return zlib.crc32(array.data)
    return zlib.crc32(array.T.data if array.flags.f_contiguous else array.copy().data)


def place(encoder: Encoder, pool: Pool, loan: Loan | None, single: Array | None = None) -> Placement:
    """Decide where the arrays of an encoder lie: in a new span, or where they are in the pool.

    An array that is `single` is sent in single precision, if it is sent.
    """
    held = encoder.set_apart(pool.find_kept)
    encoder.number_lent()
    inline = sum(array.nbytes for array in encoder.arrays) <= pool.thresholds.inline
    refs, nbytes = placing.plan([] if inline else encoder.arrays, single=single)
    named = [placing.inline(array) for array in encoder.arrays] if inline else [list(ref) for ref in refs]
    lent: list[Any] = []
    if loan is not None:
        lent.append([list(loan.lease.ref), [list(ref) for ref in loan.refs], True])
    # The user may change them between two calls.
    lent += [[list(span), [list(ref)], False] for _, (span, ref) in held]
    arrays = [*(loan.arrays if loan is not None else ()), *[array for array, _ in held]]
    return Placement(refs, nbytes, named, lent, arrays, [where for _, where in held])


def gather(
    call: Invocation,
    engine: str,
    model: int,
    keep: int,
    pool: Pool,
    *,
    watched: int = -1,
    loan: Loan | None = None,
    priority: str = "normal",
    single: bool = False,
) -> Gathered:
    """Take a call apart.

    Parameters
    ----------
    call : Invocation
        What is called.
    engine : str
        What is to compute it.
    model : int
        Number of the model that it keeps; 0 to send the state along.
    keep : int
        Number under which the worker should keep the model afterwards; 0 for not.
    pool : Pool
        Whose arrays need not be sent.
    watched : int
        How deep the worker should tell of the progress; -1 for not.
    loan : Loan or None
        Arrays that the worker can see already.
    priority : str
        How urgent it is.
    single : bool
        Whether double precision of X may be sent as single.

    Raises
    ------
    Unsupported
        If something does not travel.
    """
    settings = settings_to_send()
    result = _result_kind(call, engine)
    encoder = Encoder(strided=engine == "cpu")
    if loan is not None:
        encoder.know_lent(loan.arrays)
    state, sent, generator = None, frozenset[str](), None
    if not model:
        attributes = attributes_to_send(call)
        sent = frozenset(attributes)
        state = encoder.attributes(attributes)
    if not call.fits:
        encoder.know_attributes(_attributes(call.row, call.estimator, call.method, True))
    elif isinstance(call.row, Graph) or call.row.draws_globally(call.estimator):
        generator = generator_node(global_generator(), -1)
    nodes, named, double = _arguments(encoder, call, ["array_api_dispatch", True] in settings)
    placed = place(encoder, pool, loan, double if single else None)
    body = CallBody(
        call.row.name, call.method, engine, model, keep, state, nodes, named, placed.named, placed.lent,
        settings, generator, watched, pool.thresholds.inline,
    )  # fmt: skip
    X = _overwritable(call, [*encoder.arrays, *placed.lent_arrays], nodes) if engine == "cpu" else None
    return Gathered(
        (call.row.name, call.method), packed(body), encoder.arrays, placed.refs, placed.nbytes, encoder.generators,
        sent, result, placed.lent_arrays, placed.changeable, loan, result_bytes=0 if X is None else X.nbytes,
        overwritten=any(X is array for array in encoder.arrays), priority=priority,
    )  # fmt: skip


def _arguments(
    encoder: Encoder, call: Invocation, array_api_dispatch: bool
) -> tuple[list[Any], list[list[Any]], Array | None]:
    """Return the nodes of the arguments, those of the keywords by name, and X if it is in double precision."""
    arguments, keywords = support.without_target(call.row, call.method, call.args, call.kwargs)
    given = [(value, _convert(call, array_api_dispatch, value)) for value in (*arguments, *keywords.values())]
    encoded = [encoder.encode(value) for _, value in given]
    count = len(arguments)
    doubles = (value for before, value in given if before is call.data and _is_double(value))
    return encoded[:count], [[*pair] for pair in zip(keywords, encoded[count:], strict=True)], next(doubles, None)


def _is_double(value: Any) -> bool:
    return type(value) is np.ndarray and value.dtype == np.float64


def _overwritable(call: Invocation, arrays: list[Array], nodes: list[Any]) -> Array | None:
    """Return the array that an estimator of plain scikit-learn could overwrite with its result."""
    if call.method not in call.row.overwrites.split() or "copy" in call.kwargs or len(call.args) > 1 or not nodes:
        return None
    node = nodes[0]
    if type(node) is not list or node[0] != "a":
        return None
    X = arrays[node[1]]
    return X if X.nbytes >= MIN_OVERWRITTEN_BYTES and X.dtype.kind == "f" else None


def _convert(call: Invocation, array_api_dispatch: bool, value: Any) -> Any:
    if isinstance(call.row, Graph) and value is call.data:
        return inputs.convert_table(value, array_api_dispatch)
    if call.row.widens and call.fits and value is call.data:
        value = inputs.widen(value)
    checked = call.row.checks_input(call.method, call.estimator)
    return inputs.convert(value, array_api_dispatch, checked, call.row.by_column)


def packed(body: CallBody) -> bytes:
    """Return the bytes of a call's body.

    Raises
    ------
    Unsupported
        If they are too many.
    """
    try:
        return encode_body(body)
    except LocalProtocolError as error:
        raise Unsupported(
            f"The metadata of this call is too large ({error}); pass numpy arrays instead of Python containers."
        ) from None


def _result_kind(call: Invocation, engine: str) -> namespaces.Kind | None:
    kind = namespaces.kind_of(call.data)
    if kind is not None and (engine == "cpu" or support.reason("array_api", call.request()) is not None):
        # Only what scikit-learn computes in the array's own library has a result of that library.
        raise Unsupported("With array_api_dispatch such an array stays where it is, in this call.", namespaces.CODE)
    if not call.fits or call.method == "partial_fit":
        namespaces.check_same(kind, vars(call.estimator))
    return kind
