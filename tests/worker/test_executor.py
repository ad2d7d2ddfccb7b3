"""The executor when a device is full, or lost: models make room once, and a process without a device ends."""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sklearn_wsl_gpu.errors import StaleReference
from sklearn_wsl_gpu.pool import Geometry, Segment, placing
from sklearn_wsl_gpu.pool.layout import DATA_OFFSET, PAGE
from sklearn_wsl_gpu.protocol.messages import CallBody, ResultBody, encode_body
from tests.worker.test_staging import _Device
from wsl_worker import executor as module
from wsl_worker.calls import ModelMissing, _Generators
from wsl_worker.engines.base import DeviceLost
from wsl_worker.engines.cpu import CpuEngine
from wsl_worker.engines.staging import Ahead, Ring
from wsl_worker.executor import Executor
from wsl_worker.finished import Finished
from wsl_worker.link import DEVICE_LOST, Link
from wsl_worker.supervisor import Supervisor


class _Engine(CpuEngine):
    """Has as little memory as it is told."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    def call(self, model: Any, method: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        self.calls += 1
        drawn = arguments[0].random_sample()
        if self.calls <= self.failures:
            raise MemoryError("the device is full")
        return drawn


class _Link:
    def __init__(self) -> None:
        self.sent: list[list[Any]] = []

    def send(self, head: list[Any], body: bytes = b"") -> None:
        self.sent.append(head)


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "Output", lambda: SimpleNamespace(take=lambda: None))
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def _executor(failures: int, kept: int) -> tuple[Executor, _Engine]:
    engine = _Engine(failures)
    made = Executor([engine], _Link(), 1000)  # type: ignore[arg-type]
    for number in range(kept):
        made._models.keep((1, "cpu", number), "model", 10)
    return made, engine


def _work(engine: _Engine, generator: np.random.RandomState | None = None) -> tuple[Any, _Generators]:
    generator = generator or np.random.RandomState(0)
    return functools.partial(engine.call, None, "fit", [generator], {}), _Generators([generator], None)


def test_a_full_device_drops_its_models_and_tries_once_more_with_the_same_random_numbers() -> None:
    made, engine = _executor(failures=1, kept=3)

    shared = np.random.RandomState(3)
    work, generators = _work(engine, shared)
    assert made._calls._compute(work, True, generators) == np.random.RandomState(3).random_sample()
    assert engine.calls == 2
    assert len(made._models) == 0


def test_a_device_that_stays_full_fails_after_the_second_attempt() -> None:
    made, engine = _executor(failures=9, kept=3)

    work, generators = _work(engine)
    with pytest.raises(MemoryError):
        made._calls._compute(work, True, generators)
    assert engine.calls == 2


@pytest.mark.parametrize(("may_repeat", "kept"), [(True, 0), (False, 3)])
def test_nothing_is_tried_again_that_would_not_help_or_would_count_twice(may_repeat: bool, kept: int) -> None:
    made, engine = _executor(failures=1, kept=kept)

    work, generators = _work(engine)
    with pytest.raises(MemoryError):
        made._calls._compute(work, may_repeat, generators)
    assert engine.calls == 1
    assert len(made._models) == kept


def test_pages_are_made_ready_by_one_thread_however_often_a_client_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = _executor(failures=0, kept=0)
    made._segments[1, 0] = segment = Segment.create(Geometry(PAGE, 1, 1, 0))
    begun, go_on = threading.Event(), threading.Event()

    def wait(*about: Any) -> None:
        begun.set()
        go_on.wait()

    monkeypatch.setattr(module, "prefault", wait)
    before = threading.active_count()
    for _ in range(100):
        made._warm(1, 0, DATA_OFFSET, PAGE)
    begun.wait()

    assert threading.active_count() == before + 1
    go_on.set()
    segment.close()


class _Following(CpuEngine):
    """Has a device of numpy, with pieces of a page."""

    def __init__(self) -> None:
        self.device = _Device()
        self.ring = Ring(self.device, PAGE, 2)
        self._ahead = Ahead(lambda: self.ring)

    @property
    def ahead(self) -> Ahead:
        return self._ahead


SPAN = [0, DATA_OFFSET, 4 * PAGE, 5]


@pytest.mark.parametrize(
    ("between", "transfer", "pages"),
    [
        ([], 3, 3),
        ([], 4, 0),
        ([], 0, 0),
        ([["arrived", 1, 3, SPAN, 4 * PAGE]], 3, 4),
        ([["arrived", 1, 3, SPAN, 0]], 3, 0),
        ([["arrived", 2, 3, SPAN, 0]], 3, 3),
        ([["detach", 1]], 3, 0),
        ([["detach", 2]], 3, 3),
        ([["job", 2, 8, None, None, 0]], 3, 0),
        ([["arrived", 1, 4, [7, *SPAN[1:]], 4 * PAGE]], 3, 3),
    ],
)
def test_what_has_come_ahead_is_given_to_the_call_of_that_transfer_and_to_no_other(
    between: list[list[Any]], transfer: int, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, link = _Following(), _Link()
    made = Executor([engine], link, 1000)  # type: ignore[arg-type]
    segment = Segment.create(Geometry(4 * PAGE, 1, 1, 0))
    window = segment.window(DATA_OFFSET, 4 * PAGE)
    window[:] = np.random.default_rng(0).integers(0, 256, 4 * PAGE)
    made._handle(["arrived", 1, 3, SPAN, 4 * PAGE], b"", None)
    assert engine.ahead.key is None, "the segment is not there yet"
    made._segments[1, 0] = segment
    target = np.zeros(4 * PAGE, np.uint8)
    monkeypatch.setattr(
        made, "_job", lambda session, *about: session == 1 and engine.ahead.fill(engine.ring, target, window)
    )

    made._handle(["arrived", 1, 3, SPAN, 3 * PAGE + 9], b"", None)
    for message in between:
        made._handle(message, b"", None)
    made._handle(["job", 1, 9, SPAN, None, transfer], b"", None)

    np.testing.assert_array_equal(target, window)
    assert engine.device.moved == pages * PAGE
    assert engine.ahead.key is None
    segment.close()


def test_an_executor_without_its_device_ends_and_the_front_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = _executor(failures=0, kept=0)
    codes: list[int] = []
    monkeypatch.setattr(module.os, "_exit", codes.append)

    def work() -> None:
        raise DeviceLost("The GPU no longer answers.")

    made._guarded(7, work)

    assert codes == [DEVICE_LOST]
    assert made._link.sent == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("code", "words"), [(DEVICE_LOST, "lost its device, which no longer answered,"), (3, "ended with exit code 3")]
)
def test_how_an_executor_ended_is_said_in_words(code: int, words: str) -> None:
    supervisor = Supervisor("cpu", "auto", 1000)
    ours, theirs = socket.socketpair()
    supervisor.link = Link(ours, blocking=False)
    supervisor.process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    supervisor.pidfd = os.pidfd_open(supervisor.process.pid)
    supervisor.process.wait()
    theirs.close()

    assert supervisor.bury() == words
    assert not supervisor.running


@pytest.mark.parametrize("failure", [None, ValueError("x"), MemoryError("x"), StaleReference("x"), ModelMissing()])
def test_an_interrupt_in_the_middle_of_an_answer_tears_nothing(
    failure: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = _executor(failures=0, kept=0)
    whole: list[str] = []

    def send(head: list[Any], body: bytes = b"") -> None:
        made._on_interrupt(2, None)  # type: ignore[arg-type]
        whole.append(head[0])

    monkeypatch.setattr(made._link, "send", send)

    def run(*_: Any) -> Any:
        if failure is not None:
            raise failure
        arrays = [np.zeros(10)]
        return Finished(ResultBody(None, None, [], [], [], [], 0.0, False), arrays, *placing.plan(arrays))

    monkeypatch.setattr(made._calls, "run", run)
    monkeypatch.setattr(made._output, "take", list)
    body = CallBody("", "f", "cpu", 0, 0, None, [], [], [], [], [], None, -1, 0)
    made._job(1, 7, None, None, encode_body(body))

    expected = "need_output" if failure is None else "need_model" if type(failure) is ModelMissing else "failed"
    assert whole == [expected]
    assert not made._busy


def test_an_interrupt_that_is_meant_for_another_call_does_not_fail_one_whose_result_is_delivered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, _ = _executor(failures=0, kept=0)
    made._waiting[7] = 1, Finished(ResultBody(None, None, [], [], [], [], 0.0, False), [], [], 0)

    def reserve(session: int, span: Any) -> Any:
        made._on_interrupt(2, None)  # type: ignore[arg-type]
        return span

    monkeypatch.setattr(made, "_reserve", reserve)
    made._handle(["deliver", 7, [0, PAGE, PAGE, 1]], b"", None)

    assert made._link.sent == [["result", 7]]  # type: ignore[attr-defined]


def test_an_interrupt_that_a_call_hears_is_its_answer() -> None:
    made, _ = _executor(failures=0, kept=0)

    def work() -> None:
        made._on_interrupt(2, None)  # type: ignore[arg-type]

    made._guarded(7, work)

    assert made._link.sent == [["failed", 7, "cancelled", "The call was cancelled."]]  # type: ignore[attr-defined]
