"""The report: what ran where, why not elsewhere, what it cost; as a table and as data."""

from __future__ import annotations

import dataclasses
import os
import warnings

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

import sklearn_wsl_gpu
from sklearn_wsl_gpu import CallRecord, FallbackWarning, Reason, Report, offload
from sklearn_wsl_gpu.reporting import PHASES, process_report

X = np.random.default_rng(0).normal(size=(50, 4))

ON_WORKER = CallRecord(
    "KMeans", "fit", "worker", "cpu", None, dict.fromkeys(PHASES, 0.25), bytes_sent=2_500_000, bytes_received=900
)
STAYED = CallRecord(
    "Ridge", "fit", "local", "scikit-learn", Reason("excluded", "Ridge is in exclude."), {"compute": 0.5}
)


def _report(*records: CallRecord) -> Report:
    report = Report()
    for record in records:
        report.add(record)
    return report


def test_an_empty_report_says_so() -> None:
    assert str(Report()) == "No calls yet."
    assert repr(Report()) == "<Report: 0 calls offloaded, 0 local>"


def test_calls_are_data_in_order() -> None:
    report = _report(ON_WORKER, STAYED, ON_WORKER)

    assert report.calls == [ON_WORKER, STAYED, ON_WORKER]
    assert (report.offloaded, report.local) == (2, 1)
    assert repr(report) == "<Report: 2 calls offloaded, 1 local>"
    assert ON_WORKER.total_seconds == 1.5


def test_what_became_of_a_carrier_is_told_once_and_for_all() -> None:
    report = _report(ON_WORKER)
    before = str(report)
    report.note_carriers([("file", "in use"), ("stream (tcp)", "in use")])
    report.note_carriers([("stream (tcp)", "in use"), ("file", "given up: It shows <other> bytes.")])
    report.note_carriers([("file", "in use")])  # a later session could use it again

    assert report.carriers == {"file": ["in use", "given up: It shows <other> bytes."], "stream (tcp)": ["in use"]}
    assert report.to_dict()["carriers"] == report.carriers
    told = "[carrier file] in use\n[carrier file] given up: It shows <other> bytes.\n[carrier stream (tcp)] in use"
    assert str(report) == f"{before}\n{told}"
    assert "given up: It shows &lt;other&gt; bytes." in report._repr_html_()


def test_the_list_of_calls_is_a_copy_and_a_record_does_not_change() -> None:
    report = _report(ON_WORKER)
    report.calls.clear()

    assert len(report.calls) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.calls[0].where = "local"  # type: ignore[misc]


def test_the_table_has_a_line_for_each_kind_of_call_and_a_note_for_each_reason() -> None:
    lines = str(_report(ON_WORKER, STAYED, ON_WORKER, STAYED)).splitlines()

    table = [" ".join(line.split()) for line in lines]
    assert table[0] == "call n where start s gather s send s compute s receive s adopt s sent received"
    assert table[2] == "KMeans.fit 2 worker (cpu) 0.5000 0.5000 0.5000 0.5000 0.5000 0.5000 5.0 MB 1.8 kB"
    assert table[3] == "Ridge.fit 2 local (scikit-learn) [excluded] 0.0000 0.0000 0.0000 1.0000 0.0000 0.0000 0 B 0 B"
    assert lines[4:] == ["[excluded] Ridge is in exclude."]
    assert len({len(line) for line in lines[1:2]} | {max(map(len, lines[:4]))}) == 1


def test_the_same_call_with_another_reason_has_a_line_of_its_own() -> None:
    other = dataclasses.replace(STAYED, reason=Reason("in-place", "It may overwrite."))

    assert str(_report(STAYED, other)).count("Ridge.fit") == 2


def test_calls_with_figures_in_their_reason_are_of_one_kind_with_the_latest_words() -> None:
    reasons = [Reason("stays-cheaper", f"{here} ms here", varies=True) for here in range(900)]
    report = _report(STAYED, *[dataclasses.replace(STAYED, reason=reason) for reason in reasons])

    assert [(row["n"], row["reason"]["words"]) for row in report.to_dict()["calls"]] == [
        (1, "Ridge is in exclude."), (900, "899 ms here"),
    ]  # fmt: skip
    assert {kind.reason: n for kind, n in report.counts().items()} == {STAYED.reason: 1, reasons[-1]: 900}
    assert len(str(report).splitlines()) == 6
    assert str(report).endswith("[stays-cheaper] 899 ms here")


def test_old_calls_leave_the_list_but_not_the_totals() -> None:
    report = _report(*[ON_WORKER] * 10_500)

    assert len(report.calls) == 10_000
    assert report.offloaded == 10_500
    assert "10500" in str(report)


def test_a_block_reports_its_own_calls_and_those_of_blocks_inside(shared_worker: None) -> None:
    with offload() as outer:
        StandardScaler().fit(X)
        with offload(exclude=["Ridge"]) as inner:
            Ridge().fit(X, X[:, 0])

    assert [call.estimator for call in inner.report().calls] == ["Ridge"]
    assert [call.estimator for call in outer.report().calls] == ["StandardScaler", "Ridge"]
    assert process_report.calls[-2:] == outer.report().calls
    assert sklearn_wsl_gpu.report() is process_report


def test_a_record_tells_phases_and_bytes(shared_worker: None) -> None:
    with offload() as session:
        scaled = StandardScaler().fit_transform(X)
    (record,) = session.report().calls

    assert (record.estimator, record.method, record.where, record.engine) == (
        "StandardScaler", "fit_transform", "worker", "cpu",
    )  # fmt: skip
    assert record.reason is None
    assert tuple(record.seconds) == PHASES
    assert all(seconds >= 0 for seconds in record.seconds.values())
    assert X.nbytes < record.bytes_sent < X.nbytes + 10_000
    assert scaled.nbytes < record.bytes_received < scaled.nbytes + 10_000


@pytest.mark.skipif(os.name == "nt", reason="a worker runs on Linux")
def test_the_start_of_a_worker_is_a_phase_of_its_own() -> None:
    with offload() as session:
        for _ in range(2):
            StandardScaler().fit(X)
    first, second = (call.seconds for call in session.report().calls)

    assert first["start"] > first["gather"]  # a new process, and a look at an array
    assert first["start"] > second["start"]


@pytest.mark.falls_back
def test_a_reason_has_a_code_and_words_and_is_warned_of_once_a_block(shared_worker: None) -> None:
    model = KMeans(2, n_init=1, init=lambda X, n_clusters, random_state: X[:n_clusters])
    with offload() as session, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(3):
            model.fit(X)

    (reason,) = {call.reason for call in session.report().calls}
    assert reason is not None
    assert reason.code == "unsupported-argument"
    assert "callables" in reason.words
    assert [item.category for item in warned] == [FallbackWarning]
    assert warned[0].filename == __file__


def test_a_call_that_fails_here_is_reported_as_well(shared_worker: None) -> None:
    with offload(exclude=["Ridge"]) as session, pytest.raises(ValueError, match="NaN"):
        Ridge().fit(X * np.nan, X[:, 0])

    assert [(call.where, call.method) for call in session.report().calls] == [("local", "fit")]


def test_repr_of_a_session_and_status_tell_the_state_of_the_worker(shared_worker: None) -> None:
    with offload() as session:
        StandardScaler().fit(X)
        status = session.status()

    assert repr(session) == "<OffloadSession with this process's worker: <Report: 1 calls offloaded, 0 local>>"
    assert status["pool_bytes"] == 16 * 2**28
    assert status["pool_used_bytes"] == 0


def test_a_call_whose_warning_is_an_error_is_reported_as_well(shared_worker: None) -> None:
    with offload() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", ConvergenceWarning)
        with pytest.raises(ConvergenceWarning):
            LogisticRegression(max_iter=1).fit(X, np.arange(50) % 2)

    assert [call.where for call in session.report().calls] == ["worker"]
