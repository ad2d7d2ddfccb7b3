"""What a call is expected to cost: from measurements, from what was published, and what is decided by it."""

from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_wsl_gpu.costs import Table
from sklearn_wsl_gpu.predictions import Prediction, Work, duration
from sklearn_wsl_gpu.published import SPEEDUPS, outlook

ROUND_TRIP, BANDWIDTH = 4e-4, 5e9
GPU = "cuml,array_api,cpu"


def work(kind: str = "KMeans.fit", nbytes: int = 10**7, columns: int = 20, engine: str = GPU) -> Work:
    return Work(kind, float(nbytes), columns, nbytes, "child auto auto", engine)


def crossing(nbytes: int) -> float:
    return ROUND_TRIP + nbytes / BANDWIDTH


def remote(table: Table, call: Work, seconds: float, engine: str = "cuml") -> None:
    """Note a call whose engine took so many seconds."""
    cross = crossing(call.nbytes)
    table.note_remote(call, engine, seconds + cross, cross, call.nbytes)


def known(table: Table, call: Work, local: float, there: float) -> Prediction:
    for _ in range(4):
        table.note_local(call, local)
        remote(table, call, there)
    return table.predict(call)


def test_a_call_of_which_nothing_is_known_goes_as_was_asked_for() -> None:
    prediction = Table().predict(work("KMeans.fit", engine=""))

    assert (prediction.stays, prediction.local, prediction.remote) == (False, None, None)


@pytest.mark.parametrize(
    "kind",
    ["LinearRegression.predict", "LogisticRegression.predict", "Ridge.predict", "KMeans.predict", "PCA.transform"],
)
@pytest.mark.parametrize("nbytes", [800, 10**5, 10**7, 10**9])
def test_what_was_published_to_lose_on_a_gpu_stays_from_the_first_call_on(kind: str, nbytes: int) -> None:
    table, call = Table(), work(kind, nbytes)

    for _ in range(5):
        assert table.predict(call).stays
        table.note_local(call, nbytes / 1e10 + 1e-4)


@pytest.mark.parametrize("kind", ["SVC.fit", "KernelDensity.score_samples", "RandomForestClassifier.fit", "TSNE.fit"])
def test_what_was_published_to_gain_goes_and_is_not_tried_here(kind: str) -> None:
    table, call = Table(), work(kind)

    for _ in range(5):
        assert not table.predict(call).stays
        remote(table, call, 0.5)


def test_a_worker_of_this_process_with_scikit_learn_is_no_faster_than_scikit_learn_here() -> None:
    assert Table().predict(work("SVC.fit", engine="cpu")).stays
    # Somebody else's worker may have other cores.
    assert not Table().predict(work("SVC.fit", engine="cpu")._replace(child=False)).stays


def test_the_cheaper_side_is_taken_and_the_words_say_what_either_takes() -> None:
    stays = known(Table(), work("KMeans.predict", nbytes=10**6), 0.003, 0.0404)
    goes = known(Table(), work("SVC.fit"), 8.0, 0.08)

    assert stays.words == "KMeans.predict stayed: 3 ms here, 41 ms there."
    assert (stays.stays, goes.stays) == (True, False)
    assert goes.remote == pytest.approx(0.08 + crossing(10**7), rel=0.01)


def test_what_stays_though_it_has_taken_longer_here_says_why() -> None:
    table, call = Table(), work("PCA.transform", nbytes=10**6)
    table.note_local(call, 0.0130)
    for _ in range(2):
        remote(table, call, 0.0085)

    stays = table.predict(call)

    assert stays.stays
    assert stays.words == "PCA.transform stayed: 13 ms here, 9.5 ms there, and is measured here once more to be sure."


def test_what_is_not_measured_yet_is_told_as_an_estimate() -> None:
    table, call = Table(), work("PCA.transform", nbytes=8)
    table.note_local(call, 0.001)

    assert table.predict(call).words == "PCA.transform stayed: 1 ms here, about 13 ms there."
    assert table.predict(call).measured == (True, False)


def test_parameters_of_an_algorithm_are_not_in_the_words() -> None:
    call = work("SVC.fit kernel=linear")

    assert known(Table(), call, 0.001, 2.0).words.startswith("SVC.fit stayed: 1 ms here")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(4.2e-7, "0.42 us"), (9.4e-5, "94 us"), (0.00099, "990 us"), (0.000999, "1 ms"), (0.0031, "3.1 ms"),
     (0.041, "41 ms"), (0.9949, "995 ms"), (0.996, "1 s"), (2.35, "2.4 s"), (840.0, "840 s")],
)  # fmt: skip
def test_durations_have_a_unit_and_no_more_digits_than_matter(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_round_trip_and_bandwidth_are_measured() -> None:
    table = Table()
    for nbytes in (1000, 10**8):
        for _ in range(20):
            table.note_remote(work(nbytes=nbytes), "cuml", 1.0 + 0.02 + nbytes / 1e8, 0.02 + nbytes / 1e8, nbytes)
    other = work("SVC.fit", nbytes=10**7)
    for _ in range(4):
        table.note_local(other, 15.7)

    # SVC.fit was never there: a median of 15.7 times faster was published.
    assert table.predict(other).remote == pytest.approx(0.02 + 0.1 + 1.0, rel=0.02)


def test_a_slow_way_keeps_here_what_a_fast_one_would_carry() -> None:
    call, decided = work("StandardScaler.fit_transform", nbytes=10**8), {}
    for bandwidth in (1e7, 1e10):
        table = Table()
        for _ in range(4):
            table.note_local(call, 0.2)
            cross = call.nbytes / bandwidth
            table.note_remote(call, "cuml", 0.05 + cross, cross, call.nbytes)
        decided[bandwidth] = table.predict(call).stays

    assert decided == {1e7: True, 1e10: False}


def test_data_that_lie_in_the_pool_cost_no_crossing() -> None:
    call = work("StandardScaler.fit_transform", nbytes=10**9)
    table = Table()
    for _ in range(4):
        table.note_local(call, 0.2)
        remote(table, call, 0.1)

    assert table.predict(call).stays
    assert not table.predict(call._replace(lying=10**9)).stays


def test_a_power_of_the_size_is_followed_between_and_beyond_what_was_measured() -> None:
    table = Table()
    for nbytes in (10**5, 10**7):
        for _ in range(4):
            table.note_local(work(nbytes=nbytes), 1e-12 * nbytes**1.5)
            remote(table, work(nbytes=nbytes), 1.0)

    for nbytes in (10**5, 10**6, 10**7, 3 * 10**7):
        assert table.predict(work(nbytes=nbytes)).local == pytest.approx(1e-12 * nbytes**1.5, rel=0.01)


def test_small_calls_tell_nothing_of_large_ones_where_something_was_published() -> None:
    table, large = Table(), work("SVC.fit", nbytes=10**7)
    for _ in range(9):  # here faster than any device can begin
        known(table, work("SVC.fit", nbytes=800), 1e-4, 5e-3)
        table.note_local(large, 3.0)

    assert table.predict(work("SVC.fit", nbytes=800)).stays
    assert not table.predict(large).stays


def test_the_first_measurement_counts_only_until_there_is_a_second() -> None:
    table, call = Table(), work("SVC.fit")
    for _ in range(4):
        table.note_local(call, 1.0)
    remote(table, call, 1.5)  # with what a device does once
    assert not table.predict(call).stays
    remote(table, call, 0.1)

    assert table.predict(call).remote == pytest.approx(0.1 + crossing(call.nbytes), rel=0.01)


def test_one_slow_call_among_many_does_not_turn_the_decision() -> None:
    table, call = Table(), work("SVC.fit")
    known(table, call, 1.0, 0.2)
    remote(table, call, 500.0)

    assert not table.predict(call).stays


def test_a_lasting_change_turns_the_decision() -> None:
    table, call = Table(), work("SVC.fit")
    known(table, call, 1.0, 0.2)
    for _ in range(20):
        remote(table, call, 5.0)

    assert table.predict(call).stays


def test_the_side_that_lost_narrowly_is_tried_again_in_time() -> None:
    table, call = Table(), work("SVC.fit")
    known(table, call, 1.0, 1.3)
    tried = 0
    for _ in range(1000):
        prediction = table.predict(call)
        tried += not prediction.stays
        if prediction.stays:
            table.note_local(call, 1.0)
        else:
            remote(table, call, 1.3)

    assert 1 <= tried <= 30  # which costs less than one in a hundred


def test_other_algorithms_and_other_places_are_told_apart() -> None:
    table = Table()
    known(table, work("SVC.fit kernel=linear"), 0.001, 2.0)

    assert table.predict(work("SVC.fit kernel=linear")).stays
    assert not table.predict(work("SVC.fit")).stays
    assert table.predict(work("SVC.fit kernel=linear")._replace(place="tcp://1.2.3.4:5 auto auto")).measured == (
        True, False,
    )  # fmt: skip


def _published() -> list[tuple[Work, float, float]]:
    path = Path(__file__).parents[2] / "benchmarks" / "published_times.csv"
    calls = []
    with path.open() as file:
        for row in csv.DictReader(file):
            call = work(row["method"], int(float(row["megabytes"]) * 1e6), int(row["columns"]), "")
            there = float(row["remote_ms"]) / 1e3 + crossing(call.nbytes)
            calls.append((call, float(row["local_ms"]) / 1e3, there))
    return calls


def _run(table: Table, calls: list[tuple[Work, float, float]]) -> float:
    """Do calls as the table says, learning; return the seconds they take."""
    total = 0.0
    for call, here, there in calls:
        if table.predict(call).stays:
            table.note_local(call, here)
            total += here
        else:
            cross = crossing(call.nbytes)
            table.note_remote(call._replace(engine=GPU), "cuml", there, cross, call.nbytes)
            total += there
    return total


@pytest.mark.parametrize("seed", range(20))
def test_200_calls_with_known_times_take_no_more_than_a_tenth_over_the_better_side(seed: int) -> None:
    calls = random.Random(seed).choices(_published(), k=200)
    best = sum(min(here, there) for _, here, there in calls)
    better = min(sum(here for _, here, _ in calls), sum(there for _, _, there in calls))
    table = Table()

    first = _run(table, calls)
    rest = [_run(table, calls) for _ in range(3)]

    # Nothing measured yet: no worse than the better of the two policies without a table.
    assert first <= 1.1 * better
    # As soon as each was done: no worse than had the better side been known for each call.
    assert max(rest) <= 1.1 * best
    assert best < 0.7 * better  # the set is one in which it matters


@given(st.lists(st.tuples(st.sampled_from(sorted(SPEEDUPS)), st.floats(0.6, 1.6)), min_size=1, max_size=20))
def test_the_same_measurements_make_the_same_decisions(notes: list[tuple[str, float]]) -> None:
    tables = [Table(), Table()]
    for kind, seconds in notes:
        decided = {table.predict(work(kind)) for table in tables}
        assert len(decided) == 1
        for table in tables:
            if decided.copy().pop().stays:
                table.note_local(work(kind), seconds)
            else:
                remote(table, work(kind), seconds)

    read = Table()
    read.take_over(json.loads(json.dumps(tables[0].to_data())))
    assert {read.predict(work(kind)) for kind in SPEEDUPS} == {tables[0].predict(work(kind)) for kind in SPEEDUPS}


@given(
    st.lists(
        st.tuples(st.booleans(), st.floats(0, 1e9), st.floats(0, 1e6), st.integers(0, 10**12), st.integers(0, 10**6)),
        max_size=30,
    )
)
def test_whatever_was_measured_there_is_a_prediction_and_it_can_be_kept(notes: list[tuple[Any, ...]]) -> None:
    table = Table()
    for here, seconds, cross, nbytes, columns in notes:
        call = work(nbytes=nbytes, columns=columns)._replace(size=max(float(nbytes), 8.0))
        if here:
            table.note_local(call, seconds)
        else:
            table.note_remote(call, "cuml", seconds, cross, nbytes)
        prediction = table.predict(call)
        assert prediction.local is not None
        assert prediction.remote is not None
        assert 0 < prediction.local < math.inf
        assert 0 < prediction.remote < math.inf
    Table().take_over(json.loads(json.dumps(table.to_data())))


def test_a_table_is_of_bounded_size_and_those_used_longest_ago_leave() -> None:
    table = Table()
    for number in range(2000):
        table.note_local(work(f"Made{number}.fit"), 1.0)
        table.note_local(work("SVC.fit"), 1.0)
        remote(table, work("SVC.fit")._replace(place=f"tcp://127.0.0.1:{number} auto auto"), 1.0)

    assert table.predict(work("SVC.fit")).local == pytest.approx(1.0)
    assert table.predict(work("Made3.fit")).local is None
    assert len(json.dumps(table.to_data())) < 200_000


def test_what_was_measured_here_stands_and_the_rest_is_taken_over() -> None:
    one, other = Table(), Table()
    one.note_local(work("SVC.fit"), 1.0)
    other.note_local(work("SVC.fit"), 9.0)
    other.note_local(work("SVR.fit"), 3.0)
    one.take_over(other.to_data())
    other.note_local(work("SVR.fit"), 4.0)
    one.take_over(other.to_data())

    assert one.predict(work("SVC.fit")).local == pytest.approx(1.0)
    assert one.predict(work("SVR.fit")).local == pytest.approx(4.0)


def _table() -> dict[str, Any]:
    table = Table()
    known(table, work(), 1.0, 2.0)
    return table.to_data()


@pytest.mark.parametrize(
    "data",
    [
        None, 3, [], {}, {"format": 99, "links": [], "curves": []}, {**_table(), "links": 3},
        {**_table(), "curves": [[]]}, {**_table(), "curves": [["", "SVC.fit", "", []]]},
        {**_table(), "curves": [["", "SVC.fit", "", [[1, 1, 1.0, 1.0]]]]},
        {**_table(), "curves": [["", "SVC.fit", "", [[1, 1, 1e9, 1.0, 1]]]]},
        {**_table(), "curves": [["", "SVC.fit", "", [[1, 1, math.nan, 1.0, 1]]]]},
        {**_table(), "curves": [["", "SVC.fit", "", [[1, 1, 1.0, True, 1]]]]},
        {**_table(), "curves": [["", "SVC.fit", "", [[1, 1, 1.0, 1.0, 0]]]]},
        {**_table(), "curves": [["", "x" * 1000, "", [[1, 1, 1.0, 1.0, 1]]]]},
        {**_table(), "links": [["child", 3, 1.0, 1, 1.0, 1, 0]]},
        {**_table(), "links": [["child", "cpu", 1.0, 1, 10**400, 1, 0]]},
        {**_table(), "links": [["child", "cpu", 1.0, -1, 1.0, 1, 0]]},
        {**_table(), "links": [["child", "cpu", 1.0, 1, 1.0, 1, "0"]]},
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused_and_changes_nothing(data: Any) -> None:
    table = Table()
    known(table, work(), 1.0, 2.0)
    before = table.to_data()

    with pytest.raises(ValueError, match=r"."):
        table.take_over(data)
    assert table.to_data() == before


def test_what_is_expected_is_between_the_worst_and_the_best_that_was_published() -> None:
    for kind in SPEEDUPS:
        found = outlook(kind, "cuml", child=True)
        assert found.worst <= found.likely <= found.best
    assert outlook("KMeans.fit algorithm=elkan", "cuml", child=True) == outlook(
        "KMeans.fit_predict", "cuml", child=True
    )
    assert outlook("Nystroem.fit", "array_api", child=True).likely == 5.8
    assert outlook("KMeans.predict", "cpu", child=True) == (1, 1, 1)
