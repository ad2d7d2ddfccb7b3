"""A worker that cannot start, or a pool that is too small, costs no call."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sklearn_wsl_gpu import FallbackWarning, PoolTooSmall, WorkerStartError, offload, sessions

X = np.random.default_rng(0).normal(size=(60, 4))


@pytest.mark.falls_back
def test_a_worker_that_cannot_start_costs_no_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))

    with offload() as session, pytest.warns(FallbackWarning, match="cannot be started"):
        StandardScaler().fit(X)
        StandardScaler().fit(X)

    assert [call.reason.code for call in session.report().calls if call.reason] == ["worker-start"] * 2


@pytest.mark.falls_back
def test_a_worker_that_ends_at_once_is_told_with_what_it_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho something is missing >&2\nexit 3\n")
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))

    with offload(fallback="raise"), pytest.raises(WorkerStartError, match="exit code 3") as raised:
        StandardScaler().fit(X)

    assert "something is missing" in str(raised.value)


def _start_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.mark.falls_back
def test_a_worker_that_is_needed_when_the_interpreter_ends_costs_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    _start_no_threads(monkeypatch)

    with offload(), pytest.warns(FallbackWarning, match="at this moment: can't create new thread"):
        assert StandardScaler().fit(X).n_samples_seen_ == 60


@pytest.mark.usefixtures("running_worker")
@pytest.mark.parametrize("carrier", ["shared", "stream"])
def test_a_worker_that_runs_is_used_though_the_interpreter_ends(carrier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _start_no_threads(monkeypatch)

    with offload(fallback="raise", carrier=carrier) as session:
        assert StandardScaler().fit(X).n_samples_seen_ == 60
        assert session.report().offloaded == 1


@pytest.mark.usefixtures("running_worker")
def test_a_session_goes_on_though_the_interpreter_ends_before_its_pages_are_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, refused = threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        if threading.current_thread().name == "sklearn_wsl_gpu room":
            refused.append(thread)
            raise RuntimeError("can't create new thread at interpreter shutdown")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with offload(fallback="raise"):
        StandardScaler().fit(X)
        (session,) = sessions.live()
        assert session.room.ready.wait(60)
        assert session.room.grow(2**20)

    assert len(refused) == 1
    assert session.room._thread.is_alive()


@pytest.mark.falls_back
@pytest.mark.usefixtures("running_worker")
def test_what_can_never_fit_in_the_pool_is_done_here_and_the_setting_is_named() -> None:
    big = np.zeros((3000, 100))
    with (
        offload(slots=(1, 1, 0), slot_bytes=2**20, pool_limit=0) as session,
        pytest.warns(FallbackWarning, match="slot_bytes"),
    ):
        StandardScaler().fit(big)

    assert [call.reason.code for call in session.report().calls if call.reason] == ["pool-too-small"]
    with (
        offload(fallback="raise", slots=(1, 1, 0), slot_bytes=2**20, pool_limit=0),
        pytest.raises(PoolTooSmall, match="slots"),
    ):
        StandardScaler().fit(big)


@pytest.mark.usefixtures("running_worker")
def test_a_result_that_is_larger_than_was_guessed_arrives_all_the_same() -> None:
    with offload(fallback="raise", slots=(2, 2, 4), slot_bytes=2**22) as session:
        encoded = OneHotEncoder(sparse_output=False).fit_transform(np.arange(1000).reshape(-1, 1))

    assert encoded.shape == (1000, 1000)
    assert (encoded == np.eye(1000)).all()
    assert session.report().calls[0].bytes_received > 8_000_000
