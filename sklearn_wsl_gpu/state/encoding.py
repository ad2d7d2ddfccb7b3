"""Python values to nodes and arrays.

A node is None, a bool, an int of 64 bits, a float, a str, bytes, or a list whose first item is a tag:

========  ==================================================================================
``l t s`` list, tuple, set: the items
``d``     dict: key, value, key, value, …
``i``     int of more than 64 bits: hexadecimal text
``c``     complex: real, imaginary
``a``     array: its number among the refs
``x``     the very array that the caller passed: its number among the refs of the call
``w``     the very array that is an attribute of the call's estimator: the attribute's name
``v``     strided array: node of the memory that it lies in, shape, strides, offset of its first element
``n``     numpy scalar: dtype, bytes
``o``     array of objects: shape, the items
``O``     array of objects in Fortran order: shape and items of its transpose
``r``     array of one-dimensional arrays: shape, node of all their elements, node of the ends
``k``     masked array: node of the data, node of the mask, node of the fill value
``p``     scipy sparse: class name, shape, nodes of its parts
``D T``   numpy dtype, numpy scalar or builtin number type: its name
``S``     slice: start, stop, step
``g``     numpy.random.RandomState: number, key, position, has_gauss, cached
``G``     a RandomState met before: its number
``e``     estimator: name of the table, then name, node, name, node, …
``h``     scikit-learn helper object: kind, then what `objects` says
========  ==================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import scipy.sparse

from sklearn_wsl_gpu.arrays import is_carried_dtype
from sklearn_wsl_gpu.errors import Unsupported
from sklearn_wsl_gpu.pool.placing import Array, memory_of, memory_order
from sklearn_wsl_gpu.state import objects

#: A list, dict or object array with more items than this stays local: it would have to travel item by item.
MAX_ITEMS = 100_000
#: So many values that are more than a number or text; a container that holds another twice counts it twice.
MAX_NODES = 400_000
_MAX_DEPTH = 40
#: What is its own node, besides None.
_AS_THEY_ARE = frozenset({bool, float, str})
_INT64 = 2**63

_Place = TypeVar("_Place")
ArrayKey = tuple[int, tuple[int, ...], tuple[int, ...], str]

#: Two objects over the same memory are noticed from this size on; the same object always.
_ALIAS_BYTES = 1024

#: scipy sparse classes that travel, by name, and their parts.
SPARSE_PARTS: dict[str, tuple[str, ...]] = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "bsr": ("data", "indices", "indptr"),
    "coo": ("data", "row", "col"),
    "dia": ("data", "offsets"),
}
SPARSE_CLASSES: dict[str, type[Any]] = {
    f"{fmt}_{kind}": getattr(scipy.sparse, f"{fmt}_{kind}") for fmt in SPARSE_PARTS for kind in ("matrix", "array")
}
_SPARSE_NAMES = {cls: name for name, cls in SPARSE_CLASSES.items()}

#: Types that may be values of parameters such as ``dtype``.
TYPES: dict[str, type[Any]] = {
    **{kind.__name__: kind for kind in (int, float, bool, str, complex, object)},
    **{
        f"numpy.{name}": getattr(np, name)
        for name in (
            "float16", "float32", "float64", "int8", "int16", "int32", "int64",
            "uint8", "uint16", "uint32", "uint64", "bool_", "complex64", "complex128",
        )
    },
}  # fmt: skip
_TYPE_NAMES = {kind: name for name, kind in TYPES.items()}


def array_key(array: Array) -> ArrayKey:
    """Return what identifies the memory and the reading of an array while it is alive."""
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str


class Encoder:
    """Turns values into nodes, and collects the arrays that they hold.

    Parameters
    ----------
    inputs : sequence of ndarray
        Arrays that the other side has already: they are named, not sent.
    generators : sequence of RandomState
        Generators that the other side has already.
    strided : bool
        Whether arrays keep their strides. What computes on a device takes contiguous ones.

    Attributes
    ----------
    arrays : list of ndarray
        What has to be placed, in the order of the nodes' numbers.
    generators : list of RandomState
        Generators met.
    """

    def __init__(
        self,
        inputs: Sequence[Array | None] = (),
        generators: Sequence[np.random.RandomState] = (),
        strided: bool = False,
    ) -> None:
        self.arrays: list[Array] = []
        self._strided = strided
        self.generators = list(generators)
        #: Arrays that the other side has, and the nodes that name them.
        self._known = [(array, ["x", number]) for number, array in enumerate(inputs) if array is not None]
        self._lent: list[list[Any]] = []
        self._seen: dict[int | ArrayKey, list[Any]] = {}
        #: With the array itself: another one that is made when it is gone may have its id.
        self._views: dict[int | ArrayKey, tuple[list[Any], Array]] = {}
        self._depth = 0
        self._left = MAX_NODES

    def know_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Name an estimator's own arrays instead of sending them.

        Besides the bytes, this keeps results exact: BLAS multiplies a matrix by its own transpose in another
        order than by a copy's.
        """
        self._known += [(value, ["w", name]) for name, value in attributes.items() if type(value) is np.ndarray]

    def know_lent(self, arrays: Sequence[Array]) -> None:
        """Name arrays that lie with the other side already, instead of sending them; `number_lent` has to follow."""
        self._lent = [["a", -1 - number] for number in range(len(arrays))]
        self._known += zip(arrays, self._lent, strict=True)

    def set_apart(self, find: Callable[[Array], _Place | None]) -> list[tuple[Array, _Place]]:
        """Take the arrays out that the other side can see already; `number_lent` has to follow.

        Parameters
        ----------
        find : callable
            Returns where an array lies that the other side can see, or None.

        Returns
        -------
        found : list of (ndarray, place)
            They are named behind those of `know_lent`, in this order.
        """
        nodes = {node[1]: node for node in self._seen.values()}
        sent: list[Array] = []
        found: list[tuple[Array, _Place]] = []
        for number, array in enumerate(self.arrays):
            place = find(array)
            if place is None:
                nodes[number][1] = len(sent)
                sent.append(array)
            else:
                self._lent.append(nodes[number])
                found.append((array, place))
        self.arrays = sent
        return found

    def number_lent(self) -> None:
        """Give the arrays of `know_lent` their numbers, when it is known how many are sent before them."""
        for number, node in enumerate(self._lent):
            node[1] = len(self.arrays) + number

    def encode(self, value: Any) -> Any:
        """Return the node of a value.

        Raises
        ------
        Unsupported
            If the value is of a kind that does not travel.
        """
        kind = type(value)
        if value is None or kind in _AS_THEY_ARE:
            return value
        self._left -= 1
        if self._left < 0:
            raise Unsupported(f"A call of more than {MAX_NODES} Python values stays local; pass numpy arrays.")
        handler = _HANDLERS.get(kind)
        if handler is None:
            handler = _find_handler(value)
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise Unsupported("A value is nested too deeply, or holds itself; such values stay local.")
        try:
            return handler(self, value)
        finally:
            self._depth -= 1

    def attributes(self, attributes: Mapping[str, Any]) -> list[list[Any]]:
        """Return name and node of each attribute of an estimator."""
        found = []
        for name, value in attributes.items():
            try:
                # Most are such; to ask `encode` would take longer than all the rest.
                node = value if value is None or type(value) in _AS_THEY_ARE else self.encode(value)
            except Unsupported as error:
                raise Unsupported(f"{name}: {error}") from None
            found.append([name, node])
        return found

    def array(self, array: Array) -> list[Any]:
        """Return the node of an array, the same one for the same memory."""
        if array.dtype.hasobject or not is_carried_dtype(array.dtype.str):
            if array.dtype == object:
                return self._object_array(array)
            layout = objects.layout_name(array.dtype)
            if layout is None:
                raise Unsupported(f"Arrays of dtype {array.dtype} do not travel to a worker.")
            if array.ndim != 1:
                raise Unsupported("Structured arrays travel in one dimension only.")
            raw = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
            return ["h", "layout", layout, self.array(raw)]
        for known, named in self._known:
            if known.shape == array.shape and array.size and array_key(known) == array_key(array):
                return named
        key: int | ArrayKey = array_key(array) if array.nbytes >= _ALIAS_BYTES else id(array)
        if key in self._views:
            return self._views[key][0]
        node = self._seen.get(key)
        lies = memory_of(array) if self._strided and node is None else None
        if lies is not None:
            node = ["v", self.array(lies[0]), list(array.shape), list(array.strides), lies[1]]
            self._views[key] = node, array
        if node is None:
            node = self._seen[key] = ["a", len(self.arrays)]
            self.arrays.append(array)
        return node

    def items(self, tag: str, items: Iterable[Any], count: int) -> list[Any]:
        """Return the node of a container of `count` items."""
        if count > MAX_ITEMS:
            raise Unsupported(
                f"A Python container of {count} items would travel item by item; pass a numpy array instead."
            )
        return [tag, *[self.encode(item) for item in items]]

    def _object_array(self, array: Array) -> list[Any]:
        # What scikit-learn makes of it keeps the order, and sums go by the order.
        tag, array = ("O", array.T) if array.ndim > 1 and memory_order(array) == "F" else ("o", array)
        flat = array.ravel().tolist()
        if flat and all(type(item) is np.ndarray and item.ndim == 1 for item in flat):
            dtypes = {item.dtype for item in flat}
            # Joining arrays would turn foreign byte order into this machine's.
            is_plain = tag == "o" and len(dtypes) == 1
            if is_plain and flat[0].dtype.isnative and is_carried_dtype(flat[0].dtype.str):
                ends = np.cumsum([len(item) for item in flat], dtype=np.int64)
                return ["r", list(array.shape), self.array(np.concatenate(flat)), self.array(ends)]
        if array.size > MAX_ITEMS:
            raise Unsupported(f"An array of {array.size} Python objects would travel item by item; it stays local.")
        return [tag, list(array.shape), *[self.encode(item) for item in flat]]


def _encode_int(encoder: Encoder, value: int) -> Any:
    return value if -_INT64 <= value < _INT64 else ["i", hex(value)]


def _encode_dict(encoder: Encoder, value: dict[Any, Any]) -> list[Any]:
    if len(value) > MAX_ITEMS:
        raise Unsupported(f"A dict of {len(value)} items would travel item by item; it stays local.")
    node: list[Any] = ["d"]
    for key, item in value.items():
        node += (encoder.encode(key), encoder.encode(item))
    return node


def _encode_scalar(encoder: Encoder, value: np.generic) -> list[Any]:
    if not is_carried_dtype(value.dtype.str):
        raise Unsupported(f"Scalars of dtype {value.dtype} do not travel to a worker.")
    return ["n", value.dtype.str, value.tobytes()]


def _encode_masked(encoder: Encoder, value: np.ma.MaskedArray[Any, Any]) -> list[Any]:
    mask = np.ma.getmaskarray(value)
    fill = None if value._fill_value is None else value.fill_value  # type: ignore[attr-defined]
    return ["k", encoder.array(value.data), encoder.array(mask), encoder.encode(fill)]


def _encode_sparse(encoder: Encoder, value: Any) -> list[Any]:
    name = _SPARSE_NAMES[type(value)]
    if len(value.shape) != 2:
        raise Unsupported(f"Sparse arrays of {len(value.shape)} dimensions do not travel to a worker.")
    parts = [encoder.array(np.asarray(getattr(value, part))) for part in SPARSE_PARTS[name[:3]]]
    shape = [int(extent) for extent in value.shape]
    return ["p", name, shape, *parts]


def _encode_type(encoder: Encoder, value: type[Any]) -> list[Any]:
    name = _TYPE_NAMES.get(value)
    if name is None:
        raise Unsupported(f"The class {value.__qualname__} does not travel to a worker.")
    return ["T", name]


def _encode_generator(encoder: Encoder, value: np.random.RandomState) -> list[Any]:
    if value is global_generator():
        # As such, and as what random_state=None means, it would be two there.
        raise Unsupported("numpy's global random generator, given as an object, stays local.", "global-random-state")
    for number, known in enumerate(encoder.generators):
        if known is value:
            return ["G", number]
    encoder.generators.append(value)
    return generator_node(value, len(encoder.generators) - 1)


def global_generator() -> np.random.RandomState:
    """Return the generator behind numpy's global random functions."""
    return np.random.mtrand._rand


def generator_node(value: np.random.RandomState, number: int) -> list[Any]:
    """Return the node of a random generator's present state."""
    state: Any = value.get_state(legacy=False)
    if state["bit_generator"] != "MT19937":
        raise Unsupported(f"A RandomState over {state['bit_generator']} does not travel to a worker.")
    inner = state["state"]
    return ["g", number, inner["key"].tobytes(), int(inner["pos"]), int(state["has_gauss"]), float(state["gauss"])]


def _encode_estimator(encoder: Encoder, value: Any) -> list[Any]:
    node: list[Any] = ["e", objects.ESTIMATOR_NAMES[type(value)]]
    for name, item in objects.carried_attributes(value).items():
        node += (name, encoder.encode(item))
    return node


def _encode_object(encoder: Encoder, value: Any) -> list[Any]:
    kind, parts = objects.take_apart(value)
    return ["h", kind, *[encoder.encode(part) for part in parts]]


_HANDLERS: dict[type[Any], Callable[[Encoder, Any], Any]] = {
    int: _encode_int,
    bytes: lambda encoder, value: value,
    complex: lambda encoder, value: ["c", value.real, value.imag],
    list: lambda encoder, value: encoder.items("l", value, len(value)),
    tuple: lambda encoder, value: encoder.items("t", value, len(value)),
    set: lambda encoder, value: encoder.items("s", value, len(value)),
    dict: _encode_dict,
    slice: lambda encoder, value: ["S", *[encoder.encode(part) for part in (value.start, value.stop, value.step)]],
    np.ndarray: Encoder.array,
    np.memmap: lambda encoder, value: encoder.array(value.view(np.ndarray)),
    np.ma.MaskedArray: _encode_masked,
    np.random.RandomState: _encode_generator,
    type: _encode_type,
    **dict.fromkeys(SPARSE_CLASSES.values(), _encode_sparse),
}


def _find_handler(value: Any) -> Callable[[Encoder, Any], Any]:
    kind = type(value)
    if isinstance(value, np.generic):
        return _encode_scalar
    if isinstance(value, np.dtype):
        return lambda encoder, dtype: ["D", dtype.str] if is_carried_dtype(dtype.str) else _refuse(dtype)
    if kind in objects.ESTIMATOR_NAMES:
        return _encode_estimator
    if objects.is_helper(kind) or objects.is_function(value):
        return _encode_object
    return lambda encoder, item: _refuse(item)


def _refuse(value: Any) -> Any:
    what = "callables" if callable(value) else f"objects of type {type(value).__module__}.{type(value).__qualname__}"
    raise Unsupported(f"{what} do not travel to a worker")
