"""A call as values and arrays: the estimator's state, the arguments, and what surrounds them."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sklearn_wsl_gpu import _compat, inputs, namespaces, support
from sklearn_wsl_gpu.arrays import ArrayRef
from sklearn_wsl_gpu.errors import LocalProtocolError, Unsupported
from sklearn_wsl_gpu.invocation import Invocation
from sklearn_wsl_gpu.pool import placing
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.protocol import codec
from sklearn_wsl_gpu.protocol.messages import CallBody, encode_body
from sklearn_wsl_gpu.state import Encoder, objects
from sklearn_wsl_gpu.state.encoding import generator_node, global_generator

NAMES = "feature_names_in_"


@dataclass(frozen=True, slots=True)
class Gathered:
    """A call, ready to be sent.

    Attributes
    ----------
    kind : tuple of str
        Estimator and method.
    body : bytes
        The packed `CallBody`.
    arrays, refs, nbytes
        What to place, where, and the bytes that takes.
    generators : list of RandomState
        Random generators of the estimator and the arguments.
    sent : frozenset of str
        Names of the attributes that went along.
    result : Kind or None
        What the result is to be made of, if not of numpy.
    """

    kind: tuple[str, str]
    body: bytes
    arrays: list[Array]
    refs: list[ArrayRef]
    nbytes: int
    generators: list[np.random.RandomState]
    sent: frozenset[str]
    result: namespaces.Kind | None


def attributes_to_send(call: Invocation, *, fitted: bool = False) -> dict[str, Any]:
    """Return the attributes of an estimator that its method will look at.

    A fit starts from the parameters; whatever an earlier fit left stays here, unless the estimator goes on
    from there, or cleans it up. With `fitted`, return what a later prediction will look at. What users have
    noted on an estimator themselves is left out.
    """
    own = call.row.initial_names | call.row.parameters
    found = {
        name: value
        for name, value in objects.carried_attributes(call.estimator).items()
        if name != NAMES and (name in own or name[0] == "_" or name[-1] == "_")
    }
    fresh = call.fits and not fitted and call.method != "partial_fit" and not call.row.refits
    if fresh and not found.get("warm_start", False):
        found = {name: value for name, value in found.items() if name in call.row.initial_names}
    return namespaces.attributes_as_numpy(found)


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


def gather(call: Invocation, engine: str, model: int, keep: int, *, watched: bool = False) -> Gathered:
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
    watched : bool
        Whether the worker should tell of the progress.

    Raises
    ------
    Unsupported
        If something does not travel.
    """
    settings = _compat.changed_settings()
    result = _result_kind(call, engine)
    encoder = Encoder()
    state, sent, generator = None, frozenset[str](), None
    if not model:
        attributes = attributes_to_send(call)
        sent = frozenset(attributes)
        state = encoder.attributes(attributes)
    if not call.fits:
        encoder.know_attributes(vars(call.estimator))
    elif getattr(call.estimator, "random_state", 0) is None:
        generator = generator_node(global_generator(), -1)
    how = ["array_api_dispatch", True] in settings, call.row.checks_input(call.method)
    nodes = [encoder.encode(inputs.convert(value, *how)) for value in call.args]
    named = [[name, encoder.encode(inputs.convert(value, *how))] for name, value in call.kwargs.items()]
    refs, nbytes = placing.plan(encoder.arrays)
    body = CallBody(
        call.row.name, call.method, engine, model, keep, state, nodes, named, [list(ref) for ref in refs],
        settings, generator, watched,
    )  # fmt: skip
    try:
        packed = encode_body(body)
    except LocalProtocolError as error:
        raise Unsupported(
            f"The metadata of this call is too large ({error}); pass numpy arrays instead of Python containers."
        ) from None
    return Gathered(
        (call.row.name, call.method), packed, encoder.arrays, refs, nbytes, encoder.generators, sent, result
    )


def _result_kind(call: Invocation, engine: str) -> namespaces.Kind | None:
    kind = namespaces.kind_of(call.data)
    if kind is not None and (engine == "cpu" or support.reason("array_api", call.request()) is not None):
        # Only what scikit-learn computes in the array's own library has a result of that library.
        raise Unsupported("With array_api_dispatch such an array stays where it is, in this call.", namespaces.CODE)
    if not call.fits or call.method == "partial_fit":
        namespaces.check_same(kind, vars(call.estimator))
    return kind
