"""Which carrier takes which transfer: the one that is expected to be done first, by what was measured."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_wsl_gpu import costfile
from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.carriers import calibration
from sklearn_wsl_gpu.carriers.base import BACK, THERE, Carrier, CarrierFailed
from sklearn_wsl_gpu.carriers.calibration import Rates
from sklearn_wsl_gpu.pool import Geometry, Pool, Segment

RATES = st.builds(Rates, st.floats(0, 1), st.floats(1e5, 1e11), st.floats(1e5, 1e11))


class Remembering(Carrier):
    """A carrier to memory of its own, which may forget some bytes."""

    kind = "stream"
    needs_segment = False
    open_seconds = 1.0

    def __init__(self, name: str = "one", forget: int = 0) -> None:
        self.name, self._forget = name, forget
        self.memory = b""
        self.moved = {THERE: 0, BACK: 0}

    def open(self, segment: Segment, deadline: float, enough: threading.Event) -> None:
        pass

    def there(
        self, request: int, ref: SpanRef, offset: int, pieces: Sequence[memoryview], deadline: float | None
    ) -> None:
        sent = b"".join(pieces)
        self.moved[THERE] += len(sent)
        self.memory = sent + self.memory[len(sent) :]

    def back(self, request: int, ref: SpanRef, window: memoryview, deadline: float | None) -> None:
        window[:] = self.memory
        window[len(window) - self._forget :] = bytes(self._forget)
        self.moved[BACK] += len(window)

    def admit(self, number: int, segment: Segment, offered: list[Any], answer: Sequence[Any]) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(Geometry(2**20, 2, 2, 0))
    yield made
    made.close()


@given(st.lists(RATES, min_size=1, max_size=4), st.sampled_from([THERE, BACK]), st.integers(0, 2**40))
def test_the_one_that_is_expected_to_be_done_first_is_taken(rates: list[Rates], way: int, nbytes: int) -> None:
    carriers = [Remembering(str(number)) for number in range(len(rates))]
    by_name = {carrier.name: one for carrier, one in zip(carriers, rates, strict=True)}

    found = calibration.fastest(carriers, by_name, way, nbytes)

    least = min(one.seconds(way, nbytes) for one in rates)
    assert by_name[found.name].seconds(way, nbytes) == least


@given(RATES, RATES, st.sampled_from([THERE, BACK]))
def test_from_one_size_on_the_one_with_more_bandwidth_is_taken(one: Rates, other: Rates, way: int) -> None:
    carriers = [Remembering("one"), Remembering("other")]
    rates = {"one": one, "other": other}

    sizes = [2**power for power in range(60)]
    # Where they differ by no more than rounding, either may be taken.
    told = [size for size in sizes if not math.isclose(one.seconds(way, size), other.seconds(way, size))]

    chosen = [calibration.fastest(carriers, rates, way, size).name for size in told]

    assert sum(name != after for name, after in pairwise(chosen)) <= 1


def test_without_figures_of_all_the_first_one_is_taken() -> None:
    carriers = [Remembering("one"), Remembering("other")]

    assert calibration.fastest(carriers, {"other": Rates(0, 1e9, 1e9)}, THERE, 10) is carriers[0]


def test_a_carrier_is_measured_with_random_bytes_both_ways_and_the_span_is_given_back(pool: Pool) -> None:
    carrier = Remembering()

    rates = calibration.measure(carrier, pool)

    assert min(rates) > 0
    assert carrier.moved[THERE] >= 2 * 2**20
    assert carrier.moved[BACK] >= 2 * 2**20
    assert len(set(carrier.memory[4096:8192])) > 200
    assert pool.used_bytes == 0


def test_a_carrier_that_brings_back_other_bytes_is_not_measured_but_refused(pool: Pool) -> None:
    with pytest.raises(CarrierFailed, match="Other bytes"):
        calibration.measure(Remembering(forget=20), pool)

    assert pool.used_bytes == 0


def test_what_was_measured_is_kept_for_a_day_and_for_these_carriers_alone(
    own_costs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {"one": Rates(1e-4, 1e9, 2e9), "other": Rates(1e-3, 3e9, 4e9)}
    calibration.save(["a", "b"], rates)

    assert calibration.load(["a", "b"]) == rates
    assert calibration.load(["a", "c"]) is None
    assert calibration.load([]) is None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + calibration.KEPT_SECONDS + 1)
    assert calibration.load(["a", "b"]) is None
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    assert calibration.load(["a", "b"]) is None


@pytest.mark.parametrize(
    "content",
    [
        None, 1, [], "x", {}, {"at": 1}, {"at": "x", "rates": {}}, {"at": None, "rates": {}},
        {"at": 2**62, "rates": {}}, {"at": -1, "rates": []}, {"rates": {"one": [1, 1, 1]}},
    ],
)  # fmt: skip
def test_what_makes_no_sense_counts_as_nothing(own_costs: None, content: object) -> None:
    costfile.save(content, "carriers", ["a"])

    assert calibration.load(["a"]) is None


@pytest.mark.parametrize(
    "values",
    [
        [1, 1], [1, 1, 0], [1, -1, 1], [-1, 1, 1], ["x", 1, 1], None, [1, 1, None], [1, 1, 10**400],
        [1, 1, math.nan], [1, math.nan, 1], [math.nan, 1, 1],
    ],
)  # fmt: skip
def test_rates_that_make_no_sense_count_as_nothing(own_costs: None, values: object) -> None:
    costfile.save({"at": time.time(), "rates": {"one": values}}, "carriers", ["a"])

    assert calibration.load(["a"]) is None


def test_what_is_measured_is_told_by_name() -> None:
    assert calibration.describe(Rates(0.5, 1.0, 2.0)) == {"round_trip": 0.5, "there": 1.0, "back": 2.0}
    assert calibration.describe(None) == {"round_trip": None, "there": None, "back": None}
