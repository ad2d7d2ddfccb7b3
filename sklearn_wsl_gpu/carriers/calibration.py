"""Which of several carriers takes which transfer: by what they were measured to do, `seconds` for a size and a way."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sklearn_wsl_gpu import costfile
from sklearn_wsl_gpu.carriers.base import THERE, Carrier, CarrierFailed
from sklearn_wsl_gpu.pool import Pool
from sklearn_wsl_gpu.pool.layout import SPAN_HEADER_BYTES

#: What is measured is measured anew after so long.
KEPT_SECONDS = 24 * 3600.0
_BLOCK_BYTES = 8 * 2**20
_MOST_BYTES = 64 * 2**20
_MOST_SECONDS = 0.5
_LEAST_BYTES = 64
_ROUND_TRIPS = 5
_NAME = "carriers"


class Rates(NamedTuple):
    """What a carrier was measured to do.

    Attributes
    ----------
    round_trip : float
        Seconds of the least transfer.
    there, back : float
        Bytes per second.
    """

    round_trip: float
    there: float
    back: float

    def seconds(self, way: int, nbytes: int) -> float:
        """Return how long a transfer of `nbytes` is expected to take."""
        return self.round_trip + nbytes / (self.there if way == THERE else self.back)


def fastest(carriers: Sequence[Carrier], rates: Mapping[str, Rates], way: int, nbytes: int) -> Carrier:
    """Return the carrier that is expected to be done first; the first one if they were not all measured."""
    if any(carrier.name not in rates for carrier in carriers):
        return carriers[0]
    return min(carriers, key=lambda carrier: rates[carrier.name].seconds(way, nbytes))


def describe(rates: Rates | None) -> dict[str, float | None]:
    """Return rates by name, each None if they were not measured."""
    return dict.fromkeys(Rates._fields) if rates is None else rates._asdict()


def words(rates: Rates | None) -> str:
    """Return how fast a carrier is; empty if that was not measured."""
    return "" if rates is None else f"{rates.there / 1e9:.2f} GB/s there, {rates.back / 1e9:.2f} GB/s back"


def measure(carrier: Carrier, pool: Pool) -> Rates:
    """Measure a carrier, in a span of a session's pool that is leased meanwhile.

    Random bytes go there and come back, a block to warm up first, then 64 MiB or what goes in half a second, each way.

    Raises
    ------
    CarrierFailed
        If it fails, or other bytes come back than went there.
    """
    nbytes = min(_BLOCK_BYTES, pool.geometry.slot_bytes)
    lease = pool.lease_output(nbytes)
    try:
        window, block = pool.window(lease).data, os.urandom(nbytes - SPAN_HEADER_BYTES)
        window[SPAN_HEADER_BYTES:] = block
        pool.seal(lease, nbytes)
        header, payload = window[:SPAN_HEADER_BYTES], window[SPAN_HEADER_BYTES:]

        def send(count: int) -> None:
            carrier.there(0, lease.ref, SPAN_HEADER_BYTES, [header, payload[:count]], None)

        def receive() -> None:
            carrier.back(0, lease.ref, window, None)

        there = _bandwidth(lambda: send(len(payload)), nbytes)
        payload[:] = bytes(len(payload))
        back = _bandwidth(receive, nbytes)
        if bytes(payload) != block:
            raise CarrierFailed("Other bytes came back from the worker than went there.")
        return Rates(statistics.median(_seconds(lambda: send(_LEAST_BYTES)) for _ in range(_ROUND_TRIPS)), there, back)
    finally:
        lease.release()


def load(key: Sequence[str]) -> dict[str, Rates] | None:
    """Return what was measured lately under this key, by the carriers' names; None if there is no such thing."""
    kept = costfile.load(_NAME, [*key])
    try:
        age = time.time() - kept["at"]
        rates = {str(name): Rates(*map(float, values)) for name, values in kept["rates"].items()}
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
        return None
    sound = all(rate.round_trip >= 0 and rate.there > 0 and rate.back > 0 for rate in rates.values())
    return rates if 0 <= age < KEPT_SECONDS and sound else None


def save(key: Sequence[str], rates: Mapping[str, Rates]) -> None:
    """Keep what was measured."""
    costfile.save({"at": time.time(), "rates": rates}, _NAME, [*key])


def _bandwidth(move: Any, nbytes: int) -> float:
    seconds, moved = _seconds(move), 0
    if seconds > _MOST_SECONDS:
        return nbytes / seconds
    seconds = 0.0
    while moved < _MOST_BYTES and seconds < _MOST_SECONDS:
        seconds += _seconds(move)
        moved += nbytes
    return moved / seconds


def _seconds(move: Any) -> float:
    began = time.perf_counter()
    move()
    return time.perf_counter() - began
