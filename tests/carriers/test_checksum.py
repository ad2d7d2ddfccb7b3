"""The checksum of a stream: whatever is changed on the way is noticed, however the bytes are cut into parts."""

from __future__ import annotations

import itertools
import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_wsl_gpu.carriers.checksum import BLOCK_BYTES, CHECKSUM_BYTES, Checksum

SIZES = st.one_of(st.integers(0, 100), st.integers(BLOCK_BYTES - 20, BLOCK_BYTES + 20), st.integers(0, 3 * BLOCK_BYTES))


def _bytes(nbytes: int, seed: int) -> bytearray:
    return bytearray(np.random.default_rng(seed).bytes(nbytes))


def _digest(data: bytearray, cuts: list[int] | None = None, is_thorough: bool = True) -> bytes:
    checksum, places = Checksum(is_thorough), [0, *sorted(cuts or []), len(data)]
    for begin, end in itertools.pairwise(places):
        checksum.add(memoryview(data)[begin:end])
    return checksum.digest()


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(0, 2**32), st.booleans(), st.data())
def test_it_does_not_depend_on_how_the_bytes_are_cut(
    nbytes: int, seed: int, is_thorough: bool, data: st.DataObject
) -> None:
    whole = _bytes(nbytes, seed)
    cuts = data.draw(st.lists(st.integers(0, nbytes), max_size=12))

    assert _digest(whole, cuts, is_thorough) == _digest(whole, None, is_thorough)
    assert len(_digest(whole, cuts, is_thorough)) == CHECKSUM_BYTES


@settings(deadline=None, max_examples=60)
@given(SIZES.filter(bool), st.integers(0, 2**32))
def test_any_bit_that_is_changed_is_noticed(nbytes: int, seed: int) -> None:
    whole = _bytes(nbytes, seed)
    before = _digest(whole)

    for place in {0, nbytes - 1, nbytes // 2, *random.Random(seed).sample(range(nbytes), min(nbytes, 20))}:
        for bit in range(8):
            whole[place] ^= 1 << bit
            assert _digest(whole) != before
            whole[place] ^= 1 << bit


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 4096))
def test_what_is_lost_zeroed_moved_or_sent_twice_is_noticed(seed: int, pages: int) -> None:
    whole = _bytes(4 * BLOCK_BYTES + 100, seed)
    before, nbytes = _digest(whole), min(pages * 64, BLOCK_BYTES)
    first, second = whole[:nbytes], whole[BLOCK_BYTES : BLOCK_BYTES + nbytes]

    assert _digest(whole[nbytes:]) != before
    assert _digest(first + whole) != before
    assert _digest(bytearray(nbytes) + whole[nbytes:]) != before
    assert _digest(second + whole[nbytes:BLOCK_BYTES] + first + whole[BLOCK_BYTES + nbytes :]) != before


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_what_is_lost_zeroed_moved_or_sent_twice_by_pages_is_noticed_by_a_word_in_each(seed: int, pages: int) -> None:
    whole = _bytes(4 * BLOCK_BYTES + 100, seed)
    nbytes = pages * 4096
    second = whole[BLOCK_BYTES : BLOCK_BYTES + nbytes]

    others = [
        whole[nbytes:], whole[:nbytes] + whole, whole[: nbytes - 3] + whole[nbytes:] + whole[:3],
        whole[:nbytes] + bytearray(nbytes) + whole[2 * nbytes :], second + whole[nbytes:],
    ]  # fmt: skip
    digests = {_digest(other, None, False) for other in [whole, *others]}
    assert len(digests) == 1 + len(others)


def test_zeros_of_another_number_are_other_bytes() -> None:
    assert len({_digest(bytearray(nbytes)) for nbytes in (0, 1, 8, 9, BLOCK_BYTES, BLOCK_BYTES + 1)}) == 6
