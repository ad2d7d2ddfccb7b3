"""Values to nodes and arrays, and back: what a user passes arrives as it was, or is refused before it is sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sklearn_wsl_gpu.errors import RemoteProtocolError, Unsupported
from sklearn_wsl_gpu.pool import placing
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.state import Decoder, Encoder
from sklearn_wsl_gpu.state.encoding import SPARSE_PARTS, TYPES
from tests.state.travel import object_array, same, travel

DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    hnp.complex_number_dtypes(endianness="?", sizes=(64, 128)),
    hnp.datetime64_dtypes(endianness="?"),
    hnp.timedelta64_dtypes(endianness="?"),
    hnp.byte_string_dtypes(min_len=1, max_len=5),
    hnp.unicode_string_dtypes(endianness="?", min_len=1, max_len=5),
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
ARRAYS = st.builds(lambda dtype, shape: (dtype, shape), DTYPES, SHAPES).flatmap(lambda pair: hnp.arrays(*pair))
SCALARS = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, (1,))).map(lambda array: array[0])
HASHABLE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8), st.binary(max_size=8)
)
LEAVES = st.one_of(
    HASHABLE,
    st.floats(),
    st.complex_numbers(),
    SCALARS.filter(lambda scalar: scalar.nbytes > 0),
    ARRAYS,
    DTYPES.map(np.dtype),
    st.sampled_from(list(TYPES.values())),
    st.builds(slice, st.none() | st.integers(), st.none() | st.integers(), st.none() | st.integers()),
    st.sets(HASHABLE, max_size=4),
)

VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(HASHABLE, inner, max_size=4),
        st.lists(inner, max_size=4).map(object_array),
    ),
    max_leaves=10,
)


@settings(deadline=None, max_examples=500)
@given(VALUES)
def test_nested_values_arrive_as_they_were(value: Any) -> None:
    assert same(travel(value), value)


@settings(deadline=None, max_examples=200)
@given(SCALARS)
def test_numpy_scalars_stay_numpy_scalars(value: np.generic) -> None:
    assert same(travel(value), value)


def test_every_type_and_dtype_of_the_table_arrives_as_the_very_same() -> None:
    for kind in TYPES.values():
        assert travel(kind) is kind
    assert travel(np.dtype(">f4")) == np.dtype(">f4")


@st.composite
def sparse(draw: st.DrawFn) -> Any:
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    kind = draw(st.sampled_from(["matrix", "array"]))
    fmt = draw(st.sampled_from(sorted(SPARSE_PARTS)))
    dtype = draw(st.sampled_from(["f4", "f8", "i4", "i8", "u1", "?", "c16"]))
    count = draw(st.integers(0, 8))
    where = [draw(st.lists(st.integers(0, extent - 1), min_size=count, max_size=count)) for extent in shape]
    values = np.array(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)), dtype)
    # Duplicates, explicit zeros and unsorted indices are all of them legal.
    found = getattr(scipy.sparse, f"coo_{kind}")((values, where), shape=shape)
    found = found if fmt == "coo" else found.asformat(fmt)
    if fmt in ("csr", "csc", "bsr") and draw(st.booleans()):
        found.indices, found.indptr = found.indices.astype(np.int64), found.indptr.astype(np.int64)
    return found


@settings(deadline=None, max_examples=300)
@given(sparse())
def test_sparse_matrices_and_arrays_keep_their_class_and_every_part(value: Any) -> None:
    arrived = travel(value)

    assert type(arrived) is type(value)
    assert arrived.shape == value.shape
    for part in SPARSE_PARTS[value.format]:
        assert same(np.asarray(getattr(arrived, part)), np.asarray(getattr(value, part))), part
    assert same(arrived.toarray(), value.toarray())


def test_sparse_arrays_of_one_dimension_arrive_or_stay_local_with_a_reason() -> None:
    for value in (scipy.sparse.coo_array(np.array([0.0, 2])), scipy.sparse.csr_array(np.array([0.0, 2]))):
        try:
            Encoder().encode(value)
        except Unsupported:
            continue
        assert same(travel(value).toarray(), value.toarray())


@settings(deadline=None, max_examples=200)
@given(ARRAYS, st.data())
def test_masked_arrays_keep_data_mask_and_fill_value(data: Array, draw: st.DataObject) -> None:
    mask = draw.draw(hnp.arrays(bool, data.shape) | st.just(np.ma.nomask))
    value = np.ma.MaskedArray(data, mask)
    if draw.draw(st.booleans()) and data.dtype.kind in "iuf":
        value.fill_value = 3

    arrived = travel(value)

    assert type(arrived) is np.ma.MaskedArray
    assert same(arrived.data, value.data)
    assert same(np.ma.getmaskarray(arrived), np.ma.getmaskarray(value))
    assert same(np.asarray(arrived.fill_value), np.asarray(value.fill_value))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.sampled_from(["f8", "i4", "U3"]), st.booleans())
def test_arrays_of_arrays_arrive_with_their_lengths(lengths: list[int], dtype: str, twice: bool) -> None:
    items = [np.arange(length).astype(dtype) for length in lengths * (2 if twice else 1)]
    value: Array = np.empty(len(items), dtype=object)
    value[:] = items
    value = value.reshape((2, -1)) if twice else value

    assert same(travel(value), value)


def test_arrays_of_arrays_of_different_kinds_arrive_too() -> None:
    assert same(
        travel(object_array([np.ones(2), np.ones(3, "i4"), "x"])), object_array([np.ones(2), np.ones(3, "i4"), "x"])
    )


@settings(deadline=None, max_examples=200)
@given(ARRAYS, st.lists(st.sampled_from([1, 2, 3, -1, -2]), min_size=3, max_size=3), st.booleans(), st.booleans())
def test_an_array_keeps_its_strides_where_they_are_asked_for(
    value: Array, steps: list[int], turned: bool, locked: bool
) -> None:
    value = value.T if turned else value
    value = value[(*(slice(None, None, step) for step in steps[: value.ndim]), ...)]
    value.flags.writeable = not locked

    arrived = travel(value, strided=True)

    assert same(arrived, value)
    if value.size and value.itemsize:
        assert [one for one, extent in zip(arrived.strides, value.shape, strict=True) if extent > 1] == [
            one for one, extent in zip(value.strides, value.shape, strict=True) if extent > 1
        ]
    assert arrived.flags.writeable == value.flags.writeable or arrived.flags.writeable
    assert same(travel(value), value)


@pytest.mark.parametrize(
    ("value", "is_kept"),
    [
        (np.zeros((1000, 100))[::-1], True),
        (np.zeros((50, 20))[:, ::2], True),
        (np.zeros((1000, 100))[:, ::2], False),
        (np.lib.stride_tricks.sliding_window_view(np.zeros(100), 5), False),
    ],
    ids=["turned round", "small gaps", "large gaps", "windows"],
)
def test_gaps_of_some_size_and_what_overlaps_do_not_travel(value: Array, is_kept: bool) -> None:
    assert (travel(value, strided=True).strides == value.strides) is is_kept


def test_a_strided_array_that_is_met_twice_is_one() -> None:
    value = np.arange(20.0)[::2].reshape(2, 5)[:, ::-1]

    one, other = travel([value, value], strided=True)

    assert np.shares_memory(one, other)


@pytest.mark.parametrize(
    ("shape", "strides", "first"),
    [([5], [8], 0), ([4], [8], 8), ([4], [-8], 16), ([9], [0], 0), ([2, 2], [16, 16], 0), ([2**62, 4], [0, 0], 0)],
)
def test_a_strided_array_that_leaves_its_memory_is_refused(shape: list[int], strides: list[int], first: int) -> None:
    with pytest.raises(RemoteProtocolError):
        Decoder([np.zeros(4)]).decode(["v", ["a", 0], shape, strides, first])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("step", [1, 2])
def test_an_object_array_keeps_its_order_in_memory(order: Any, step: int) -> None:
    # What scikit-learn makes of it keeps the order, too, and the last bit of a sum depends on that.
    value: Array = np.empty((6, 3), dtype=object, order=order)
    value[:] = np.arange(18).reshape(6, 3).astype(str)
    value = value[::step]

    arrived = travel(value)

    assert same(arrived, value)
    assert placing.memory_order(arrived) == order


def test_an_object_array_may_hold_an_array_without_dimensions() -> None:
    value: Array = np.empty(2, dtype=object)
    value[0], value[1] = np.array(5.0), "x"

    assert same(travel(value), value)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(0, 1000), st.booleans())
def test_a_random_generator_goes_on_where_it_was(seed: int, drawn: int, half: bool) -> None:
    value = np.random.RandomState(seed)
    value.random_sample(drawn)
    if half:
        value.normal()  # the second normal number waits inside

    arrived = travel(value)

    assert same(arrived.normal(size=9), value.normal(size=9))
    assert same(arrived.randint(0, 2**31, 700), value.randint(0, 2**31, 700))


def test_a_random_generator_that_occurs_twice_stays_one() -> None:
    one, other = np.random.RandomState(0), np.random.RandomState(0)

    first, second, third = travel([one, other, {"again": one}])

    assert third["again"] is first
    assert second is not first


def test_a_random_generator_that_the_other_side_has_is_named_and_not_sent() -> None:
    known = np.random.RandomState(3)

    node = Encoder(generators=[known]).encode([known])

    assert Decoder((), generators=[known]).decode(node)[0] is known


def test_an_array_that_occurs_twice_arrives_once() -> None:
    for size in (3, 4000):
        array = np.arange(float(size))
        encoder = Encoder()
        node = encoder.encode([array, {"again": array}, array.copy()])
        first, second, copy = Decoder(encoder.arrays).decode(node)

        assert len(encoder.arrays) == 2
        assert second["again"] is first
        assert copy is not first


def test_another_view_of_the_same_memory_is_another_array() -> None:
    array = np.arange(4000.0)
    whole, again, half, column, bits = travel([array, array[:], array[::2], array.reshape(-1, 1), array.view("i8")])

    assert again is whole
    for arrived, sent in [(half, array[::2]), (column, array.reshape(-1, 1)), (bits, array.view("i8"))]:
        assert same(arrived, sent)


def test_what_the_other_side_has_is_named_and_not_sent() -> None:
    X, own = np.arange(6.0).reshape(2, 3), np.ones(3)
    encoder = Encoder(inputs=[None, X])
    encoder.know_attributes({"mean_": own, "n": 3})

    node = encoder.encode((X, own, X[0]))

    assert len(encoder.arrays) == 1
    decoder = Decoder(encoder.arrays, inputs=[None, X])
    decoder.own = lambda: {"mean_": own, "n": 3}
    arrived = decoder.decode(node)
    assert arrived[0] is X
    assert arrived[1] is own
