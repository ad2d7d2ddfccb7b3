"""Sessions over a file that lies: results stay right, and the report says what became of the carrier."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import FallbackWarning, OffloadSession, offload, sessions
from sklearn_wsl_gpu.carriers import calibration
from sklearn_wsl_gpu.carriers.base import Carrier
from sklearn_wsl_gpu.carriers.calibration import Rates
from sklearn_wsl_gpu.config import Settings
from sklearn_wsl_gpu.errors import ConfigurationError, PoolTooSmall
from sklearn_wsl_gpu.keys import create_keys
from sklearn_wsl_gpu.pool import Pool
from tests.carriers import lying
from tests.integration.tools import until

pytestmark = pytest.mark.timeout(120)

RANDOM = np.random.default_rng(0)
STREAM = "stream (tcp)"


class Worker:
    """A worker to which every pool lies."""

    def __init__(self, endpoint: str, keys: Path, mode: Path) -> None:
        self.endpoint, self.keys, self._mode = endpoint, keys, mode

    def lie(self, mode: str) -> None:
        """Switch a mode on."""
        other = self._mode.with_suffix(".new")
        other.write_text(mode)
        other.replace(self._mode)


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    where = tmp_path_factory.mktemp("lying")
    keys, mode = where / "keys", where / "mode"
    create_keys(keys)
    mode.write_text("coherent")
    command = [sys.executable, lying.__file__, str(mode), "--keys", str(keys)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Worker(process.stdout.readline().split('"')[3], keys, mode)
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture
def worker(one_worker: Worker) -> Iterator[Worker]:
    yield one_worker
    sessions.shutdown()
    one_worker.lie("coherent")


@pytest.fixture
def file_before_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sessions have both carriers, and take the file while they can."""
    rates = {"file": Rates(1e-6, 1e12, 1e12), STREAM: Rates(1.0, 1.0, 1.0)}
    monkeypatch.setattr(Settings, "carriers", lambda _: ["file", "stream"])
    monkeypatch.setattr(calibration, "load", lambda _: rates)


@contextlib.contextmanager
def _session(
    worker: Worker, tmp_path: Path, carrier: str = "file", fallback: str = "raise"
) -> Iterator[OffloadSession]:
    with offload(
        endpoint=worker.endpoint, keys=worker.keys, carrier=carrier, pool_dir=tmp_path, slots=(2, 2, 0),
        slot_bytes=2**24, fallback=fallback,
    ) as session:  # fmt: skip
        yield session


def _check() -> None:
    """Transform what was never seen before; the result has to be right."""
    X = RANDOM.normal(size=(60_000, 4))
    scaler = StandardScaler()

    found = scaler.fit_transform(X)

    mean, deviation = X.mean(axis=0), X.std(axis=0)
    np.testing.assert_allclose(found, (X - mean) / deviation, atol=1e-9)
    np.testing.assert_allclose(scaler.mean_, mean, atol=1e-12)


def _states(session: OffloadSession) -> dict[str, str]:
    carriers = session.status()["carriers"]
    assert isinstance(carriers, list)
    return {carrier["name"]: carrier["state"] for carrier in carriers}


def _reason(session: OffloadSession, name: str) -> str:
    carriers: Any = session.status()["carriers"]
    return next(str(carrier["reason"]) for carrier in carriers if carrier["name"] == name)


@pytest.mark.parametrize("mode", lying.TRUTHS)
def test_calls_go_over_a_file_that_does_not_lie(mode: str, worker: Worker, tmp_path: Path) -> None:
    worker.lie(mode)
    with _session(worker, tmp_path) as session:
        _check()
        _check()

        assert _states(session) == {"file": "in use"}
        assert session.report().carriers == {"file": ["in use"]}
        assert session.report().offloaded == 2


@pytest.mark.parametrize("mode", lying.LIES)
def test_a_file_that_lies_from_the_beginning_is_refused_and_the_stream_is_taken(
    mode: str, worker: Worker, tmp_path: Path, file_before_stream: None
) -> None:
    worker.lie(mode)
    with _session(worker, tmp_path) as session:
        _check()

        assert _states(session) == {STREAM: "in use", "file": "refused"}
        report = session.report()
        assert report.carriers.keys() == {STREAM, "file"}
        assert report.carriers[STREAM] == ["in use"]
        assert f"[carrier file] refused: {_reason(session, 'file')}" in str(report)


def test_a_file_that_this_process_cannot_map_is_refused_with_what_to_do(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, nbytes: int, *_: object) -> mmap.mmap:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(mmap, "mmap", refuse)
    with (
        _session(worker, tmp_path),
        pytest.raises(ConfigurationError, match=r"pool_dir=.* cannot hold the pool \(No such device\)"),
    ):
        _check()

    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    with _session(worker, tmp_path) as session:
        _check()
        assert _states(session) == {"file": "in use"}


@pytest.mark.parametrize("mode", lying.LIES)
def test_a_file_that_begins_to_lie_is_given_up_with_a_reason_and_the_call_goes_by_stream(
    mode: str, worker: Worker, tmp_path: Path, file_before_stream: None
) -> None:
    with _session(worker, tmp_path) as session:
        _check()
        assert _states(session) == {"file": "in use", STREAM: "in use"}
        worker.lie(mode)
        for _ in range(3):  # what lies about the second look is caught then
            _check()

        assert _states(session) == {STREAM: "in use", "file": "demoted"}
        report = session.report()
        assert report.offloaded == 4
        assert "[carrier stream (tcp)] in use, " in str(report)
        assert " GB/s there, " in str(report)  # of two carriers it was measured
        assert f"[carrier file] given up: {_reason(session, 'file')}" in str(report)


@pytest.mark.falls_back
@pytest.mark.parametrize("mode", ["stale reads", "one-way there", "error after 3"])
def test_without_another_carrier_calls_are_done_here_with_the_reason(mode: str, worker: Worker, tmp_path: Path) -> None:
    with _session(worker, tmp_path, fallback="local") as session:
        _check()
        worker.lie(mode)
        with pytest.warns(FallbackWarning, match="file"):
            for _ in range(3):
                _check()
        worker.lie("coherent")
        sessions.shutdown()
        _check()

        reasons = [call.reason for call in session.report().calls]
        assert reasons[0] is None
        assert reasons[-1] is None  # a new session has found that it is coherent
        told = [reason for reason in reasons if reason is not None]
        assert {reason.code for reason in told} == {"no-carrier"}
        assert all("file: " in reason.words for reason in told)


def test_a_read_that_hangs_is_given_up_while_the_worker_goes_on_answering(
    worker: Worker, tmp_path: Path, file_before_stream: None
) -> None:
    with _session(worker, tmp_path) as session:
        _check()
        worker.lie(lying.HANG_READ)
        _check()

        assert _states(session) == {STREAM: "in use", "file": "demoted"}
        _check()
        worker.lie("coherent")


@pytest.mark.falls_back
def test_what_a_write_that_hangs_may_still_write_to_is_not_used_until_it_has_ended(
    worker: Worker, tmp_path: Path, file_before_stream: None
) -> None:
    with _session(worker, tmp_path, fallback="local") as session:
        _check()
        worker.lie(lying.HANG_WRITE)
        with pytest.warns(FallbackWarning, match="carrier-stalled"):
            _check()
        (pool,) = [one.pool for one in sessions.live()]
        held = pool.used_bytes
        _check()
        assert held > 0
        assert pool.used_bytes == held
        assert _states(session) == {STREAM: "in use", "file": "demoted"}

        worker.lie("coherent")

        def is_free() -> bool:
            _check()  # a request asks what has become of earlier ones
            return pool.used_bytes == 0

        until(is_free)
        assert [call.where for call in session.report().calls][:3] == ["worker", "local", "worker"]


@pytest.mark.falls_back
def test_a_call_whose_deadline_passes_while_a_read_hangs_leaves_nothing_behind(
    worker: Worker, tmp_path: Path, file_before_stream: None
) -> None:
    with _session(worker, tmp_path, fallback="local") as session:
        _check()
        worker.lie(lying.HANG_READ)
        with offload(timeout=0.3), pytest.warns(FallbackWarning, match="deadline"):
            _check()
        _check()
        (pool,) = [one.pool for one in sessions.live()]

        assert pool.used_bytes == 0
        assert _states(session) == {STREAM: "in use", "file": "demoted"}
        worker.lie("coherent")


def test_a_segment_that_is_added_while_the_file_lies_is_reached_by_stream(
    worker: Worker, tmp_path: Path, file_before_stream: None
) -> None:
    with _session(worker, tmp_path) as session:
        _check()
        worker.lie("one-way there")
        session.grow_pool(2**24)
        _check()

        assert _states(session) == {STREAM: "in use", "file": "demoted"}
        assert session.report().local == 0


def test_a_file_that_cannot_be_mapped_any_more_leaves_the_session_as_it_is(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    with _session(worker, tmp_path) as session:
        _check()
        with monkeypatch.context() as patch:
            patch.setattr(mmap, "mmap", refuse)
            with pytest.raises(PoolTooSmall):
                session.grow_pool(2**24)
            _check()

        assert _states(session) == {"file": "in use"}
        assert session.grow_pool(2**24) > 0


def test_several_carriers_are_measured_once_a_day(
    worker: Worker, tmp_path: Path, own_costs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "carriers", lambda _: ["file", "stream"])
    measured: list[str] = []
    measure = calibration.measure

    def watch(carrier: Carrier, pool: Pool) -> Rates:
        measured.append(carrier.name)
        return measure(carrier, pool)

    monkeypatch.setattr(calibration, "measure", watch)
    for _ in range(2):
        with _session(worker, tmp_path) as session:
            _check()
            told = session.status()["carriers"]
        sessions.shutdown()

    assert measured == ["file", STREAM]
    assert isinstance(told, list)
    assert [one["state"] for one in told] == ["in use", "in use"]
    assert all(one[name] > 0 for one in told for name in ("round_trip", "there", "back"))
