"""The geometry of a segment, and the bytes of its headers: pure arithmetic.

A segment, from its first byte::

    0          superblock (64 bytes used): magic, layout version, epoch, geometry, crc32
    256        why the pool is as large as it is: utf-8, for people who look
    4096       challenge area: 32 bytes written by the client, 32 bytes written by the worker
    8192       what was leased, and who waits for room, for people who look; first segment only (see `counters`)
    12288      ledger (80 KiB): what each lease is for, for people who look (see `ledger`)
    DATA       slot 0, slot 1, …    input slots, then scratch slots, then output slots

A span is a run of whole pages inside the slots; its first 64 bytes are its header::

    0   8  magic b"SKWGSPAN"
    8   8  epoch of the segment
    16  8  generation of the lease
    24  8  bytes of payload that follow
    32  1  writer: 1 client, 2 worker
    33  27 zero
    60  4  crc32 of bytes 0..59
    64     arrays, each at the offset that its array ref says

The header is evidence, never authority: the owner's book-keeping decides, and a reader that finds another
generation than the message named refuses the span. Nothing in a segment is ever polled.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from sklearn_wsl_gpu.errors import ConfigurationError, StaleReference

PAGE = 4096
#: Two MiB, so that slots begin on a huge-page boundary.
DATA_OFFSET = 2 * 1024 * 1024
NOTE_OFFSET, NOTE_BYTES = 256, 1024
CHALLENGE_OFFSET = PAGE
CHALLENGE_BYTES = 32
COUNTERS_OFFSET, COUNTERS_BYTES = 2 * PAGE, 256
LEDGER_OFFSET = 3 * PAGE
LEDGER_BYTES = 20 * PAGE
SPAN_HEADER_BYTES = 64
LAYOUT_VERSION = 2
DEFAULT_SLOT_BYTES = 256 * 1024 * 1024
CLIENT, WORKER = 1, 2

_SUPERBLOCK = struct.Struct("<8sIIQQIII")
_SPAN_HEADER = struct.Struct("<8sQQQB27s")
_SUPERBLOCK_MAGIC = b"SKWGPOOL"
_SPAN_MAGIC = b"SKWGSPAN"
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Geometry:
    """Slots of a segment: how many of each kind, and their size.

    Parameters
    ----------
    slot_bytes : int
        Size of a slot in bytes, a multiple of 4096.
    inputs, outputs, scratch : int
        Number of slots of each kind. Scratch slots lie between the two others and serve what overflows
        either side; a segment that is added to a pool has no others.
    """

    slot_bytes: int = DEFAULT_SLOT_BYTES
    inputs: int = 4
    outputs: int = 4
    scratch: int = 8

    def __post_init__(self) -> None:
        if self.slot_bytes <= 0 or self.slot_bytes % PAGE:
            raise ConfigurationError(
                f"slot_bytes must be a positive multiple of {PAGE}; got {self.slot_bytes}. "
                f"The default is {DEFAULT_SLOT_BYTES} (256 MiB)."
            )
        added = self.inputs == self.outputs == 0 < self.scratch
        if not added and (self.inputs < 1 or self.outputs < 1 or self.scratch < 0):
            raise ConfigurationError(
                "slots must be at least one input, one output and no negative number of scratch slots; got "
                f"{self.inputs} input, {self.outputs} output, {self.scratch} scratch. The default is 4,4,8."
            )

    @property
    def slots(self) -> int:
        """Number of slots in all."""
        return self.inputs + self.outputs + self.scratch

    @property
    def pool_bytes(self) -> int:
        """Bytes of all slots."""
        return self.slots * self.slot_bytes

    @property
    def file_bytes(self) -> int:
        """Bytes of the segment, headers included."""
        return DATA_OFFSET + self.pool_bytes

    @property
    def input_range(self) -> tuple[int, int]:
        """First byte and end of the input slots in the segment."""
        return DATA_OFFSET, DATA_OFFSET + self.inputs * self.slot_bytes

    @property
    def output_range(self) -> tuple[int, int]:
        """First byte and end of the output slots in the segment."""
        return self.file_bytes - self.outputs * self.slot_bytes, self.file_bytes

    @property
    def kept_range(self) -> tuple[int, int]:
        """First byte and end of where results may lie that the user keeps: everywhere, if all slots are scratch."""
        return self.output_range if self.outputs else (DATA_OFFSET, self.file_bytes)

    @property
    def largest_span(self) -> int:
        """Bytes that one request or one reply may take: all input and scratch slots together."""
        return (self.inputs + self.scratch) * self.slot_bytes


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple


def pack_superblock(epoch: int, geometry: Geometry) -> bytes:
    """Return the superblock of a segment."""
    body = _SUPERBLOCK.pack(
        _SUPERBLOCK_MAGIC, LAYOUT_VERSION, DATA_OFFSET, epoch, geometry.slot_bytes,
        geometry.inputs, geometry.outputs, geometry.scratch,
    )  # fmt: skip
    return body + _CRC.pack(zlib.crc32(body))


def unpack_superblock(raw: bytes) -> tuple[int, Geometry]:
    """Return epoch and geometry from a superblock, or raise `StaleReference` if it is not one of ours."""
    body = raw[: _SUPERBLOCK.size]
    if len(raw) < _SUPERBLOCK.size + 4 or _CRC.unpack_from(raw, _SUPERBLOCK.size)[0] != zlib.crc32(body):
        raise StaleReference("The segment has no valid superblock; it is not a pool of this package.")
    magic, version, data, epoch, slot_bytes, inputs, outputs, scratch = _SUPERBLOCK.unpack(body)
    if magic != _SUPERBLOCK_MAGIC or version != LAYOUT_VERSION or data != DATA_OFFSET:
        raise StaleReference("The segment has another layout; both sides must run the same version.")
    try:
        return epoch, Geometry(slot_bytes, inputs, outputs, scratch)
    except ConfigurationError as error:
        raise StaleReference(f"The segment has impossible slots: {error}") from None


def pack_note(text: str) -> bytes:
    """Return the bytes of a text for people, cut where there is no more room."""
    return text.encode("utf-8", "replace")[:NOTE_BYTES]


def unpack_note(raw: bytes) -> str:
    """Return the text from the first page of a segment; whatever a terminal might obey is left out."""
    text = raw[NOTE_OFFSET : NOTE_OFFSET + NOTE_BYTES].partition(b"\0")[0].decode("utf-8", "ignore")
    return "".join(character for character in text if character.isprintable())


def pack_span_header(epoch: int, generation: int, payload_bytes: int, writer: int) -> bytes:
    """Return the 64 bytes that open a span."""
    body = _SPAN_HEADER.pack(_SPAN_MAGIC, epoch, generation, payload_bytes, writer, b"")
    return body + _CRC.pack(zlib.crc32(body))


def check_span_header(raw: bytes | memoryview, epoch: int, generation: int, limit: int, *writers: int) -> int:
    """Return the payload bytes that a span header announces.

    Raises
    ------
    StaleReference
        If the header is torn, of another epoch, generation or writer, or longer than `limit` bytes.
    """
    header = bytes(raw[:SPAN_HEADER_BYTES])
    body = header[: _SPAN_HEADER.size]
    if len(header) < SPAN_HEADER_BYTES or _CRC.unpack_from(header, _SPAN_HEADER.size)[0] != zlib.crc32(body):
        raise StaleReference("The span's header is torn or missing: this memory is not what was written.")
    magic, got_epoch, got_generation, payload, got_writer, _ = _SPAN_HEADER.unpack(body)
    found = (magic, got_epoch, got_generation)
    if found == (_SPAN_MAGIC, epoch, generation) and got_writer in writers and payload > limit:
        raise StaleReference(f"The span announces {payload} bytes, and {limit} are named.")
    if found != (_SPAN_MAGIC, epoch, generation) or got_writer not in writers:
        raise StaleReference(
            f"The span holds generation {got_generation} of writer {got_writer}, "
            f"not generation {generation} of writer {' or '.join(map(str, writers))}."
        )
    return int(payload)
