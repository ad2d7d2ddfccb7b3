"""What the two ends of a stream say to each other; sans-IO.

::

    client                                          worker
    greeting  magic, session, nonce            ->
                                               <-   nonce, HMAC-SHA256(key, "worker" + both nonces)
    HMAC-SHA256(key, "client" + both nonces)   ->
    head (THERE), span header, bytes, checksum ->
                                               <-   answer
    head (BACK)                                ->
                                               <-   answer, bytes of the span from its start on, checksum

The key has come to the client over the encrypted ZeroMQ connection. One side speaks at a time. A `checksum` is that of
the bytes before it; a span's header has its own.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import zlib
from typing import NamedTuple

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.errors import RemoteProtocolError

KEY_BYTES = NONCE_BYTES = MAC_BYTES = 32
_GREETING = struct.Struct("<8sQ32s")
_HEAD = struct.Struct("<8sBB2xIQQQQQQ")
_ANSWER = struct.Struct("<8sBxHI")
_CRC = struct.Struct("<I")
_MAGIC_GREETING, _MAGIC_HEAD, _MAGIC_ANSWER = b"SKWGHELO", b"SKWGMOVE", b"SKWGDONE"
GREETING_BYTES = _GREETING.size
HEAD_BYTES = _HEAD.size + _CRC.size
ANSWER_BYTES = _ANSWER.size
_MAX_WORDS = 4096
#: What becomes of a transfer; refused, it leaves the connection as good as before.
DONE, REFUSED, DAMAGED = 0, 1, 2


class Head(NamedTuple):
    """What a transfer is of.

    Attributes
    ----------
    way : int
        `THERE` or `BACK`.
    request : int
    ref : SpanRef
    offset, nbytes : int
        Of the bytes in the span: behind its header there, from its start back.
    is_thorough : bool
        Of the checksum, see there.
    """

    way: int
    request: int
    ref: SpanRef
    offset: int
    nbytes: int
    is_thorough: bool = True


def pack_greeting(session: int, nonce: bytes) -> bytes:
    """Return the first bytes of a connection."""
    return _GREETING.pack(_MAGIC_GREETING, session, nonce)


def unpack_greeting(raw: bytes) -> tuple[int, bytes]:
    """Return session and nonce of a greeting."""
    magic, session, nonce = _GREETING.unpack(raw)
    if magic != _MAGIC_GREETING:
        raise RemoteProtocolError("What connected is no client of this package.")
    return session, nonce


def mac(key: bytes, side: bytes, first: bytes, second: bytes) -> bytes:
    """Return the proof that a side, ``b"client"`` or ``b"worker"``, knows the key."""
    return hmac.new(key, side + first + second, hashlib.sha256).digest()


def is_proof(given: bytes, key: bytes, side: bytes, first: bytes, second: bytes) -> bool:
    """Tell whether a proof is right."""
    return hmac.compare_digest(given, mac(key, side, first, second))


def pack_head(head: Head) -> bytes:
    """Return the bytes of a head."""
    segment, start, nbytes, generation = head.ref
    raw = _HEAD.pack(
        _MAGIC_HEAD, head.way, head.is_thorough, segment, start, nbytes, generation, head.offset, head.nbytes,
        head.request,
    )  # fmt: skip
    return raw + _CRC.pack(zlib.crc32(raw))


def unpack_head(raw: bytes) -> Head:
    """Return a head, or raise `RemoteProtocolError` and nothing else."""
    magic, way, thorough, segment, start, nbytes, generation, offset, count, request = _HEAD.unpack_from(raw)
    is_sound = _CRC.unpack_from(raw, _HEAD.size)[0] == zlib.crc32(raw[: _HEAD.size])
    if magic != _MAGIC_HEAD or not is_sound or way > 1 or thorough > 1:
        raise RemoteProtocolError("The head of a transfer is none, or was damaged on its way.")
    return Head(way, request, SpanRef(segment, start, nbytes, generation), offset, count, bool(thorough))


def pack_answer(outcome: int = DONE, words: str = "") -> bytes:
    """Return the bytes of an answer: that it is done, or why not."""
    raw = words.encode("utf-8")[:_MAX_WORDS]
    return _ANSWER.pack(_MAGIC_ANSWER, outcome, 0, len(raw)) + raw


def unpack_answer(raw: bytes) -> tuple[int, int]:
    """Return the outcome of a transfer, and the bytes of the words that follow."""
    magic, outcome, _, nbytes = _ANSWER.unpack(raw)
    if magic != _MAGIC_ANSWER or nbytes > _MAX_WORDS or outcome > DAMAGED:
        raise RemoteProtocolError("The answer to a transfer is none.")
    return outcome, nbytes
