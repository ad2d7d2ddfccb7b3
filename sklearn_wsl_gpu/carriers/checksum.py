"""A checksum of bytes on their way that keeps up with them: it takes a fraction of the time of a copy."""

from __future__ import annotations

import hashlib
import struct

import numpy as np

#: Of each block of this size the sum of its words is taken. Small enough for a processor's cache to hold.
BLOCK_BYTES = 256 * 1024
CHECKSUM_BYTES = 8
_WORD_BYTES = 8
#: Of so many words one is taken where not all are: one in a page.
_STRIDE = 512
_SUM = struct.Struct("<Q")
_MODULUS = 2**64


class Checksum:
    """BLAKE2b of the sums, modulo 2**64, of the 64-bit little-endian words of each block.

    A change of a single bit or byte alters it, and so does the loss, or another order, of blocks; how the bytes are cut
    into the parts that it is told of does not. It guards against accidents, not against somebody.

    Parameters
    ----------
    is_thorough : bool
        Whether all words are taken. Else it is one in each page, which takes no time to speak of, and notices what is
        lost, moved, repeated or overwritten by pages, but not a bit.
    """

    def __init__(self, is_thorough: bool) -> None:
        self._stride = 1 if is_thorough else _STRIDE
        self._at = 0
        self._sum = 0
        self._sums = hashlib.blake2b(digest_size=CHECKSUM_BYTES)

    def add(self, part: memoryview) -> None:
        """Take the next bytes; fast if they begin and end at a word of the whole."""
        begin = 0
        while begin < len(part):
            ahead = BLOCK_BYTES - self._at % BLOCK_BYTES
            whole = (len(part) - begin) // BLOCK_BYTES * BLOCK_BYTES
            if ahead == BLOCK_BYTES <= whole:
                words = np.frombuffer(part[begin : begin + whole], "<u8").reshape(-1, BLOCK_BYTES // _WORD_BYTES)
                self._sums.update(np.add.reduce(words[:, :: self._stride], axis=1).astype("<u8"))
                self._at += whole
                begin += whole
            else:
                end = begin + min(ahead, len(part) - begin)
                self._add(part[begin:end])
                begin = end

    def _add(self, part: memoryview) -> None:
        """Take bytes of one block."""
        number, phase = divmod(self._at, _WORD_BYTES)
        if phase:
            first = min(_WORD_BYTES - phase, len(part))
            self._add_some(number, int.from_bytes(part[:first], "little") << (8 * phase))
            number += 1
        else:
            first = 0
        words = (len(part) - first) // _WORD_BYTES
        last = first + words * _WORD_BYTES
        if words:
            taken = np.frombuffer(part[first:last], "<u8")[-number % self._stride :: self._stride]
            self._sum += int(np.add.reduce(taken))
        self._add_some(number + words, int.from_bytes(part[last:], "little"))
        self._at += len(part)
        if self._at % BLOCK_BYTES == 0:
            self._sums.update(_SUM.pack(self._sum % _MODULUS))
            self._sum = 0

    def _add_some(self, number: int, value: int) -> None:
        """Take some bytes of a word."""
        if number % self._stride == 0:
            self._sum += value

    def digest(self) -> bytes:
        """Return the checksum of all bytes so far, and of how many they are."""
        whole = self._sums.copy()
        whole.update(_SUM.pack(self._sum % _MODULUS) + _SUM.pack(self._at))
        return whole.digest()
