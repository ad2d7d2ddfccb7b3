"""Data go to a device in pieces, each from memory that is not written to before the device has read it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsl_worker.engines.staging import LEAST_BYTES, Ring, ToCupy


class _Device:
    """A device that reads a piece at the last moment that it may: when it is waited for."""

    def __init__(self) -> None:
        self.under_way: dict[int, tuple[Any, Any, int]] = {}
        self.most = 0
        self.waits: list[int] = []

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


class _Pinned(Exception):
    pass


def _cupy(*, refuses: bool = False) -> Any:
    """Return as much of CuPy as is used, over memory of numpy."""

    def empty(shape: Any, dtype: Any, order: str) -> Any:
        memory = np.zeros(int(np.prod(shape)) * np.dtype(dtype).itemsize, np.uint8)
        made.append(order)
        return SimpleNamespace(data=_Pointer(memory), shape=shape, values=memory)

    def alloc(nbytes: int) -> Any:
        if refuses:
            raise _Pinned
        return bytearray(nbytes)

    made: list[str] = []
    stream = SimpleNamespace(record=_Event, synchronize=lambda: None)
    cuda = SimpleNamespace(
        Stream=lambda non_blocking: stream, alloc_pinned_memory=alloc, get_current_stream=lambda: stream,
        runtime=SimpleNamespace(CUDARuntimeError=_Pinned),
    )  # fmt: skip
    return SimpleNamespace(asarray=lambda array: ("asarray", array), empty=empty, cuda=cuda, made=made)


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

    assert send(large)[0] == send(large)[0] == "asarray"
