"""The carriers of a session: each transfer goes by the one that is done first, by what was measured since the boot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sklearn_wsl_gpu.carriers import calibration, shared
from sklearn_wsl_gpu.carriers.base import BACK, THERE, Carrier
from sklearn_wsl_gpu.carriers.calibration import Rates
from sklearn_wsl_gpu.carriers.moving import Moving
from sklearn_wsl_gpu.pool import Geometry, Pool, placing
from sklearn_wsl_gpu.pool.layout import SPAN_HEADER_BYTES
from sklearn_wsl_gpu.protocol import messages as m
from tests.carriers.test_calibration import Remembering

#: From some size on the second is the faster one: there from 91 KB on, back from 1 MB on.
RATES = {"prompt": Rates(1e-4, 1e8, 1e9), "broad": Rates(1e-3, 1e10, 1e10)}
SMALL, MEDIUM, LARGE = 2**14, 2**19, 2**22


class Opened(Moving):
    """Has carriers without a worker."""

    def __init__(self, pool: Pool, carriers: list[Remembering]) -> None:
        super().__init__(pool, ["stream"], None)  # type: ignore[arg-type]
        self._made = carriers

    def _candidates(self, *_: Any) -> Iterator[Carrier]:
        yield from self._made


def _open(pool: Pool, carriers: list[Remembering], boot: str = "one") -> Moving:
    moving = Opened(pool, carriers)
    moving.offer(0, pool.segment)
    moving.open(m.Welcome(1, [], bytes(16), 1, [], [["stream"]], [], os.getpid(), boot, -1), "127.0.0.1")
    return moving


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(Geometry(2**23, 2, 2, 0))
    yield made
    made.close()


@pytest.fixture
def measured(own_costs: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the carriers that were measured, with the outcome of `RATES`."""
    names: list[str] = []

    def measure(carrier: Carrier, pool: Pool) -> Rates:
        names.append(carrier.name)
        return RATES[carrier.name]

    monkeypatch.setattr(calibration, "measure", measure)
    return names


@pytest.fixture
def carriers() -> list[Remembering]:
    return [Remembering("prompt"), Remembering("broad")]


def test_what_was_measured_holds_until_either_side_boots(
    pool: Pool, carriers: list[Remembering], measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "boot_id", lambda: "own")
    for _ in range(2):
        assert _open(pool, carriers, "worker's").rates == RATES
    assert measured == ["prompt", "broad"]

    _open(pool, carriers, "worker's next")
    assert measured == 2 * ["prompt", "broad"]

    monkeypatch.setattr(shared, "boot_id", lambda: "own next")
    _open(pool, carriers, "worker's next")
    assert measured == 3 * ["prompt", "broad"]


@pytest.mark.parametrize(
    ("way", "nbytes", "expected"),
    [
        (THERE, SMALL, "prompt"), (THERE, MEDIUM, "broad"), (THERE, LARGE, "broad"),
        (BACK, SMALL, "prompt"), (BACK, MEDIUM, "prompt"), (BACK, LARGE, "broad"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("measured")
def test_each_transfer_goes_by_the_carrier_that_is_the_faster_one_for_its_size_and_way(
    way: int, nbytes: int, expected: str, pool: Pool, carriers: list[Remembering]
) -> None:
    moving = _open(pool, carriers)
    for carrier in carriers:
        carrier.memory, carrier.moved = bytes(nbytes), {THERE: 0, BACK: 0}
    array = np.ones(nbytes - SPAN_HEADER_BYTES, np.uint8)
    refs, size = placing.plan([array])
    lease = pool.lease_input(size)
    try:
        if way == THERE:
            moving.send(1, lease, refs, [array], None)
            moving.lend(2, lease.ref, SPAN_HEADER_BYTES, array.nbytes, None)
        else:
            moving.receive(1, lease, nbytes, None)
    finally:
        lease.release()

    least = {THERE: 2 * array.nbytes, BACK: nbytes}[way]
    assert {carrier.name: carrier.moved[way] >= least for carrier in carriers} == {
        name: name == expected for name in RATES
    }
    assert sum(sum(carrier.moved.values()) == 0 for carrier in carriers) == 1
