"""Arrays into a span and out of it: where each lies, and the one copy that takes it there."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sklearn_wsl_gpu.arrays import CACHE_LINE, ArrayRef, InlineArray
from sklearn_wsl_gpu.pool.layout import PAGE, SPAN_HEADER_BYTES

Array = NDArray[Any]

#: From this size on an array keeps its offset in the page, see `plan`.
_LARGE_BYTES = 64 * 1024
#: An array with gaps is sent with what lies in them if that is no more than this, see `memory_of`.
_GAPS_BYTES = 64 * 1024


def memory_order(array: Array) -> Literal["C", "F"]:
    """Return the order in which the array is copied: its own if it is contiguous, else the nearer one."""
    if array.flags.c_contiguous:
        return "C"
    if array.flags.f_contiguous:
        return "F"
    strides = [abs(stride) for stride, extent in zip(array.strides, array.shape, strict=True) if extent > 1]
    # Equal strides, of windows that overlap, are in both orders, and numpy takes them for C.
    return "F" if strides == sorted(strides) != sorted(strides, reverse=True) else "C"


def memory_of(array: Array) -> tuple[Array, int] | None:
    """Return the memory that a strided array lies in, in one dimension, and the offset of its first element there.

    The last bit of some results depends on strides. None if the array is contiguous, or if there is too much else in
    that memory.
    """
    size = array.itemsize
    if array.flags.c_contiguous or array.flags.f_contiguous or not array.nbytes:
        return None
    if any(stride % size for stride in array.strides):
        return None
    reaches = [stride * (extent - 1) for stride, extent in zip(array.strides, array.shape, strict=True)]
    first = -sum(reach for reach in reaches if reach < 0)
    nbytes = first + sum(reach for reach in reaches if reach > 0) + size
    if not array.nbytes <= nbytes <= max(array.nbytes, _GAPS_BYTES):
        return None
    lowest = array[tuple(slice(-1, None) if stride < 0 else slice(0, 1) for stride in array.strides)]
    memory: Array = np.lib.stride_tricks.as_strided(lowest, (nbytes // size,), (size,), writeable=array.flags.writeable)
    return memory, first


def plan(
    arrays: Sequence[Array], at: int = SPAN_HEADER_BYTES, single: Array | None = None
) -> tuple[list[ArrayRef], int]:
    """Decide where each array lies in a span, from the offset `at` on.

    An array keeps its address modulo a cache line, because the last bit of some results depends on it, and
    a large one keeps it modulo a page, because glibc's copy is three to four times slower when source and
    destination differ by less than 256 bytes in the page.

    Of the arrays one may be `single`, which is written in single precision.

    Returns
    -------
    refs : list of ArrayRef
    nbytes : int
        Size that the span must have, header included.
    """
    refs: list[ArrayRef] = []
    for array in arrays:
        modulus = PAGE if array.nbytes >= _LARGE_BYTES else CACHE_LINE
        phase = array.__array_interface__["data"][0] % modulus if array.nbytes else 0
        at += (phase - at) % modulus
        ref = ref_of(array, at)
        refs.append(ref._replace(dtype=np.dtype(np.float32).str) if array is single else ref)
        at += nbytes_of(refs[-1])
    return refs, at


def nbytes_of(ref: ArrayRef) -> int:
    """Return the size of the array that a ref names."""
    return math.prod(ref.shape) * np.dtype(ref.dtype).itemsize


def ref_of(array: Array, offset: int) -> ArrayRef:
    """Return what names an array that lies at this offset of a span."""
    return ArrayRef(offset, array.dtype.str, array.shape, memory_order(array), array.flags.writeable)


def inline(array: Array) -> list[Any]:
    """Return a small array as it travels in metadata, see `InlineArray`."""
    order = memory_order(array)
    phase = array.__array_interface__["data"][0] % CACHE_LINE
    return [array.tobytes(order), array.dtype.str, array.shape, order, array.flags.writeable, phase]


def from_inline(one: InlineArray) -> Array:
    """Return a checked inline array as one of its own memory."""
    memory = np.empty(len(one.raw) + CACHE_LINE, np.uint8)
    begin = (one.phase - memory.__array_interface__["data"][0]) % CACHE_LINE
    memory[begin : begin + len(one.raw)] = np.frombuffer(one.raw, np.uint8)
    ref = ArrayRef(begin, one.dtype, one.shape, one.order, one.writeable)
    array = view(memory.data, 0, ref)
    array.flags.writeable = one.writeable
    return array


def view(memory: mmap.mmap | memoryview, start: int, ref: ArrayRef) -> Array:
    """Return the array that a checked ref names, without a copy."""
    array: Array = np.ndarray(
        ref.shape, np.dtype(ref.dtype), memory, start + ref.offset, order="F" if ref.order == "F" else "C"
    )
    return array


def raw(array: Array, ref: ArrayRef) -> memoryview | None:
    """Return the memory of an array as it is to lie in a span; None if it is to lie there otherwise."""
    if array.dtype.str != ref.dtype or not (array.flags.c_contiguous if ref.order == "C" else array.flags.f_contiguous):
        return None
    flat: Array = array.reshape(-1, order=ref.order).view(np.uint8)  # type: ignore[call-overload]
    return flat.data


def write(
    memory: mmap.mmap | memoryview,
    start: int,
    refs: Sequence[ArrayRef],
    arrays: Sequence[Array],
    copy: Callable[[Array, Array], None] = np.copyto,
) -> None:
    """Copy arrays to where `plan` put them."""
    for ref, array in zip(refs, arrays, strict=True):
        if array.nbytes and array.dtype.str == ref.dtype:
            copy(view(memory, start, ref), array)
        elif array.nbytes:
            with np.errstate(over="ignore"):  # what is infinite there the engine refuses
                np.copyto(view(memory, start, ref), array, casting="same_kind")
