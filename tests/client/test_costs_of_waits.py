"""What the table of costs learns where a call has waited for others, or another engine has come."""

from __future__ import annotations

from typing import Any

import pytest

from sklearn_wsl_gpu import costfile
from sklearn_wsl_gpu.costs import Table
from tests.client.test_costs import GPU, work


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
        Table().take_over({"format": 2, "links": [], "curves": [["child", "SVC.fit", "cpu", points]]})


def _slow_engine(day: int) -> dict[str, Any]:
    """Return what is kept after calls of one kind went to plain scikit-learn, and those of another stayed for it."""
    table = Table(day)
    for _ in range(4):
        table.note_local(work("Ridge.fit", engine=""), 0.1)
        table.note_remote(work("Ridge.fit", engine="cpu"), "cpu", 0.2, 0.01, 10**7)
        table.note_local(work("SVC.fit", engine=""), 0.1)
    return table.to_data()


@pytest.mark.parametrize("kind", ["Ridge.fit", "SVC.fit"])
def test_what_stayed_because_of_a_slow_engine_goes_once_there_is_another(kind: str) -> None:
    table = Table(20_000)
    table.take_over(_slow_engine(20_000))
    assert table.predict(work(kind, engine="")).stays
    assert not table.predict(work(kind, engine=GPU)).stays, "an open session knows of it"

    table.note_remote(work("KMeans.fit", engine=GPU), "cuml", 0.2, 0.01, 10**7)
    assert not table.predict(work(kind, engine="")).stays, "another call has met it"

    table.note_remote(work("KMeans.fit", engine="cpu"), "cpu", 0.2, 0.01, 10**7)
    assert table.predict(work(kind, engine="")).stays, "what was measured of the first one holds again"


@pytest.mark.parametrize("kind", ["Ridge.fit", "SVC.fit"])
@pytest.mark.parametrize(("later", "stays"), [(0, True), (1, True), (2, False), (-1, False)])
def test_what_is_known_of_an_engine_is_believed_for_a_day(kind: str, later: int, stays: bool) -> None:
    table = Table(20_000 + later)
    table.take_over(_slow_engine(20_000))

    assert table.predict(work(kind, engine="")).stays == stays


@pytest.mark.parametrize("kind", ["Ridge.fit", "SVC.fit"])
def test_a_worker_that_is_set_up_or_started_is_tried(kind: str) -> None:
    costfile.save(_slow_engine(20_000))
    costfile.forget_engines()
    table = Table(20_000)
    table.take_over(costfile.load())

    assert not table.predict(work(kind, engine="")).stays
    assert table.to_data()["curves"] == _slow_engine(20_000)["curves"], "what was measured is kept"
    costfile.path().write_text("damaged")
    costfile.forget_engines()
    assert costfile.path().read_text() == "damaged"
    costfile.path().unlink()
    costfile.forget_engines()
    assert not costfile.path().exists()
