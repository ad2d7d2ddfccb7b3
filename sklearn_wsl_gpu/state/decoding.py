"""Nodes and arrays back to Python values. Everything is checked; nothing is imported by a name from a node."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sklearn_wsl_gpu.arrays import is_carried_dtype
from sklearn_wsl_gpu.errors import RemoteProtocolError
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.state import objects
from sklearn_wsl_gpu.state.encoding import SPARSE_CLASSES, SPARSE_PARTS, TYPES

_MAX_DEPTH = 64


class Decoder:
    """Turns nodes into values.

    Parameters
    ----------
    arrays : sequence of ndarray
        What the nodes' numbers count into; used as they are.
    inputs : sequence
        Arrays of the call, for nodes that name one.
    generators : sequence of RandomState
        Generators that nodes may name; those that are met are appended.

    Attributes
    ----------
    own : callable
        Returns the attributes of the call's estimator by name, for nodes that name one.
    """

    def __init__(
        self,
        arrays: Sequence[Array],
        inputs: Sequence[Any] = (),
        generators: Sequence[np.random.RandomState] = (),
    ) -> None:
        self.arrays = arrays
        self._inputs = inputs
        self.generators = list(generators)
        self.own: Callable[[], Mapping[str, Any]] = dict
        self._depth = 0
        self._texts: dict[str, str] = {}

    def decode(self, node: Any) -> Any:
        """Return the value of a node.

        Raises
        ------
        RemoteProtocolError
            If the node is malformed, or holds what would be unsafe to use. Never any other error.
        """
        try:
            return self._decode(node)
        except RemoteProtocolError:
            raise
        except Exception:  # whatever it is that the other side's bytes make numpy or scipy raise
            raise RemoteProtocolError("A value of the other side is malformed.") from None

    def attributes(self, pairs: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """Return the attributes of an estimator by name."""
        found = {}
        for name, node in pairs:
            if not objects.is_attribute_name(name) or name in found:
                raise RemoteProtocolError("An attribute has a name that is not allowed.")
            found[sys.intern(name)] = self.decode(node)  # as names of attributes are
        return found

    def array(self, node: Any) -> Array:
        """Return the value of a node that must be an array."""
        value = self._decode(node)
        if type(value) is not np.ndarray:
            raise RemoteProtocolError("A value has something else where an array belongs.")
        return value

    def _decode(self, node: Any) -> Any:
        if type(node) is not list:
            return self._plain(node)
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise RemoteProtocolError("A value of the other side is nested too deeply.")
        try:
            return _HANDLERS[node[0]](self, node)
        finally:
            self._depth -= 1

    def _plain(self, node: Any) -> Any:
        # As where it came from, equal texts are one object, which a pickle holds once, and NaN is numpy's.
        if type(node) is str:
            return self._texts.setdefault(node, node)
        return np.nan if type(node) is float and math.isnan(node) else node

    def _all(self, nodes: Sequence[Any]) -> list[Any]:
        return [self._decode(node) for node in nodes]

    def _number(self, node: list[Any], among: Sequence[Any]) -> Any:
        _, number = node
        if type(number) is not int or not 0 <= number < len(among) or among[number] is None:
            raise RemoteProtocolError("A value names an array or generator that is not there.")
        return among[number]

    def _own(self, node: list[Any]) -> Any:
        found = self.own().get(node[1])
        if type(found) is not np.ndarray:
            raise RemoteProtocolError("A value names an attribute that is not there.")
        return found

    def _view(self, node: list[Any]) -> Array:
        _, memory, shape, strides, first = node
        lies = self.array(memory)
        if lies.ndim != 1 or not all(type(number) is int for number in (*shape, *strides, first)):
            raise RemoteProtocolError("A strided array is malformed.")
        # numpy sees to it that it does not leave its memory.
        found: Array = np.ndarray(tuple(shape), lies.dtype, lies.view(np.uint8).data, first, tuple(strides))
        if found.nbytes > lies.nbytes:
            raise RemoteProtocolError("A strided array is larger than its memory.")
        return found

    def _scalar(self, node: list[Any]) -> Any:
        _, dtype, raw = node
        if not is_carried_dtype(dtype):
            raise RemoteProtocolError("A scalar has an unknown dtype.")
        kind = np.dtype(dtype)
        return np.frombuffer(raw, kind, 1)[0] if kind.itemsize else kind.type()

    def _object_array(self, node: list[Any]) -> Array:
        shape = tuple(node[1])
        items = self._all(node[2:])
        array: Array = np.empty(len(items), dtype=object)
        for number, item in enumerate(items):
            array[number] = item
        return array.reshape(shape)

    def _ragged(self, node: list[Any]) -> Array:
        _, shape, data, ends = node
        elements, cuts = self.array(data), np.array(self.array(ends))
        if elements.ndim != 1 or cuts.ndim != 1 or cuts.dtype != np.int64 or not len(cuts):
            raise RemoteProtocolError("An array of arrays is malformed.")
        if cuts[0] < 0 or cuts[-1] != len(elements) or (np.diff(cuts) < 0).any():
            raise RemoteProtocolError("An array of arrays is cut outside its elements.")
        array: Array = np.empty(len(cuts), dtype=object)
        begin = 0
        for number, end in enumerate(cuts.tolist()):
            array[number] = elements[begin:end]
            begin = end
        return array.reshape(tuple(shape))

    def _masked(self, node: list[Any]) -> Any:
        _, data, mask, fill = node
        return np.ma.MaskedArray(self.array(data), self.array(mask), fill_value=self._decode(fill))

    def _sparse(self, node: list[Any]) -> Any:
        _, name, shape, *parts = node
        return build_sparse(name, shape, [self.array(part) for part in parts])

    def _generator(self, node: list[Any]) -> np.random.RandomState:
        generator = np.random.RandomState(0)
        set_generator(generator, node)
        if node[1] != len(self.generators):
            raise RemoteProtocolError("A random generator has the wrong number.")
        self.generators.append(generator)
        return generator

    def _estimator(self, node: list[Any]) -> Any:
        cls = objects.estimator_class(node[1])
        attributes = self.attributes(list(zip(node[2::2], node[3::2], strict=True)))
        return objects.build_estimator(cls, attributes)

    def _dict(self, node: list[Any]) -> dict[Any, Any]:
        return dict(zip(self._all(node[1::2]), self._all(node[2::2]), strict=True))

    def _dtype(self, node: list[Any]) -> np.dtype[Any]:
        if not is_carried_dtype(node[1]):
            raise RemoteProtocolError("A dtype is unknown.")
        found: np.dtype[Any] = np.dtype(node[1])
        return found

    def _helper(self, node: list[Any]) -> Any:
        return objects.put_together(node[1], self._all(node[2:]))


def build_sparse(name: str, shape: Sequence[Any], parts: Sequence[Array]) -> Any:
    """Return a scipy sparse matrix or array from its parts.

    Indices are copied, then range-checked: scipy's compiled routines trust them, and a wrong one crashes the
    interpreter.
    """
    cls = SPARSE_CLASSES[name]
    names = SPARSE_PARTS[name[:3]]
    if len(parts) != len(names) or not all(type(extent) is int and 0 <= extent < 2**62 for extent in shape):
        raise RemoteProtocolError("A sparse matrix is malformed.")
    private = [parts[0], *[np.array(part) for part in parts[1:]]]
    if any(part.dtype.kind != "i" for part in private[1:]):
        raise RemoteProtocolError("A sparse matrix has indices that are no integers.")
    size = tuple(shape)
    if name.startswith("coo"):
        matrix = cls((private[0], tuple(private[1:])), shape=size)
    else:
        matrix = cls(tuple(private), shape=size)
    for part, array in zip(names, private, strict=True):
        if part in ("row", "col"):
            continue  # a view on .coords in newer scipy
        setattr(matrix, part, array)  # the constructor may have cast the indices to another width
    _check_sparse(matrix, name[:3])
    return matrix


def _check_sparse(matrix: Any, fmt: str) -> None:
    if fmt in ("csr", "csc", "bsr"):
        major = matrix.shape[1] if fmt == "csc" else matrix.shape[0]
        minor = matrix.shape[0] if fmt == "csc" else matrix.shape[1]
        if fmt == "bsr":
            block = matrix.data.shape[1:]
            if len(block) != 2 or 0 in block or major % block[0] or minor % block[1]:
                raise RemoteProtocolError("A sparse matrix has blocks that do not fit.")
            major, minor = major // block[0], minor // block[1]
        indptr, indices = matrix.indptr, matrix.indices
        if indptr.shape != (major + 1,) or indices.ndim != 1 or len(indices) != len(matrix.data):
            raise RemoteProtocolError("A sparse matrix has parts of wrong lengths.")
        if indptr[0] != 0 or indptr[-1] > len(indices) or (np.diff(indptr) < 0).any():
            raise RemoteProtocolError("A sparse matrix has row pointers out of range.")
        if len(indices) and (indices.min() < 0 or indices.max() >= minor):
            raise RemoteProtocolError("A sparse matrix has indices out of range.")
    elif fmt == "coo":
        for extent, index in ((matrix.shape[0], matrix.row), (matrix.shape[1], matrix.col)):
            if len(index) != len(matrix.data) or (len(index) and (index.min() < 0 or index.max() >= extent)):
                raise RemoteProtocolError("A sparse matrix has indices out of range.")
    elif len(matrix.offsets):
        rows, columns = matrix.shape
        if matrix.offsets.min() <= -rows or matrix.offsets.max() >= columns:
            raise RemoteProtocolError("A sparse matrix has diagonals out of range.")


def set_generator(generator: np.random.RandomState, node: Sequence[Any]) -> None:
    """Bring a random generator to the state that a node of one holds."""
    _, _, raw, position, has_gauss, cached = node
    key = np.frombuffer(raw, np.uint32)
    if key.shape != (624,) or type(position) is not int or not 0 <= position <= 624 or has_gauss not in (0, 1):
        raise RemoteProtocolError("The state of a random generator is malformed.")
    generator.set_state(("MT19937", key, position, has_gauss, float(cached)))


_HANDLERS: dict[str, Callable[[Decoder, list[Any]], Any]] = {
    "l": lambda decoder, node: decoder._all(node[1:]),
    "t": lambda decoder, node: tuple(decoder._all(node[1:])),
    "s": lambda decoder, node: set(decoder._all(node[1:])),
    "d": Decoder._dict,
    "i": lambda decoder, node: int(node[1], 16),
    "c": lambda decoder, node: complex(float(node[1]), float(node[2])),
    "a": lambda decoder, node: decoder._number(node, decoder.arrays),
    "x": lambda decoder, node: decoder._number(node, decoder._inputs),
    "w": Decoder._own,
    "v": Decoder._view,
    "n": Decoder._scalar,
    "o": Decoder._object_array,
    "O": lambda decoder, node: decoder._object_array(node).T,
    "r": Decoder._ragged,
    "k": Decoder._masked,
    "p": Decoder._sparse,
    "D": Decoder._dtype,
    "T": lambda decoder, node: TYPES[node[1]],
    "S": lambda decoder, node: slice(*decoder._all(node[1:])),
    "g": Decoder._generator,
    "G": lambda decoder, node: decoder._number(node, decoder.generators),
    "e": Decoder._estimator,
    "h": Decoder._helper,
}
