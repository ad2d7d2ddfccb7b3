"""Copies with one thread or with two: the same bytes, and the way that was seen to be faster."""

from __future__ import annotations

import mmap
import os
import sys
from typing import Any, ClassVar

import numpy as np
import pytest

from sklearn_wsl_gpu.pool import copying, memory
from sklearn_wsl_gpu.pool.copying import Copier, Trials

SOURCE = np.random.default_rng(0).normal(size=(301, 64))


def _threads(trials: Trials, costs: dict[int, float], count: int) -> list[int]:
    chosen = []
    for _ in range(count):
        chosen.append(trials.next())
        trials.note(chosen[-1], costs[chosen[-1]])
    return chosen


def test_both_ways_are_tried_and_the_faster_one_is_taken() -> None:
    assert _threads(Trials(), {1: 1.0, 2: 0.5}, 10) == [1, 2, 2, 1, 2, 2, 2, 2, 2, 2]
    assert _threads(Trials(), {1: 0.5, 2: 1.0}, 10) == [1, 2, 2, 1, 1, 1, 1, 1, 1, 1]


def test_a_second_thread_that_gains_little_is_not_taken() -> None:
    assert _threads(Trials(), {1: 1.0, 2: 0.95}, 10)[4:] == [1] * 6


def test_what_was_learnt_is_learnt_anew_from_time_to_time() -> None:
    trials = Trials()
    assert _threads(trials, {1: 1.0, 2: 0.5}, 64)[-1] == 2
    assert _threads(trials, {1: 1.0, 2: 2.0}, 64)[-1] == 1


def test_a_second_thread_is_not_taken_any_more_when_others_need_the_core() -> None:
    trials = Trials()
    assert _threads(trials, {1: 1.0, 2: 0.5}, 10)[-1] == 2
    assert _threads(trials, {1: 1.0, 2: 1.5}, 6) == [2, 2, 2, 1, 1, 1]


class Recording(Trials):
    """Trials that keep what they are told."""

    noted: ClassVar[list[int]] = []

    def note(self, threads: int, seconds_per_byte: float) -> None:
        self.noted.append(threads)
        super().note(threads, seconds_per_byte)


def test_a_copy_into_pages_that_nobody_had_touched_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "MIN_BYTES", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(copying, "Trials", Recording)
    monkeypatch.setattr(Recording, "noted", [])
    source, copier = np.ones(2**20), Copier()

    cold = mmap.mmap(-1, source.nbytes)
    if sys.platform == "linux":
        cold.madvise(mmap.MADV_NOHUGEPAGE)  # of these few would be enough
    target = np.frombuffer(cold)
    for expected in ([], [1], [1, 2]) if sys.platform == "linux" else ([1], [1, 2]):
        copier.copy(target, source)
        assert Recording.noted == expected


@pytest.mark.parametrize("sizes", [(3, 200), (200, 3)])
def test_what_pays_is_learnt_for_each_size_by_itself(sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "MIN_BYTES", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(memory, "page_faults", lambda: 0)
    chosen: dict[int, int] = {}

    class Fake(Trials):
        def note(self, threads: int, seconds_per_byte: float) -> None:
            rows = sizes[turn]
            chosen[rows] = threads
            super().note(threads, 1.0 if threads == 1 else 0.5 if rows == 200 else 2.0)

    monkeypatch.setattr(copying, "Trials", Fake)
    copier = Copier()
    for turn in [0, 1] * 6:
        source = SOURCE[: sizes[turn]]
        copier.copy(np.empty_like(source), source)
    assert chosen == {3: 1, 200: 2}


@pytest.mark.parametrize(
    "source",
    [SOURCE, np.asfortranarray(SOURCE), SOURCE[::-2, ::3], SOURCE[0], SOURCE[:1], SOURCE[:, :1], SOURCE[None, :, None]],
    ids=["C", "Fortran", "strided", "vector", "row", "column", "many axes"],
)
def test_two_threads_copy_what_one_does(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "MIN_BYTES", 1)
    copier = Copier()
    for _ in range(6):
        for order in "CF":
            target = np.full(source.shape, np.nan, order=order)  # type: ignore[call-overload]
            copier.copy(target, source)
            np.testing.assert_array_equal(target, source)
