"""What the ends of a stream say: it is read back as it was said, and of anything else one kind of error is made."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.carriers import frames
from sklearn_wsl_gpu.carriers.base import BACK, THERE
from sklearn_wsl_gpu.carriers.frames import Head
from sklearn_wsl_gpu.errors import RemoteProtocolError

U64 = st.integers(0, 2**64 - 1)
HEADS = st.builds(
    Head,
    st.sampled_from([THERE, BACK]),
    U64,
    st.builds(SpanRef, st.integers(0, 2**32 - 1), U64, U64, U64),
    U64,
    U64,
    st.booleans(),
)


@given(HEADS)
def test_a_head_is_read_as_it_was_written(head: Head) -> None:
    raw = frames.pack_head(head)

    assert len(raw) == frames.HEAD_BYTES
    assert frames.unpack_head(raw) == head


@settings(max_examples=300)
@given(HEADS, st.integers(0, frames.HEAD_BYTES - 1), st.integers(1, 255))
def test_a_head_with_one_wrong_byte_is_none(head: Head, place: int, change: int) -> None:
    raw = bytearray(frames.pack_head(head))
    raw[place] ^= change

    with pytest.raises(RemoteProtocolError):
        frames.unpack_head(bytes(raw))


@given(st.binary(min_size=frames.HEAD_BYTES, max_size=frames.HEAD_BYTES))
def test_any_bytes_are_a_head_or_one_kind_of_error(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        frames.unpack_head(raw)


def test_a_head_that_goes_neither_way_is_none() -> None:
    with pytest.raises(RemoteProtocolError):
        frames.unpack_head(frames.pack_head(Head(2, 1, SpanRef(0, 0, 0, 0), 0, 0)))


@given(U64, st.binary(min_size=32, max_size=32))
def test_a_greeting_is_read_as_it_was_written(session: int, nonce: bytes) -> None:
    assert frames.unpack_greeting(frames.pack_greeting(session, nonce)) == (session, nonce)


@given(st.binary(min_size=frames.GREETING_BYTES, max_size=frames.GREETING_BYTES))
def test_any_bytes_are_a_greeting_or_one_kind_of_error(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        frames.unpack_greeting(raw)


@given(st.sampled_from([frames.DONE, frames.REFUSED, frames.DAMAGED]), st.text(max_size=3000))
def test_an_answer_is_done_or_says_why_not(outcome: int, words: str) -> None:
    words = words.encode("utf-8", "replace").decode("utf-8")
    raw = frames.pack_answer(outcome, words)

    told, nbytes = frames.unpack_answer(raw[: frames.ANSWER_BYTES])

    assert told == outcome
    assert nbytes == len(raw) - frames.ANSWER_BYTES
    assert words.startswith(raw[frames.ANSWER_BYTES :].decode("utf-8", "ignore"))


@given(st.binary(min_size=frames.ANSWER_BYTES, max_size=frames.ANSWER_BYTES))
def test_any_bytes_are_an_answer_or_one_kind_of_error(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        frames.unpack_answer(raw)


def test_the_words_of_an_answer_have_a_limit() -> None:
    outcome, nbytes = frames.unpack_answer(frames.pack_answer(frames.REFUSED, "ä" * 10**6)[: frames.ANSWER_BYTES])
    assert outcome == frames.REFUSED
    assert nbytes <= 4096

    too_long = b"SKWGDONE" + bytes([1, 0, 0, 0]) + (4097).to_bytes(4, "little")
    with pytest.raises(RemoteProtocolError):
        frames.unpack_answer(too_long)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_a_proof_holds_for_one_key_one_side_and_one_pair_of_nonces(key: bytes, first: bytes, second: bytes) -> None:
    proof = frames.mac(key, b"client", first, second)

    assert frames.is_proof(proof, key, b"client", first, second)
    assert not frames.is_proof(proof, key, b"worker", first, second)
    assert not frames.is_proof(proof, bytes([key[0] ^ 1]) + key[1:], b"client", first, second)
    assert not frames.is_proof(proof, key, b"client", bytes([first[0] ^ 1]) + first[1:], second)
    assert not frames.is_proof(proof[:-1], key, b"client", first, second)
