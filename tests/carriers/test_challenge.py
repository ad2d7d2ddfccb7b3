"""The coherence challenge, without a file: whatever one side does not see at once is found."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sklearn_wsl_gpu.carriers import challenge
from sklearn_wsl_gpu.carriers.base import BACK, THERE
from sklearn_wsl_gpu.pool.layout import DATA_OFFSET, PAGE

ENDS = st.integers(2, 2**22).map(lambda pages: DATA_OFFSET + pages * PAGE)


class Memories:
    """What each side sees, by place; from one to the other things are carried but in one round, at one place."""

    def __init__(self, places: Sequence[int], fault: tuple[int, int] | None = None) -> None:
        self.here = dict.fromkeys(places, bytes(challenge.NONCE_BYTES))
        self.other = dict(self.here)
        self._places = list(places)
        self._fault = fault
        self._round = 0
        self._count = 0

    def _carry(self, source: dict[int, bytes], target: dict[int, bytes]) -> None:
        for index, place in enumerate(self._places):
            if (self._round, index) != self._fault:
                target[place] = source[place]
        self._round += 1

    def store(self, place: int, nonce: bytes) -> None:
        self.here[place] = nonce

    def load(self, place: int) -> bytes:
        return self.here[place]

    def probe(self, places: Sequence[int], write: bool) -> bytes:
        if write:
            for place in places:
                self._count += 1
                self.other[place] = self._count.to_bytes(challenge.NONCE_BYTES, "big")
            told = challenge.digest([self.other[place] for place in places])
            self._carry(self.other, self.here)
            return told
        self._carry(self.here, self.other)
        return challenge.digest([self.other[place] for place in places])


def _run(places: Sequence[int], memories: Memories) -> int | None:
    return challenge.run(places, memories.store, memories.load, memories.probe)


@given(ENDS)
def test_the_places_lie_in_the_slots_apart_from_each_other_and_across_a_border_of_pages(end: int) -> None:
    places = challenge.places(DATA_OFFSET, end)

    assert places[0] == DATA_OFFSET
    assert places[-1] + challenge.NONCE_BYTES <= end
    assert all(one + challenge.NONCE_BYTES <= other for one, other in pairwise(places))
    assert any(place // PAGE != (place + challenge.NONCE_BYTES - 1) // PAGE for place in places)


@given(ENDS)
def test_coherent_memory_passes(end: int) -> None:
    places = challenge.places(DATA_OFFSET, end)

    assert _run(places, Memories(places)) is None


@given(ENDS, st.data())
def test_one_place_that_is_stale_in_one_round_is_found_with_its_direction(end: int, data: st.DataObject) -> None:
    places = challenge.places(DATA_OFFSET, end)
    number = data.draw(st.integers(0, len(challenge.ROUNDS) - 1))
    fault = (number, data.draw(st.integers(0, len(places) - 1)))

    assert _run(places, Memories(places, fault)) == challenge.ROUNDS[number]


def test_each_direction_is_tried_twice_in_a_row_and_again_after_the_other() -> None:
    rounds = challenge.ROUNDS

    assert rounds[:4] == (THERE, THERE, BACK, BACK)
    assert rounds[4:] == (THERE, BACK, THERE)
    assert 0 < challenge.NONCE_BYTES * 8 <= 256


@given(st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=6), st.data())
def test_a_digest_tells_of_every_byte_and_of_the_order(parts: list[bytes], data: st.DataObject) -> None:
    number, at = data.draw(st.integers(0, len(parts) - 1)), data.draw(st.integers(0, 15))
    changed = bytearray(parts[number])
    changed[at] ^= 1
    others = [*parts[:number], bytes(changed), *parts[number + 1 :]]

    assert challenge.digest(parts) != challenge.digest(others)
    assert challenge.digest(parts) == challenge.digest(list(map(memoryview, parts)))
    if parts != parts[::-1]:
        assert challenge.digest(parts) != challenge.digest(parts[::-1])
