"""What cannot travel stays local, with a reason that says what it is."""

from __future__ import annotations

import collections
import enum
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sklearn_wsl_gpu.errors import RemoteProtocolError, Unsupported
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.state import Decoder, Encoder
from sklearn_wsl_gpu.state.encoding import MAX_ITEMS
from tests.state.travel import object_array, refused, same, travel


def test_structured_arrays_of_scikit_learn_arrive_and_others_stay_local() -> None:
    linkage = np.zeros(3, [("left_node", "<i8"), ("right_node", "<i8"), ("value", "<f8"), ("cluster_size", "<i8")])
    linkage["value"] = 1.5

    assert same(travel(linkage), linkage)
    refused(np.zeros(3, [("a", "i4")]), "dtype")
    refused(linkage.reshape(3, 1), "one dimension")


class Colour(enum.IntEnum):
    RED = 1


UNSUPPORTED: dict[str, Any] = {
    "lambda": lambda: None,
    "builtin function": len,
    "method": [].append,
    "class": dict,
    "own class": Colour,
    "object": object(),
    "module": np,
    "enum": Colour.RED,
    "subclass of dict": collections.OrderedDict(a=1),
    "subclass of ndarray": np.rec.array(np.ones(2)),
    "frozenset": frozenset({1}),
    "generator": (number for number in range(3)),
    "new random generator": np.random.default_rng(0),
    "object dtype": np.dtype(object),
    "record dtype": np.dtype([("a", "i4")]),
    "bit generator": np.random.RandomState(np.random.PCG64(0)),
}
if np.dtype(np.longdouble) != np.float64:  # they are the same on Windows
    UNSUPPORTED |= {"long double": np.ones(2, np.longdouble), "long double scalar": np.longdouble(1)}


def test_callables_and_unknown_objects_stay_local_with_a_reason() -> None:
    wrappers: list[Callable[[Any], Any]] = [
        lambda value: value,
        lambda value: [value],
        lambda value: {"deep": (1, value)},
        lambda value: object_array([value, 1, 2]),
    ]
    for name, value in UNSUPPORTED.items():
        for wrap in wrappers:
            with pytest.raises(Unsupported) as caught:
                Encoder().encode(wrap(value))
            assert len(str(caught.value)) > 10, name
    refused(len, "callables")


def test_a_value_that_stays_local_is_named_by_its_attribute() -> None:
    with pytest.raises(Unsupported, match=r"^metric: callables"):
        Encoder().attributes({"p": 2, "metric": len})


def test_containers_that_hold_themselves_stay_local() -> None:
    endless: list[Any] = []
    endless.append(endless)
    looping: dict[str, Any] = {}
    looping["self"] = [looping]
    array: Array = np.empty(1, dtype=object)
    array[0] = array
    for value in (endless, looping, array):
        refused(value, "holds itself")


def test_what_can_be_sent_nested_can_be_received() -> None:
    value: Any = 1
    while True:
        try:
            Encoder().encode([value])
        except Unsupported:
            break
        value = [value]
        assert travel(value) == value
    assert str(value).count("[") >= 32


def test_long_containers_stay_local_with_advice() -> None:
    long = list(range(MAX_ITEMS + 1))
    refused(long, "numpy array")
    refused(tuple(long), "numpy array")
    refused(dict.fromkeys(long), "item by item")
    refused(np.array([*long, "x"], object), "item by item")
    assert len(travel(long[:-1])) == MAX_ITEMS


def test_attributes_of_the_same_or_a_forbidden_name_are_refused() -> None:
    decoder = Decoder(())
    assert decoder.attributes([["a_", 1], ["_b", 2]]) == {"a_": 1, "_b": 2}
    for pairs in (
        [["a_", 1], ["a_", 1]],
        [["__class__", 1]],
        [["", 1]],
        [["a b", 1]],
        [["_metadata_request", 1]],
        [[1, 1]],
    ):
        with pytest.raises(RemoteProtocolError):
            decoder.attributes(pairs)


def test_arrays_inside_an_array_keep_their_byte_order() -> None:
    value = object_array([np.array([1, 2], dtype=">i2"), np.array([], dtype=">i2"), np.array([3], dtype=">i2")])

    assert same(travel(value), value)
