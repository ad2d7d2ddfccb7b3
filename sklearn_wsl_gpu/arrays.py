"""What travels in metadata instead of an array: the array ref and its arithmetic. Facts; imports no library."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from sklearn_wsl_gpu.errors import RemoteProtocolError

#: A ref is refused beyond these; numpy itself allows 64 dimensions from version 2, 32 before.
MAX_DIMENSIONS = 32
MAX_EXTENT = 2**48
MAX_BYTES = 2**62
CACHE_LINE = 64
#: Elements of an array of texts without a character.
_MAX_WITHOUT_BYTES = 2**26

_DTYPE = re.compile(
    r"\|b1|\|[iu]1|[<>][iu][248]|[<>]f[248]|[<>]c(?:8|16)|\|S[0-9]{1,8}|[<>]U[0-9]{1,8}"
    r"|[<>][mM]8(?:\[(?:[1-9][0-9]{0,8})?(?:generic|Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
)
_ITEMSIZE = re.compile(r".([biufcmM])([0-9]{1,2})")


class SpanRef(NamedTuple):
    """Where the arrays of one request or reply lie.

    Attributes
    ----------
    segment : int
        Number of the segment in its pool.
    start, nbytes : int
        First byte in the segment, and size, in bytes.
    generation : int
        Number of the lease; never given twice in a pool's life.
    """

    segment: int
    start: int
    nbytes: int
    generation: int


class ArrayRef(NamedTuple):
    """One array inside a span.

    Attributes
    ----------
    offset : int
        First byte, counted from the start of the span.
    dtype : str
        As `numpy.dtype.str`; only fixed-size types without fields or references.
    shape : tuple of int
        Extents.
    order : str
        ``"C"`` or ``"F"``.
    writeable : bool
        Whether the array was writeable where it came from.
    """

    offset: int
    dtype: str
    shape: tuple[int, ...]
    order: str
    writeable: bool


class InlineArray(NamedTuple):
    """A small array in the metadata itself, in the place of an array ref.

    Attributes
    ----------
    raw : bytes
        Its elements.
    dtype, shape, order, writeable
        As those of `ArrayRef`.
    phase : int
        Its address modulo `CACHE_LINE` where it came from: the last bit of some results depends on it.
    """

    raw: bytes
    dtype: str
    shape: tuple[int, ...]
    order: str
    writeable: bool
    phase: int


def is_carried_dtype(dtype: str) -> bool:
    """Tell whether arrays of this `numpy.dtype.str` may travel."""
    return _DTYPE.fullmatch(dtype) is not None


def itemsize(dtype: str) -> int:
    """Return the bytes of one element of a carried dtype."""
    if dtype[1] == "S":
        return int(dtype[2:])
    if dtype[1] == "U":
        return 4 * int(dtype[2:])
    found = _ITEMSIZE.match(dtype)
    assert found is not None
    return int(found.group(2))


def _is_int(value: object) -> bool:
    return type(value) is int  # bool is a subclass of int, and msgpack has both


def check_span_ref(raw: object) -> SpanRef:
    """Return a span ref from what came over the wire, or raise `RemoteProtocolError`."""
    if type(raw) is not list or len(raw) != 4 or not all(_is_int(item) and item >= 0 for item in raw):
        raise RemoteProtocolError("A span reference is malformed.")
    segment, start, nbytes, generation = raw
    return SpanRef(segment, start, nbytes, generation)


def check_array_ref(raw: object, limit: int) -> tuple[ArrayRef, int]:
    """Return an array ref and its size in bytes from what came over the wire.

    Parameters
    ----------
    raw : object
        A decoded list.
    limit : int
        Bytes of the span that the array must lie in.

    Raises
    ------
    RemoteProtocolError
        If any field is of another type, out of range, or the array would leave the span.
    """
    if type(raw) is not list or len(raw) != 5:
        raise RemoteProtocolError("An array reference is malformed.")
    offset, dtype, shape, order, writeable = raw
    if not _is_int(offset) or type(dtype) is not str or type(shape) is not list or type(writeable) is not bool:
        raise RemoteProtocolError("An array reference has a field of the wrong type.")
    if order not in ("C", "F") or not is_carried_dtype(dtype):
        raise RemoteProtocolError("An array reference names an unknown order or dtype.")
    # numpy refuses an array without elements whose other extents would be too many bytes.
    extended = itemsize(dtype)
    for extent in shape[: MAX_DIMENSIONS + 1]:
        if not _is_int(extent) or not 0 <= extent <= MAX_EXTENT or len(shape) > MAX_DIMENSIONS:
            raise RemoteProtocolError("An array reference has an impossible shape.")
        extended *= extent or 1
    nbytes = 0 if 0 in shape else extended
    is_endless = not extended and math.prod(shape) > _MAX_WITHOUT_BYTES
    if extended > MAX_BYTES or is_endless or offset < 0 or offset + nbytes > limit:
        raise RemoteProtocolError("An array reference points outside its span.")
    return ArrayRef(offset, dtype, tuple(shape), order, writeable), nbytes


def is_inline(raw: object) -> bool:
    """Tell whether what came over the wire in the place of an array ref is an array itself."""
    return type(raw) is list and len(raw) == 6


def check_inline(raw: list[object]) -> InlineArray:
    """Return an inline array from what came over the wire, or raise `RemoteProtocolError`."""
    content, *about, phase = raw
    if type(content) is not bytes or not _is_int(phase) or not 0 <= phase < CACHE_LINE:  # type: ignore[operator]
        raise RemoteProtocolError("An array in a message is malformed.")
    ref, nbytes = check_array_ref([0, *about], len(content))
    if nbytes != len(content):
        raise RemoteProtocolError("An array in a message has another size than it says.")
    return InlineArray(content, *ref[1:], phase)  # type: ignore[arg-type]
