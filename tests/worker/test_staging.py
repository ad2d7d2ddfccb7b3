"""Data go to a device in pieces, each from memory that is not written to before the device has read it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsl_worker.engines.staging import LEAST_BYTES, Ahead, Ring, ToCupy


class _Device:
    """A device that reads a piece at the last moment that it may: when it is waited for."""

    def __init__(self) -> None:
        self.under_way: dict[int, tuple[Any, Any, int]] = {}
        self.most = 0
        self.waits: list[int] = []
        self.moves: list[tuple[Any, int, int, Any, int]] = []
        self.moved = 0

    def pinned(self, nbytes: int) -> Any:
        return np.zeros(nbytes, np.uint8)

    def start(self, place: int, source: Any, target: Any, offset: int) -> None:
        assert place not in self.under_way
        self.under_way[place] = (source, target, offset)
        self.most = max(self.most, len(self.under_way))

    def wait(self, place: int) -> None:
        self.waits.append(place)
        if place in self.under_way:
            source, target, offset = self.under_way.pop(place)
            target[offset : offset + len(source)] = source

    def empty(self, nbytes: int) -> Any:
        return np.zeros(nbytes, np.uint8)

    def move(self, source: Any, begin: int, nbytes: int, target: Any, offset: int) -> None:
        self.moves.append((source, begin, nbytes, target, offset))

    def settle(self) -> None:
        for source, begin, nbytes, target, offset in self.moves:
            target[offset : offset + nbytes] = source[begin : begin + nbytes]
            self.moved += nbytes
        self.moves.clear()


@given(st.integers(0, 400), st.integers(1, 40), st.integers(1, 4))
def test_what_arrives_is_what_was_sent_whatever_the_sizes(count: int, piece: int, pieces: int) -> None:
    device, source = _Device(), np.random.default_rng(count).integers(0, 256, count).astype(np.uint8)
    target = np.zeros(count, np.uint8)

    Ring(device, piece, pieces).fill(target, source)

    np.testing.assert_array_equal(target, source)
    assert not device.under_way, "the source may be written to"


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_order_is_kept(order: Any) -> None:
    device, source = _Device(), np.asarray(np.arange(60.0).reshape(12, 5), order=order)
    target = np.zeros(source.nbytes, np.uint8)

    Ring(device, 64, 2).fill(target, source)

    np.testing.assert_array_equal(target.view("f8").reshape((12, 5), order=order), source)


def test_pieces_are_copied_while_others_are_on_their_way() -> None:
    device = _Device()
    Ring(device, 10, 3).fill(np.zeros(100, np.uint8), np.ones(100, np.uint8))

    assert device.most == 3


def test_nothing_is_under_way_after_an_error() -> None:
    class Breaks(_Device):
        def start(self, place: int, source: Any, target: Any, offset: int) -> None:
            if offset == 30:
                raise RuntimeError("an illegal address")
            super().start(place, source, target, offset)

    device = Breaks()
    with pytest.raises(RuntimeError, match="illegal address"):
        Ring(device, 10, 2).fill(np.zeros(100, np.uint8), np.ones(100, np.uint8))

    assert not device.under_way


KEY = (1, 1)


def _span(nbytes: int) -> Any:
    return np.random.default_rng(nbytes).integers(0, 256, nbytes).astype(np.uint8)


def _given(ahead: Ahead, ring: Ring, source: Any) -> Any:
    target = np.zeros(len(source), np.uint8)
    ahead.fill(ring, target, source)
    return target


@given(
    st.integers(1, 300),
    st.integers(1, 40),
    st.lists(st.integers(0, 300), max_size=5),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=6),
)
def test_an_array_of_a_span_is_the_same_however_much_of_it_was_brought_ahead(
    count: int, size: int, marks: list[int], arrays: list[tuple[int, int]]
) -> None:
    ring, span = Ring(_Device(), size, 2), _span(count)
    ahead = Ahead(lambda: ring)
    for mark in sorted(marks):
        ahead.follow(KEY, span, min(mark, count))

    with ahead.giving(KEY):
        for one, other in arrays:
            source = span[min(one, other) : max(one, other)]
            np.testing.assert_array_equal(_given(ahead, ring, source), source)


def test_what_was_brought_ahead_is_not_brought_again() -> None:
    device, span = _Device(), _span(100)
    ring = Ring(device, 10, 2)
    ahead = Ahead(lambda: ring)
    ahead.follow(KEY, span, 57)
    brought = len(device.waits)
    ahead.follow(KEY, span, 59)
    assert len(device.waits) == brought, "a part of a piece is brought with the rest"

    with ahead.giving(KEY):
        np.testing.assert_array_equal(_given(ahead, ring, span[5:]), span[5:])

    assert device.moved == 45


def test_what_was_brought_ahead_is_given_out_once() -> None:
    device, span = _Device(), _span(100)
    ring = Ring(device, 10, 2)
    ahead = Ahead(lambda: ring)
    ahead.follow(KEY, span, 100)

    with ahead.giving(KEY):
        for _ in range(2):  # what it is copied into may be changed: an attempt that fails is made again
            np.testing.assert_array_equal(_given(ahead, ring, span), span)
    assert device.moved == 100


@pytest.mark.parametrize("key", [(1, 2), (2, 1), (1, 0)])
def test_what_was_brought_for_another_transfer_is_not_given_out(key: tuple[int, int]) -> None:
    device, span = _Device(), _span(100)
    ring = Ring(device, 10, 2)
    ahead = Ahead(lambda: ring)
    ahead.follow(KEY, span, 100)
    span[:] = 7

    with ahead.giving(key):
        assert set(_given(ahead, ring, span)) == {7}
    with ahead.giving(KEY):
        assert set(_given(ahead, ring, span)) == {7}
    assert device.moved == 0


def test_nothing_is_given_out_but_while_a_call_is_done() -> None:
    device, span = _Device(), _span(100)
    ring = Ring(device, 10, 2)
    ahead = Ahead(lambda: ring)
    ahead.follow(KEY, span, 100)

    np.testing.assert_array_equal(_given(ahead, ring, span), span)
    assert device.moved == 0


def test_of_two_spans_the_one_that_began_first_is_followed_to_its_end() -> None:
    device, first, second = _Device(), _span(100), _span(101)
    ring = Ring(device, 10, 2)
    ahead = Ahead(lambda: ring)
    for mark in (20, 100):
        ahead.follow((1, 1), first, mark)
        ahead.follow((2, 1), second, mark)

    with ahead.giving((1, 1)):
        np.testing.assert_array_equal(_given(ahead, ring, first), first)
    assert device.moved == 100
    ahead.follow((2, 1), second, 101)
    with ahead.giving((2, 1)):
        np.testing.assert_array_equal(_given(ahead, ring, second), second)
    assert device.moved == 200


def test_a_span_without_a_whole_piece_is_in_nobodys_way() -> None:
    device, small, large = _Device(), _span(100), _span(101)
    ring = Ring(device, 50, 2)
    ahead = Ahead(lambda: ring)
    ahead.follow((1, 1), small, 49)
    ahead.follow((2, 1), large, 101)

    with ahead.giving((2, 1)):
        np.testing.assert_array_equal(_given(ahead, ring, large), large)
    assert device.moved == 100


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
def test_a_device_that_has_no_room_ahead_gets_all_when_it_is_needed(error: type[Exception]) -> None:
    class Small(_Device):
        def empty(self, nbytes: int) -> Any:
            made.append(nbytes)
            if len(made) > 3:
                raise error
            return super().empty(nbytes)

    made: list[int] = []
    device, span = Small(), _span(100)
    ring = Ring(device, 10, 2)
    ahead = Ahead(lambda: ring)
    ahead.follow(KEY, span, 70)
    ahead.follow(KEY, span, 100)
    assert len(made) == 4, "it is not tried again"

    with ahead.giving(KEY):
        np.testing.assert_array_equal(_given(ahead, ring, span), span)
    assert device.moved == 0


class _Event:
    def synchronize(self) -> None:
        """Everything here happens at once."""


class _Pointer:
    def __init__(self, memory: Any, offset: int = 0) -> None:
        self.memory, self.offset = memory, offset

    def __add__(self, more: int) -> _Pointer:
        return _Pointer(self.memory, self.offset + more)

    def copy_from_host_async(self, address: int, nbytes: int, stream: Any) -> None:
        import ctypes

        piece = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))
        self.memory[self.offset : self.offset + nbytes] = piece

    def copy_from_device_async(self, source: _Pointer, nbytes: int, stream: Any) -> None:
        self.memory[self.offset : self.offset + nbytes] = source.memory[source.offset : source.offset + nbytes]


class _Pinned(Exception):
    pass


def _cupy(*, refuses: bool = False) -> Any:
    """Return as much of CuPy as is used, over memory of numpy."""

    def empty(shape: Any, dtype: Any, order: str = "C") -> Any:
        if full:
            raise full.pop()
        memory = np.zeros(int(np.prod(shape)) * np.dtype(dtype).itemsize, np.uint8)
        made.append(order)
        return SimpleNamespace(data=_Pointer(memory), shape=shape, values=memory)

    def alloc(nbytes: int) -> Any:
        if refuses:
            raise _Pinned
        return bytearray(nbytes)

    made: list[str] = []
    full: list[Exception] = []
    stream = SimpleNamespace(record=_Event, synchronize=lambda: None)
    cuda = SimpleNamespace(
        Stream=lambda non_blocking: stream, alloc_pinned_memory=alloc, get_current_stream=lambda: stream,
        runtime=SimpleNamespace(CUDARuntimeError=_Pinned),
    )  # fmt: skip
    return SimpleNamespace(asarray=lambda array: ("asarray", array), empty=empty, cuda=cuda, made=made, full=full)


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_go_by_the_ring_and_small_ones_do_not(order: Any) -> None:
    cupy = _cupy()
    send = ToCupy(cupy)
    large = np.asarray(np.random.default_rng(0).normal(size=(LEAST_BYTES // 64 + 7, 8)), order=order)

    found = send(large)

    np.testing.assert_array_equal(found.values.view("f8").reshape(large.shape, order=order), large)
    assert cupy.made == [order]
    assert send(large[:3])[0] == "asarray"
    assert send(large[::2])[0] == "asarray", "what is not contiguous is CuPy's business"
    assert send([1, 2])[0] == "asarray"


def test_where_nothing_may_be_pinned_the_library_copies() -> None:
    cupy = _cupy(refuses=True)
    send = ToCupy(cupy)
    large = np.ones(LEAST_BYTES, np.uint8)
    send.ahead.follow(KEY, large, len(large))

    assert send(large)[0] == send(large)[0] == "asarray"


@pytest.mark.parametrize("is_full", [False, True])
def test_what_was_brought_ahead_leaves_when_the_device_has_no_room_for_the_array(is_full: bool) -> None:
    cupy = _cupy()
    send, span = ToCupy(cupy), _span(20 * 2**20)
    large = span[64 : 64 + 2**24].view("f8").reshape(-1, 8)
    send.ahead.follow(KEY, span, len(span))
    assert len(cupy.made) == 2, "whole pieces"
    span[: 2**20] = 0  # so one can tell where the array comes from

    with send.ahead.giving(KEY):
        cupy.full.extend([MemoryError()] if is_full else [])
        found = send(large).values

    assert bool(np.any(found[: 2**20 - 64])) is not is_full
    np.testing.assert_array_equal(found[2**20 :], large.reshape(-1).view(np.uint8)[2**20 :])
