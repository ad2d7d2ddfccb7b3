"""The coherence challenge: what one side stores the other side has to read, at the first try, in both directions.

Sans-IO: what stores and reads is passed in. Both sides do it by the handles and the calls by which they move spans. In
the second round the same places hold other bytes: a cache that the first round has filled shows the old ones. A look
that comes right a little later is as good as wrong: nobody could know when to look.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence

from sklearn_wsl_gpu.carriers.base import BACK, THERE

NONCE_BYTES = 16
#: The last ones read again what this side has just written, and the other way round.
ROUNDS = (THERE, THERE, BACK, BACK, THERE, BACK, THERE)

_PAGE, _GRANULE, _MIB = 4096, 64 * 1024, 2**20


def places(begin: int, end: int) -> list[int]:
    """Return where to look between two offsets: beginning, middle and end, and across borders of pages."""
    middle = (begin + end) // 2
    wanted = [
        begin, begin + _PAGE - 8, begin + _GRANULE - 8, begin + _MIB + 13, middle + 5, end - 64,
    ]  # fmt: skip
    found: list[int] = []
    for place in sorted(wanted):
        if place + NONCE_BYTES <= end and (not found or found[-1] + NONCE_BYTES <= place):
            found.append(place)
    return found


def digest(parts: Sequence[bytes | memoryview]) -> bytes:
    """Return what is told of the bytes at all places, in the order of the places."""
    whole = hashlib.blake2b(digest_size=32)
    for part in parts:
        whole.update(part)
    return whole.digest()


def run(
    where: Sequence[int],
    store: Callable[[int, bytes], None],
    load: Callable[[int], bytes],
    probe: Callable[[Sequence[int], bool], bytes],
) -> int | None:
    """Challenge both sides.

    Parameters
    ----------
    where : sequence of int
        From `places`.
    store, load : callable
        Write and read `NONCE_BYTES` at a place on this side.
    probe : callable
        Has the other side read all places, or write fresh bytes there if its second argument is true; returns the
        `digest` of what it has read or written.

    Returns
    -------
    failed : int or None
        `THERE` or `BACK`, in which direction other bytes came out than were stored; None if none did.
    """
    for way in ROUNDS:
        if way == THERE:
            nonces = [os.urandom(NONCE_BYTES) for _ in where]
            for place, nonce in zip(where, nonces, strict=True):
                store(place, nonce)
            stored, seen = digest(nonces), probe(where, False)
        else:
            stored = probe(where, True)
            seen = digest([load(place) for place in where])
        if stored != seen:
            return way
    return None
