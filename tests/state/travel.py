"""Values on their way to the other side, and whether they arrive as they were."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from sklearn_wsl_gpu.errors import Unsupported
from sklearn_wsl_gpu.pool import placing
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.protocol import codec
from sklearn_wsl_gpu.state import Decoder, Encoder


def object_array(items: list[Any]) -> Array:
    array: Array = np.empty(len(items), dtype=object)
    for number, item in enumerate(items):
        array[number] = item
    return array.reshape((2, -1)) if len(items) % 2 == 0 else array


def same(one: Any, other: Any) -> bool:
    """Compare type by type and bit by bit: nan is nan, 0.0 is not -0.0, and 1 is not True."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        if one.dtype != other.dtype or one.dtype.str != other.dtype.str or one.shape != other.shape:
            return False
        if one.dtype == object:
            return all(map(same, one.ravel(), other.ravel()))
        return one.tobytes() == other.tobytes()
    if isinstance(one, np.generic):
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(map(same, [*one, *one.values()], [*other, *other.values()]))
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    return bool(one == other)


def travel(value: Any, strided: bool = False) -> Any:
    """Return a value as the other side gets it: its node as bytes, its arrays through a span."""
    encoder = Encoder(strided=strided)
    raw = codec.pack(encoder.encode(value))
    refs, nbytes = placing.plan(encoder.arrays)
    memory = memoryview(bytearray(nbytes + 64))
    placing.write(memory, 0, refs, encoder.arrays)
    return Decoder([placing.view(memory, 0, ref) for ref in refs]).decode(codec.unpack(raw))


def refused(value: Any, match: str = "") -> None:
    with pytest.raises(Unsupported, match=match):
        Encoder().encode(value)
