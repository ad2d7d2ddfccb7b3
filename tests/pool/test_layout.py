"""The geometry of a segment and its headers: what is torn, stale or foreign is refused, always."""

from __future__ import annotations

import os
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_wsl_gpu.errors import ConfigurationError, StaleReference
from sklearn_wsl_gpu.pool.layout import (
    CLIENT,
    DATA_OFFSET,
    LAYOUT_VERSION,
    NOTE_BYTES,
    NOTE_OFFSET,
    PAGE,
    SPAN_HEADER_BYTES,
    WORKER,
    Geometry,
    check_span_header,
    pack_note,
    pack_span_header,
    pack_superblock,
    round_up,
    unpack_note,
    unpack_superblock,
)
from sklearn_wsl_gpu.pool.segment import Segment

ESCAPE = "\x1b[2J"
UINT64 = st.integers(0, 2**64 - 1)
GEOMETRIES = st.builds(
    Geometry,
    st.integers(1, 2**30).map(lambda pages: pages * PAGE),
    inputs=st.integers(1, 1000),
    outputs=st.integers(1, 1000),
    scratch=st.integers(0, 1000),
)


@settings(deadline=None)
@given(GEOMETRIES)
def test_input_scratch_and_output_slots_tile_a_segment(geometry: Geometry) -> None:
    (first, inputs_end), (outputs_begin, end) = geometry.input_range, geometry.output_range

    assert first == DATA_OFFSET
    assert inputs_end - first == geometry.inputs * geometry.slot_bytes
    assert outputs_begin - inputs_end == geometry.scratch * geometry.slot_bytes
    assert end - outputs_begin == geometry.outputs * geometry.slot_bytes
    assert end == geometry.file_bytes == DATA_OFFSET + geometry.pool_bytes
    assert geometry.largest_span == outputs_begin - first
    assert geometry.slots * geometry.slot_bytes == geometry.pool_bytes


@pytest.mark.parametrize("slot_bytes", [0, -PAGE, PAGE - 1, PAGE + 1])
def test_slots_that_are_no_whole_pages_are_refused_with_the_default_named(slot_bytes: int) -> None:
    with pytest.raises(ConfigurationError, match=r"multiple of 4096.*default is"):
        Geometry(slot_bytes)


@pytest.mark.parametrize("counts", [(0, 1, 1), (1, 0, 1), (1, 1, -1)])
def test_a_segment_without_input_or_output_slots_is_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigurationError, match="at least one input"):
        Geometry(PAGE, *counts)


@settings(deadline=None)
@given(st.integers(0, 2**62), st.integers(1, 2**40))
def test_rounding_up_gives_the_smallest_multiple_that_is_not_below(value: int, multiple: int) -> None:
    rounded = round_up(value, multiple)

    assert rounded % multiple == 0
    assert rounded - multiple < value <= rounded


@settings(deadline=None)
@given(UINT64, UINT64, UINT64, st.sampled_from([CLIENT, WORKER]))
def test_a_span_header_is_read_as_it_was_written(epoch: int, generation: int, payload: int, writer: int) -> None:
    raw = pack_span_header(epoch, generation, payload, writer)

    assert len(raw) == SPAN_HEADER_BYTES
    assert check_span_header(raw, epoch, generation, payload, writer) == payload
    assert check_span_header(memoryview(raw + b"payload"), epoch, generation, 2**64, writer) == payload


@settings(deadline=None)
@given(UINT64, UINT64, st.integers(0, SPAN_HEADER_BYTES - 1), st.integers(1, 255))
def test_a_span_header_with_any_other_byte_is_refused(epoch: int, generation: int, at: int, change: int) -> None:
    raw = bytearray(pack_span_header(epoch, generation, 100, WORKER))
    raw[at] ^= change

    with pytest.raises(StaleReference):
        check_span_header(raw, epoch, generation, 2**64, WORKER)


@pytest.mark.parametrize(
    ("epoch", "generation", "limit", "writer", "words"),
    [
        (6, 7, 100, WORKER, "generation 7"),
        (5, 8, 100, WORKER, "generation 7 of writer 2, not generation 8"),
        (5, 7, 99, WORKER, "announces 100 bytes, and 99"),
        (5, 7, 100, CLIENT, "writer 2, not generation 7 of writer 1"),
    ],
    ids=["epoch", "generation", "length", "writer"],
)
def test_a_span_of_another_epoch_generation_length_or_writer_is_refused(
    epoch: int, generation: int, limit: int, writer: int, words: str
) -> None:
    raw = pack_span_header(5, 7, 100, WORKER)

    with pytest.raises(StaleReference, match=words):
        check_span_header(raw, epoch, generation, limit, writer)


@settings(deadline=None)
@given(st.integers(0, SPAN_HEADER_BYTES - 1))
def test_a_span_header_that_is_cut_or_half_written_is_refused(length: int) -> None:
    new, old = pack_span_header(5, 8, 100, WORKER), pack_span_header(5, 7, 90, WORKER)
    torn = new[:length] + old[length:]

    with pytest.raises(StaleReference):
        check_span_header(new[:length], 5, 8, 100, WORKER)
    with pytest.raises(StaleReference):
        check_span_header(torn, 5, 8, 100, WORKER)


def test_fresh_memory_is_no_span() -> None:
    with pytest.raises(StaleReference):
        check_span_header(bytes(SPAN_HEADER_BYTES), 0, 0, 100, 0)


def test_a_foreign_header_with_a_valid_checksum_is_refused() -> None:
    body = b"NOTASPAN" + pack_span_header(5, 7, 100, WORKER)[8:60]

    with pytest.raises(StaleReference):
        check_span_header(body + struct.pack("<I", zlib.crc32(body)), 5, 7, 100, WORKER)


@settings(deadline=None)
@given(UINT64, GEOMETRIES)
def test_a_superblock_is_read_as_it_was_written(epoch: int, geometry: Geometry) -> None:
    raw = pack_superblock(epoch, geometry)

    assert len(raw) <= 64
    assert unpack_superblock(raw + bytes(64 - len(raw))) == (epoch, geometry)


@settings(deadline=None)
@given(UINT64, GEOMETRIES, st.data())
def test_a_superblock_with_any_other_byte_is_refused(epoch: int, geometry: Geometry, data: st.DataObject) -> None:
    raw = bytearray(pack_superblock(epoch, geometry))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))

    with pytest.raises(StaleReference):
        unpack_superblock(bytes(raw))


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_other_bytes_are_no_superblock(raw: bytes) -> None:
    with pytest.raises(StaleReference):
        unpack_superblock(raw)


@pytest.mark.parametrize(
    "fields",
    [
        (b"SKWGPOOL", LAYOUT_VERSION - 1, DATA_OFFSET, 1, PAGE, 1, 1, 1),
        (b"SKWGPOOL", LAYOUT_VERSION, PAGE, 1, PAGE, 1, 1, 1),
        (b"SOMEPOOL", LAYOUT_VERSION, DATA_OFFSET, 1, PAGE, 1, 1, 1),
        (b"SKWGPOOL", LAYOUT_VERSION, DATA_OFFSET, 1, PAGE + 1, 1, 1, 1),
        (b"SKWGPOOL", LAYOUT_VERSION, DATA_OFFSET, 1, PAGE, 0, 1, 1),
    ],
    ids=["version", "data offset", "magic", "slot bytes", "no inputs"],
)
def test_a_superblock_of_another_layout_is_refused_whatever_its_checksum(fields: tuple[bytes | int, ...]) -> None:
    body = struct.pack("<8sIIQQIII", *fields)

    with pytest.raises(StaleReference):
        unpack_superblock(body + struct.pack("<I", zlib.crc32(body)))


@pytest.mark.skipif(os.name == "nt", reason="a worker, which is who maps another's memory, runs on Linux")
def test_a_segment_that_is_shorter_than_its_superblock_says_is_refused() -> None:
    descriptor = os.memfd_create("short")
    try:
        os.pwrite(descriptor, pack_superblock(1, Geometry(PAGE, 1, 1, 0)).ljust(64, b"\0"), 0)
        with pytest.raises(StaleReference, match="shorter"):
            Segment.attach(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.skipif(os.name == "nt", reason="a worker, which is who maps another's memory, runs on Linux")
def test_both_sides_of_a_segment_see_the_same_memory_and_two_segments_never_share_an_epoch() -> None:
    ours, other = Segment.create(Geometry(PAGE, 1, 1, 0)), Segment.create(Geometry(PAGE, 1, 1, 0))
    theirs = Segment.attach(os.dup(ours.descriptor))
    try:
        ours.map[DATA_OFFSET : DATA_OFFSET + 5] = b"hello"
        assert theirs.map[DATA_OFFSET : DATA_OFFSET + 5] == b"hello"
        assert (theirs.epoch, theirs.geometry) == (ours.epoch, ours.geometry)
        assert other.epoch != ours.epoch
    finally:
        for segment in (ours, theirs, other):
            segment.close()


@pytest.mark.parametrize(
    ("note", "told"),
    [
        ("", ""),
        ("2 slots, näin", "2 slots, näin"),
        (f"a{ESCAPE}b\nc", "a[2Jbc"),
        ("ä" * NOTE_BYTES, "ä" * (NOTE_BYTES // 2)),
    ],
)
def test_a_note_for_people_is_read_from_the_first_page_and_moves_no_cursor(note: str, told: str) -> None:
    segment = Segment.create(Geometry(PAGE, 1, 1, 0), note=note)

    assert unpack_note(segment.map[:PAGE]) == told
    assert len(pack_note(note)) <= NOTE_BYTES
    segment.close()


def test_whatever_lies_where_a_note_belongs_is_text_to_whoever_looks() -> None:
    for filling in (b"\xff", b"\x1b", b"\x9b"):
        assert unpack_note(bytes(NOTE_OFFSET) + filling * NOTE_BYTES) == ""
