"""What a pool tells whoever looks: a map of its slots, and counters; whatever lies in their place is read as such."""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_wsl_gpu.pool import counters, ledger
from sklearn_wsl_gpu.pool.counters import Counters
from sklearn_wsl_gpu.pool.layout import (
    COUNTERS_BYTES,
    COUNTERS_OFFSET,
    DATA_OFFSET,
    LEDGER_BYTES,
    LEDGER_OFFSET,
    PAGE,
    Geometry,
)
from sklearn_wsl_gpu.pool.ledger import INPUT, KEPT, OUTPUT, Ledger, Slot

#: As the module writes it: start, size, use, owner, began.
RECORD = struct.Struct("<QQB55sd")
RECORDS = LEDGER_BYTES // RECORD.size
SLOT = 4 * PAGE
GEOMETRY = Geometry(SLOT, 2, 2, 1)

WORDS = st.one_of(st.integers(0, 2**64 - 1), st.integers(DATA_OFFSET - 1, GEOMETRY.file_bytes + 1))
RECORDS_OF_ANYTHING = st.lists(
    st.one_of(
        st.builds(RECORD.pack, WORDS, WORDS, st.integers(0, 255), st.binary(max_size=55), st.floats(width=64)),
        st.builds(
            RECORD.pack,
            st.integers(0, 20).map(lambda page: DATA_OFFSET + page * PAGE),
            st.integers(1, 20).map(lambda pages: pages * PAGE),
            st.integers(1, 3),
            st.binary(max_size=55),
            st.floats(0, 2e9),
        ),
        st.binary(min_size=RECORD.size, max_size=RECORD.size),
    ),
    max_size=12,
)


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, DATA_OFFSET) as made:
        yield made


def _slots(memory: mmap.mmap, geometry: Geometry = GEOMETRY) -> list[Slot]:
    return ledger.slots(memory[LEDGER_OFFSET : LEDGER_OFFSET + LEDGER_BYTES], geometry)


def _counters(memory: mmap.mmap) -> list[Any]:
    return counters.read(memory[COUNTERS_OFFSET : COUNTERS_OFFSET + COUNTERS_BYTES])


def _record(start: int, size: int, use: int = INPUT, owner: bytes = b"", began: float = 1.0) -> bytes:
    return RECORD.pack(DATA_OFFSET + start, size, use, owner, began)


def test_a_slot_shows_what_its_largest_leases_are_for_and_how_long_its_oldest_has_lasted(memory: mmap.mmap) -> None:
    noted = Ledger(memory, Counters(memory))
    noted.note(DATA_OFFSET, PAGE, INPUT, "KMeans.fit")
    noted.note(DATA_OFFSET + PAGE, SLOT, INPUT, "PCA.fit")
    noted.note(DATA_OFFSET + 4 * SLOT, 2 * PAGE, OUTPUT, "PCA.transform")
    noted.keep(DATA_OFFSET + 4 * SLOT, PAGE)

    found = _slots(memory)

    assert [(slot.kind, slot.state, slot.owner, slot.used // PAGE) for slot in found] == [
        ("input", "input", "PCA.fit", 4),
        ("input", "input", "PCA.fit", 1),
        ("scratch", "free", "", 0),
        ("output", "free", "", 0),
        ("output", "kept", "PCA.transform", 1),
    ]
    assert [slot.number for slot in found] == [0, 1, 2, 3, 4]
    assert [slot.age > 0 for slot in found] == [True, True, False, False, True]

    for start in (0, PAGE, 4 * SLOT):
        noted.strike(DATA_OFFSET + start)
    assert {(slot.state, slot.owner, slot.used, slot.age) for slot in _slots(memory)} == {("free", "", 0, 0.0)}


def test_keeping_a_result_changes_neither_whose_it_is_nor_its_age(memory: mmap.mmap) -> None:
    noted = Ledger(memory, Counters(memory))
    noted.note(DATA_OFFSET, 2 * PAGE, OUTPUT, "PCA.transform")
    before = RECORD.unpack_from(memory, LEDGER_OFFSET)
    noted.keep(DATA_OFFSET, PAGE)

    assert RECORD.unpack_from(memory, LEDGER_OFFSET) == (DATA_OFFSET, PAGE, KEPT, *before[3:])


LEASES = st.lists(
    st.tuples(st.integers(0, 19), st.sampled_from(["note", "keep", "strike"]), st.sampled_from([INPUT, OUTPUT])),
    max_size=60,
)


@settings(deadline=None)
@given(LEASES)
def test_the_map_and_the_counters_tell_what_was_leased(steps: list[tuple[int, str, int]]) -> None:
    held: dict[int, int] = {}
    begun, peak = [], 0
    with mmap.mmap(-1, DATA_OFFSET) as memory:
        noted = Ledger(memory, Counters(memory))
        for page, what, use in steps:
            start = DATA_OFFSET + page * PAGE
            if what == "note" and page not in held and page - 1 not in [one for one in held if held[one] == 2]:
                held[page] = 1 if page + 1 in held or page == 19 else 2
                begun.append(held[page] * PAGE)
                noted.note(start, held[page] * PAGE, use, f"call {page}")
                peak = max(peak, sum(held.values()) * PAGE)
            elif what == "keep" and page in held:
                held[page] = 1
                noted.keep(start, PAGE)
            elif what == "strike" and page in held:
                del held[page]
                noted.strike(start)
        found, told = _slots(memory), _counters(memory)

    pages = {page + more for page, count in held.items() for more in range(count)}
    assert [slot.used for slot in found] == [
        sum(PAGE for page in pages if page * PAGE // SLOT == number) for number in range(5)
    ]
    assert {slot.owner for slot in found if slot.used} <= {f"call {page}" for page in held}
    assert told[:3] == [len(begun), sum(begun), peak]


def test_leases_beyond_the_records_are_counted_and_end_like_others(memory: mmap.mmap) -> None:
    geometry = Geometry(PAGE, 1, 1, 2 * RECORDS)
    counted = Counters(memory)
    noted = Ledger(memory, counted)
    for page in range(RECORDS + 2):
        noted.note(DATA_OFFSET + page * PAGE, PAGE, INPUT, "KMeans.fit")
    assert sum(slot.state == "input" for slot in _slots(memory, geometry)) == RECORDS
    noted.keep(DATA_OFFSET + RECORDS * PAGE, PAGE)
    for page in reversed(range(RECORDS + 2)):
        noted.strike(DATA_OFFSET + page * PAGE)

    assert (counted.leases, counted.used_bytes) == (RECORDS + 2, 0)
    assert counted.peak_bytes == (RECORDS + 2) * PAGE
    assert not any(slot.used for slot in _slots(memory, geometry))


@pytest.mark.parametrize(
    ("owner", "told"),
    [
        ("KMeans.fit", "KMeans.fit"),
        ("", ""),
        ("Größe.fit", "Gr??e.fit"),
        ("\x1b[2J\nfit\x7f", "[2Jfit"),
        ("x" * 60, "x" * 55),
        ("QuadraticDiscriminantAnalysis.predict_log_proba", "QuadraticDiscriminantAnalysis.predict_log_proba"),
    ],
)
def test_an_owner_is_told_in_printable_ascii_and_cut_where_there_is_no_more_room(
    memory: mmap.mmap, owner: str, told: str
) -> None:
    Ledger(memory, Counters(memory)).note(DATA_OFFSET, PAGE, INPUT, owner)

    assert _slots(memory)[0].owner == told


@settings(deadline=None, max_examples=300)
@given(RECORDS_OF_ANYTHING, st.integers(0, 12 * RECORD.size), st.integers(0, 6))
def test_whatever_lies_in_the_place_of_a_ledger_is_a_map_of_the_slots(
    records: list[bytes], cut: int, limit: int
) -> None:
    raw = b"".join(records)
    for part in (raw, raw[:cut], raw[:cut].ljust(LEDGER_BYTES, b"\xff"), raw.ljust(LEDGER_BYTES, b"\0")):
        found = ledger.slots(part, GEOMETRY, 3)

        assert [(slot.segment, slot.number, slot.size) for slot in found] == [(3, number, SLOT) for number in range(5)]
        assert [slot.kind for slot in found] == ["input", "input", "scratch", "output", "output"]
        for slot in found:
            assert 0 <= slot.used <= SLOT
            assert (slot.state == "free") == (slot.used == 0)
            assert slot.age >= 0
            assert slot.used or not slot.owner
            assert all(" " <= character <= "~" for character in slot.owner)
            assert len(slot.owner) <= 55
            json.dumps(asdict(slot), allow_nan=False)
        shown = ledger.slots(part, GEOMETRY, 3, limit)
        assert [asdict(slot) | {"age": 0} for slot in shown] == [asdict(slot) | {"age": 0} for slot in found[:limit]]


@pytest.mark.parametrize("began", [float("nan"), float("inf"), -float("inf"), -1.0])
def test_a_lease_that_began_at_no_time_counts_as_none(began: float) -> None:
    raw = _record(0, PAGE, began=began) + _record(SLOT, PAGE)

    assert [slot.state for slot in ledger.slots(raw, GEOMETRY)] == ["free", "input", "free", "free", "free"]


def test_bytes_that_two_records_claim_are_counted_once() -> None:
    raw = _record(PAGE, SLOT, KEPT, b"late") + _record(0, 2 * PAGE, INPUT, b"first") + _record(2 * PAGE, PAGE)

    assert [(slot.owner, slot.used) for slot in ledger.slots(raw, GEOMETRY)[:2]] == [("first", 3 * PAGE), ("", 0)]


def test_a_ledger_full_of_leases_on_everything_costs_no_more_than_one_of_them() -> None:
    geometry = Geometry(PAGE, 1, 1, 2**17)
    raw = _record(0, geometry.pool_bytes, INPUT, b"greedy") * RECORDS

    assert {(slot.used, slot.owner) for slot in ledger.slots(raw, geometry)} == {(PAGE, "greedy")}


def test_of_more_slots_than_any_memory_has_only_so_many_are_made_as_are_asked_for() -> None:
    geometry = Geometry(PAGE, 2**32 - 1, 2**32 - 1, 2**32 - 1)

    assert len(ledger.slots(_record(0, geometry.pool_bytes) * RECORDS, geometry, 0, 10)) == 10


def test_counters_are_read_as_they_were_written(memory: mmap.mmap) -> None:
    counted = Counters(memory)
    assert _counters(memory) == counted.as_list()
    for size in (5, 3):
        counted.lease(size)
    counted.give_back(5)
    counted.lease(4)
    counted.come([1, 0, 2])
    counted.go([1, 0, 1], 0.02)
    counted.come([1, 1, 1])

    assert _counters(memory) == counted.as_list()
    told = counters.describe(_counters(memory))
    assert (told["leases"], told["leased_bytes"], told["peak_bytes"]) == (3, 12, 8)
    assert told["waiting"] == {"high": 1, "normal": 1, "low": 1}
    assert (told["waits"]["total"], told["waits"]["seconds"]) == (1, 0.02)
    assert dict(zip(told["waits"]["bounds"], told["waits"]["counts"], strict=False))[0.03] == 1


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=COUNTERS_BYTES), st.just(b"\xff" * 2 * COUNTERS_BYTES)))
def test_whatever_lies_in_the_place_of_counters_is_some(raw: bytes) -> None:
    told = counters.describe(counters.read(raw))

    json.dumps(told, allow_nan=False)
    assert told["waits"]["seconds"] >= 0
    assert len(told["waits"]["counts"]) == len(told["waits"]["bounds"]) + 1


def test_a_wait_that_ends_with_its_pool_is_counted_all_the_same(memory: mmap.mmap) -> None:
    counted = Counters(memory)
    memory.close()
    counted.go([0, 0, 0], 1.0)

    assert counted.waits.seconds == 1.0
