"""Messages to bytes and back: what goes in comes out, and what is no message is refused within bounded memory."""

from __future__ import annotations

import datetime
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_wsl_gpu.errors import LocalProtocolError, RemoteProtocolError
from sklearn_wsl_gpu.protocol import codec

MIB = 1024 * 1024
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=40),
    st.binary(max_size=40),
)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=6), max_leaves=40)


def _identical(one: Any, other: Any) -> bool:
    """Compare types too: True is not 1, and 1 is not 1.0."""
    if type(one) is not type(other):
        return False
    if type(one) is list:
        return len(one) == len(other) and all(map(_identical, one, other))
    return bool(one == other)


def _refuses(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        codec.unpack(raw)


def _array(count: int) -> bytes:
    """Return the header of a list of `count` items."""
    return b"\xdd" + count.to_bytes(4, "big")


@settings(deadline=None)
@given(TREES)
def test_a_tree_of_values_comes_back_as_it_was(tree: Any) -> None:
    assert _identical(codec.unpack(codec.pack(tree)), tree)
    assert _identical(codec.unpack(memoryview(codec.pack(tree))), tree)


def test_tuples_come_back_as_lists() -> None:
    assert codec.unpack(codec.pack((1, (2, ())))) == [1, [2, []]]


def _does_not_pack(value: Any) -> None:
    with pytest.raises(LocalProtocolError):
        codec.pack([value])


def test_objects_and_numbers_that_do_not_fit_are_not_packed() -> None:
    moment = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    for value in (object(), {1}, 1j, 2**64, -(2**63) - 1, len, "\ud800", moment):
        _does_not_pack(value)


def test_a_message_that_is_too_long_is_neither_packed_nor_unpacked() -> None:
    largest = codec.MAX_MESSAGE_BYTES
    with pytest.raises(LocalProtocolError) as caught:
        codec.pack([b"\0" * MIB] * (largest // MIB))
    assert caught.value.code == "message-too-large"

    chunk = codec.pack(b"\0" * (MIB - 5))
    fits = b"\x97" + chunk * 7
    assert len(codec.unpack(fits)) == 7
    _refuses(b"\x98" + chunk * 8)
    _refuses(bytes(largest + 1))


def test_a_text_or_token_that_is_too_long_is_refused() -> None:
    for kind in (b"\xc6", b"\xdb"):
        assert len(codec.unpack(kind + MIB.to_bytes(4, "big") + b"a" * MIB)) == MIB
        _refuses(kind + (MIB + 1).to_bytes(4, "big") + b"a" * (MIB + 1))


def test_maps_are_refused_even_if_they_are_empty() -> None:
    for raw in (b"\x80", b"\x81\xa1a\x01", b"\x91\x80", b"\xde\x00\x00", b"\xdf\x00\x00\x00\x00"):
        _refuses(raw)


def test_extension_types_are_refused_even_if_they_are_empty() -> None:
    for raw in (
        b"\xc7\x00\x05",
        b"\xd4\x05a",
        b"\xc7\x00\xff",
        msgpack.packb(msgpack.Timestamp(1)),
        b"\x91\xc7\x00\x05",
    ):
        _refuses(raw)


def test_bytes_that_are_cut_or_have_something_behind_are_refused() -> None:
    whole = codec.pack([1, "text", b"bytes", [1.5, None, 2**40]])
    for length in range(len(whole)):
        _refuses(whole[:length])
    _refuses(whole + b"\x00")


def test_text_that_is_not_utf_8_is_refused() -> None:
    _refuses(b"\xa2\xff\xfe")


def test_lists_deeper_than_the_limit_are_refused() -> None:
    assert codec.unpack(b"\x91" * (codec.MAX_DEPTH - 1) + b"\x90")
    for depth in (codec.MAX_DEPTH + 1, 600, 5000, MIB):
        _refuses(b"\x91" * depth + b"\x90")


def test_more_nodes_than_the_limit_are_refused_and_as_many_are_taken() -> None:
    row = b"\xdc\xff\xff" + b"\x01" * 65535
    assert len(codec.unpack(b"\x97" + row * 7)) == 7
    _refuses(b"\x98" + row * 8)
    _refuses(_array(codec.MAX_NODES + 1) + b"\x01" * (codec.MAX_NODES + 1))


BOMBS = {
    "empty lists in one": _array(MIB) + b"\x90" * MIB,
    "empty lists in rows": _array(17) + (b"\xdc\xff\xff" + b"\x90" * 65535) * 17,
    "empty lists in pairs": _array(MIB // 3) + b"\x92\x90\x90" * (MIB // 3),
    "promised lists": _array(500_000) * 1000,
    "one list in each": b"\x91" * MIB,
    "short texts": _array(17) + (b"\xdc\xff\xff" + b"\xa2ab" * 65535) * 17,
}


@pytest.mark.parametrize("raw", BOMBS.values(), ids=list(BOMBS))
def test_a_bomb_is_refused_within_bounded_memory(raw: bytes) -> None:
    tracemalloc.start()
    try:
        _refuses(raw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 96 * MIB


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_are_values_of_the_kinds_that_travel(raw: bytes) -> None:
    try:
        value = codec.unpack(raw)
    except RemoteProtocolError:
        return

    assert _identical(codec.unpack(codec.pack(value)), value) or "nan" in repr(value)


@settings(deadline=None, max_examples=300)
@given(TREES, st.data())
def test_mutated_bytes_are_refused_with_one_kind_of_error(tree: Any, data: st.DataObject) -> None:
    raw = bytearray(codec.pack([tree]))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))

    try:
        value = codec.unpack(bytes(raw))
    except RemoteProtocolError:
        return

    codec.pack(value)
