"""Arrays into a span and out of it: every dtype and layout arrives as it was, at an address that is as aligned."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sklearn_wsl_gpu.arrays import MAX_EXTENT, check_array_ref, is_carried_dtype, itemsize
from sklearn_wsl_gpu.errors import RemoteProtocolError
from sklearn_wsl_gpu.pool import placing
from sklearn_wsl_gpu.pool.layout import PAGE, SPAN_HEADER_BYTES
from sklearn_wsl_gpu.pool.placing import Array

LARGE = 64 * 1024
ENDIAN = st.sampled_from("<>")
DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    hnp.complex_number_dtypes(endianness="?", sizes=(64, 128)),
    hnp.datetime64_dtypes(endianness="?"),
    hnp.timedelta64_dtypes(endianness="?"),
    hnp.byte_string_dtypes(min_len=1, max_len=9),
    hnp.unicode_string_dtypes(endianness="?", min_len=1, max_len=9),
    st.builds("{}{}8[{}{}]".format, ENDIAN, st.sampled_from("mM"), st.integers(1, 99), st.sampled_from(["D", "as"])),
).map(np.dtype)


def _reversed(array: Array) -> Array:
    return array[(*(slice(None, None, -1) for _ in array.shape), ...)]


def _strided(array: Array) -> Array:
    return np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array


def _swapped(array: Array) -> Array:
    return array.swapaxes(0, -1) if array.ndim else array


def _broadcast(array: Array) -> Array:
    return np.broadcast_to(array, (3, *array.shape))


LAYOUTS: list[Callable[[Array], Array]] = [
    np.ascontiguousarray, np.asfortranarray, np.copy, _reversed, _strided, _swapped, _broadcast,
]  # fmt: skip


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    array = draw(st.sampled_from(LAYOUTS))(draw(hnp.arrays(draw(DTYPES), shape)))
    shift = draw(st.integers(0, 3))
    if shift and array.ndim == 1:
        array = array[shift:]  # another phase in its cache line
    if draw(st.booleans()):
        array = array.view()
        array.flags.writeable = False
    return array


def _travel(given_arrays: list[Array], start: int = PAGE) -> tuple[list[Array], list[Any], int]:
    refs, nbytes = placing.plan(given_arrays)
    memory = mmap.mmap(-1, start + nbytes + PAGE)
    memory[:] = b"\xa5" * len(memory)
    placing.write(memory, start, refs, given_arrays)
    assert memory[: start + SPAN_HEADER_BYTES] == b"\xa5" * (start + SPAN_HEADER_BYTES), "the header is not ours"
    assert memory[start + nbytes :] == b"\xa5" * PAGE, "nothing is written beyond the planned size"
    return [placing.view(memory, start, ref) for ref in refs], refs, nbytes


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


@settings(deadline=None, max_examples=300)
@given(st.lists(arrays(), max_size=5))
def test_arrays_of_every_dtype_and_layout_arrive_as_they_were(given_arrays: list[Array]) -> None:
    arrived, refs, _ = _travel(given_arrays)

    for array, ref, copy in zip(given_arrays, refs, arrived, strict=True):
        assert copy.dtype == array.dtype
        assert copy.dtype.str == array.dtype.str
        assert copy.shape == array.shape
        assert copy.tobytes() == array.tobytes()
        assert ref.writeable == array.flags.writeable
        assert is_carried_dtype(ref.dtype)
        assert itemsize(ref.dtype) == array.dtype.itemsize


@settings(deadline=None, max_examples=200)
@given(st.lists(arrays(), max_size=5))
def test_contiguous_arrays_keep_their_memory_order(given_arrays: list[Array]) -> None:
    arrived, _, _ = _travel(given_arrays)

    for array, copy in zip(given_arrays, arrived, strict=True):
        assert not array.flags.c_contiguous or copy.flags.c_contiguous
        assert not array.flags.f_contiguous or copy.flags.f_contiguous
        assert copy.flags.c_contiguous or copy.flags.f_contiguous


def test_windows_that_overlap_arrive_in_the_order_in_which_numpy_copies_them() -> None:
    windows = np.lib.stride_tricks.sliding_window_view(np.arange(30.0), 5)
    [arrived], _, _ = _travel([windows])

    assert arrived.strides == windows.copy(order="K").strides
    np.testing.assert_array_equal(arrived, windows)


@settings(deadline=None, max_examples=200)
@given(st.lists(arrays(), max_size=5))
def test_small_arrays_keep_their_address_modulo_a_cache_line(given_arrays: list[Array]) -> None:
    arrived, _, _ = _travel(given_arrays)

    for array, copy in zip(given_arrays, arrived, strict=True):
        if array.nbytes:
            assert _address(copy) % 64 == _address(array) % 64


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 2 * PAGE // 8), min_size=1, max_size=4), st.integers(LARGE // 8, LARGE // 4))
def test_large_arrays_keep_their_address_modulo_a_page(shifts: list[int], size: int) -> None:
    base = np.arange(size + 2 * PAGE, dtype=np.float64)
    given_arrays = [base[shift : shift + size] for shift in shifts]

    arrived, _, _ = _travel(given_arrays)

    for array, copy in zip(given_arrays, arrived, strict=True):
        assert _address(copy) % PAGE == _address(array) % PAGE
        np.testing.assert_array_equal(copy, array)


@settings(deadline=None, max_examples=200)
@given(st.lists(arrays(), min_size=1, max_size=5))
def test_a_planned_ref_is_accepted_by_the_other_side_and_not_if_the_span_is_shorter(given_arrays: list[Array]) -> None:
    _, refs, nbytes = _travel(given_arrays)

    for ref, array in zip(refs, given_arrays, strict=True):
        raw = [ref.offset, ref.dtype, list(ref.shape), ref.order, ref.writeable]
        assert check_array_ref(raw, nbytes) == (ref, array.nbytes)
        with pytest.raises(RemoteProtocolError):
            check_array_ref(raw, ref.offset + array.nbytes - 1)


@settings(deadline=None, max_examples=300)
@given(
    st.integers(-2, 9000),
    st.one_of(
        st.sampled_from(["<f8", "|b1", "|S0", "|S999999999", "<U0", "<U2", "<U999999999", "<m8[0s]", "<M8[7ps]"]),
        st.from_regex(r"[|<>][a-zA-Z][0-9]{1,3}(\[[0-9]*[a-zA-Z]*\])?", fullmatch=True),
        st.text(max_size=6),
    ),
    st.lists(st.sampled_from([0, 1, 2, 3, 100, 2**31, 2**48, 2**48 + 1, -1]), max_size=6),
    st.sampled_from(["C", "F", "K", ""]),
)
def test_every_ref_that_is_accepted_can_be_viewed_and_lies_in_its_span(
    offset: int, dtype: str, shape: list[int], order: str
) -> None:
    memory, limit = mmap.mmap(-1, 3 * PAGE), 2 * PAGE
    try:
        ref, nbytes = check_array_ref([offset, dtype, shape, order, True], limit)
    except RemoteProtocolError:
        return

    array = placing.view(memory, 0, ref)

    assert array.nbytes == nbytes
    assert list(array.shape) == shape
    assert 0 <= offset <= offset + nbytes <= limit


@pytest.mark.parametrize("dtype", ["<U999999999", "<m8[0s]"])
def test_a_ref_whose_dtype_numpy_cannot_use_is_refused(dtype: str) -> None:
    with pytest.raises(RemoteProtocolError):
        check_array_ref([64, dtype, [0], "C", True], PAGE)


def test_a_ref_without_elements_but_with_extents_that_numpy_does_not_take_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        check_array_ref([64, "<f8", [0, MAX_EXTENT, MAX_EXTENT], "C", True], PAGE)


GOOD: list[Any] = [64, "<f8", [2, 3], "C", True]
#: What each field of an array ref may not be.
BAD: tuple[list[Any], ...] = (
    [None, True, 1.0, "64", -1, 2**70],
    [None, 8, b"<f8", "f8", "|O", "|V8", "<f16", "<c32", "=f8", "float64", "<f8 ", "|b2", ["<f8"], "<f8,<f8"],
    [None, 6, "23", (2, 3), [2, 3.0], [2, True], [-1, 3], [2**48 + 1, 0], [1] * 33, [2**40, 2**40]],
    [None, 0, "K", "A", b"C", ["C"]],
    [None, 0, 1, "yes"],
)


def test_a_malformed_array_ref_is_refused() -> None:
    assert check_array_ref(GOOD, PAGE)[1] == 48
    for raw in (None, 1, "x", b"", (), tuple(GOOD), GOOD[:4], [*GOOD, 0]):
        with pytest.raises(RemoteProtocolError):
            check_array_ref(raw, PAGE)
    for field, bads in enumerate(BAD):
        for bad in bads:
            with pytest.raises(RemoteProtocolError):
                check_array_ref([*GOOD[:field], bad, *GOOD[field + 1 :]], PAGE)
