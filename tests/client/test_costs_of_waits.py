"""What the table of costs learns where a call has waited for others, and what it refuses to take over."""

from __future__ import annotations

import pytest

from sklearn_wsl_gpu.costs import Table
from tests.client.test_costs import work


def test_what_others_have_been_waited_for_is_no_cost_of_the_way() -> None:
    table, call = Table(), work(nbytes=5000)
    for _ in range(3):
        table.note_engine(call, "cpu", 0.02)
        table.note_local(call, 0.2)

    found = table.predict(call)
    assert found.remote == pytest.approx(0.02, abs=0.002)
    assert not found.stays


def test_one_call_that_was_slow_to_cross_does_not_keep_all_others_here() -> None:
    table, call = Table(), work("SVC.fit", nbytes=5000)
    for _ in range(3):
        table.note_local(call, 0.3)
    table.note_remote(work(nbytes=5000), "cpu", 30.1, 30.0, 5000)

    assert not table.predict(call).stays


def test_a_table_with_more_points_than_are_kept_is_refused() -> None:
    points = [[number % 60, number // 60, 1.0, 1.0, 1] for number in range(2001)]

    with pytest.raises(ValueError, match="more than are kept"):
        Table().take_over({"format": 1, "links": [], "curves": [["child", "SVC.fit", "cpu", points]]})
