"""What becomes of executors that do not start, or are ended, and that the front survives what nobody foresaw."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any, cast

import pytest

from sklearn_wsl_gpu.errors import ProtocolError
from sklearn_wsl_gpu.pool import Geometry
from sklearn_wsl_gpu.protocol import messages as m
from wsl_worker import front, scheduler
from wsl_worker.front import Front
from wsl_worker.scheduler import Scheduler
from wsl_worker.sessions import MAX_QUEUED, Session, Sessions
from wsl_worker.supervisor import Supervisor


class _Supervisor:
    """Starts nothing, and counts how often."""

    link = None
    process = None

    def __init__(self) -> None:
        self.starts = 0
        self.running = False
        self.refusal: OSError | None = None

    def may_start(self, now: float) -> bool:
        return True

    def start(self) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.starts += 1
        self.running = True

    def bury(self) -> str:
        self.running = False
        return "was ended by signal 6 (Aborted)"


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(scheduler, "time", clock)
    return clock


def _made() -> tuple[Scheduler, _Supervisor]:
    supervisor = _Supervisor()
    return Scheduler(cast(Supervisor, supervisor)), supervisor


def test_executors_that_die_while_they_start_are_told_of_and_tried_again_after_a_pause(clock: _Clock) -> None:
    mine, supervisor = _made()
    mine.start()
    for _ in range(3):
        assert mine.broken == ""
        mine.executor_died()

    assert mine.broken == "its process was ended by signal 6 (Aborted) while it started, 3 times in a row."
    assert supervisor.starts == 3
    clock.now += 9.0
    mine.tick(clock.now)
    assert supervisor.starts == 3
    clock.now += 2.0
    mine.tick(clock.now)
    assert (supervisor.starts, mine.broken) == (4, "")


def test_an_engine_that_says_that_it_does_not_start_is_tried_again_after_longer_and_longer_pauses(
    clock: _Clock,
) -> None:
    mine, supervisor = _made()
    waited = []
    for _ in range(8):
        mine.tick(clock.now)
        assert supervisor.running
        mine._heard(["broken", "RuntimeError: out of memory"], b"")
        mine.executor_died()
        assert mine.broken == "RuntimeError: out of memory"
        begin = clock.now
        while not supervisor.running:
            clock.now += 5.0
            mine.tick(clock.now)
        waited.append(clock.now - begin)

    assert waited == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0]
    mine._heard(["ready", [], [], [], -1, False], b"")
    assert mine.broken == ""
    mine.executor_died()
    assert supervisor.running  # one that was ready is replaced at once


def test_an_executor_that_cannot_be_started_for_want_of_descriptors_is_started_later(clock: _Clock) -> None:
    mine, supervisor = _made()
    supervisor.refusal = OSError(24, "Too many open files")
    mine.start()

    assert mine.broken == "it cannot be started: [Errno 24] Too many open files."
    supervisor.refusal = None
    clock.now += 11.0
    mine.tick(clock.now)
    assert supervisor.running


def test_executors_that_the_worker_itself_ends_do_not_count_as_bad_ones() -> None:
    mine = Supervisor("cpu", "auto", 2**20)

    def end(how: Any) -> None:
        mine.start().close()
        how()
        mine.bury()

    for _ in range(6):
        end(mine.kill)
    assert mine.may_start(time.monotonic())
    for _ in range(5):
        end(lambda: mine.process and os.kill(mine.process.pid, signal.SIGKILL))
    assert not mine.may_start(time.monotonic())


def test_an_error_that_nobody_foresaw_is_told_to_its_client_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[m.Message] = []
    mine = Front.__new__(Front)
    monkeypatch.setattr(mine, "_answer", lambda envelope, message, body: told.append(message))
    monkeypatch.setattr(front, "_TICK_MS", 0)

    def fail(error: Exception) -> None:
        raise error

    mine._guarded([b"client"], lambda: fail(OSError(24, "Too many open files")))
    mine._guarded([b"client"], lambda: fail(ProtocolError("It is none.", "unknown-session")))
    front._survived(lambda: fail(ValueError("in a watcher")))

    assert told == [
        m.Refused("worker-failed", "The worker failed at this: OSError: [Errno 24] Too many open files."),
        m.Refused("unknown-session", "It is none."),
    ]
    assert "in a watcher" in capsys.readouterr().err


def test_a_head_that_is_long_is_refused_before_it_is_read() -> None:
    mine = Front.__new__(Front)
    with pytest.raises(ProtocolError, match="is larger than 65536"):
        mine._read([b"client"], "user", [m.encode(m.Failed(1, "x", "y")) + b"\xc0" * 2**16])


def test_a_session_whose_requests_fill_the_queue_is_in_nobody_elses_way() -> None:
    mine, _ = _made()
    told: list[Any] = []
    mine.answer = lambda envelope, message, body: told.append(message)
    sessions = [Sessions().open(number, "user", 1, -1, Geometry(4096, 1, 1, 0), -1, 0.0) for number in (1, 2)]

    def call(session: Session, number: int) -> None:
        mine.call(session, m.Call(session.token, number, None, None, "normal"), b"", [b"client"])

    for number in range(MAX_QUEUED + 1):
        call(sessions[0], number)
    call(sessions[1], 0)

    assert [(message.request, message.code) for message in told] == [(MAX_QUEUED, "queue-full")]


def test_a_worker_may_open_more_than_a_program_that_selects() -> None:
    script = (
        "import resource, sys; from wsl_worker import __main__ as worker\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))\n"
        "worker._raise_limit()\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, 65536) if hard > 0 else 65536, hard))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "True"


class _Ready(_Supervisor):
    """Has an executor, whose link keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[list[Any], bytes]] = []
        self.link: Any = self

    def send(self, head: list[Any], body: bytes, descriptor: int | None) -> None:
        self.sent.append((head, body))
        if descriptor is not None:
            os.close(descriptor)


def _serving() -> tuple[Scheduler, _Ready, list[Any], list[Session], Sessions]:
    supervisor, told, table = _Ready(), [], Sessions()
    mine = Scheduler(cast(Supervisor, supervisor))
    mine.answer = lambda envelope, message, body: told.append(message)
    mine._heard(["ready", [], [], [], -1, False], b"")
    opened = [
        table.open(number, "user", 1, os.memfd_create("segment"), Geometry(4096, 1, 1, 0), -1, 0.0) for number in (1, 2)
    ]
    for session in opened:
        mine.attach(session)
    return mine, supervisor, told, opened, table


def _call(mine: Scheduler, session: Session, number: int, body: bytes = b"") -> None:
    mine.call(session, m.Call(session.token, number, None, None, "normal"), body, [b"client"])


def test_a_result_that_waits_for_room_of_a_session_that_is_gone_is_dropped_and_nobody_waits_for_it() -> None:
    mine, supervisor, _, (gone, other), table = _serving()
    _call(mine, gone, 1)
    _call(mine, other, 1)
    supervisor.process = None
    mine.supervisor.interrupt = lambda: None  # type: ignore[method-assign]
    mine.detach(gone)
    mine._heard(["need_output", 1, 4096], b"")

    assert [head for head, _ in supervisor.sent][-2:] == [["drop", 1], ["job", 2, 2, None, None, 0]]
    assert list(mine._jobs) == [2]
    table.remove(gone)
    table.remove(other)


def test_while_an_executor_computes_it_is_told_nothing_of_those_who_come_and_go() -> None:
    mine, supervisor, _, (first, second), table = _serving()
    _call(mine, first, 1)
    before, descriptors = len(supervisor.sent), os.listdir("/proc/self/fd")
    for number in range(3, 60):
        session = table.open(number, "user", 1, os.memfd_create("segment"), Geometry(4096, 1, 1, 0), -1, 0.0)
        mine.attach(session)
        mine.detach(session)
        table.remove(session)
    assert (len(supervisor.sent), os.listdir("/proc/self/fd")) == (before, descriptors)

    late = table.open(60, "user", 1, os.memfd_create("segment"), Geometry(4096, 1, 1, 0), -1, 0.0)
    mine.attach(late)
    mine._heard(["result", 1], b"")
    assert supervisor.sent[before:] == [(["attach", 60, 0, False], b"")]
    for session in (first, second, late):
        table.remove(session)


def test_bodies_of_requests_are_bounded_and_let_go_when_they_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "MAX_QUEUED_BYTES", 1000)
    monkeypatch.setattr(scheduler, "MAX_QUEUED_BYTES_IN_ALL", 1500)
    mine, _, told, (first, second), table = _serving()
    _call(mine, first, 1, b"x" * 1000)  # which runs at once
    for number in (2, 3, 4):
        _call(mine, first, number, b"x" * 400)
    _call(mine, second, 1, b"x" * 600)
    _call(mine, second, 2, b"x" * 200)

    assert [(message.request, message.code) for message in told] == [(4, "queue-full"), (2, "queue-full")]
    assert sum(len(job.body) for job in mine._jobs.values()) == 1400
    for session in (first, second):
        table.remove(session)


def test_a_session_whose_pool_an_executor_cannot_have_has_its_call_failed_and_others_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine, supervisor, told, (first, second), table = _serving()
    mine.attach_segment(second, 0)
    _call(mine, second, 1)
    mine._heard(["result", 1], b"")
    first.add_segment(1, os.memfd_create("segment"), Geometry(4096, 1, 1, 0), False)

    def refuse(descriptor: int) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr("wsl_worker.telling.os.dup", refuse)
        mine.attach_segment(first, 1)
        _call(mine, first, 1)
    assert told[-1] == m.Failed(
        1, "engine-error", "The worker's executor cannot have this session's pool: Too many open files."
    )
    with monkeypatch.context() as patched:
        patched.setattr("wsl_worker.telling.os.dup", refuse)
        _call(mine, second, 2)
        for number in range(10, 60):
            _call(mine, first, number)
        mine._heard(["result", mine._running.number], b"")  # type: ignore[union-attr]
    assert sum(isinstance(message, m.Failed) for message in told) == 2, "one at a time"

    _call(mine, first, 2)
    assert [head[0] for head, _ in supervisor.sent][-2:] == ["attach", "job"]
    for session in (first, second):
        table.remove(session)


def test_an_executor_that_cannot_be_watched_is_ended_and_another_may_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = Supervisor("cpu", "auto", 2**20)

    def refuse(pid: int) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pidfd_open", refuse)
        with pytest.raises(OSError, match="Too many"):
            mine.start()
    assert not mine.running

    mine.start()
    assert mine.running
    mine.stop()


def test_wishes_that_a_pool_grows_add_up_until_the_client_is_told() -> None:
    session = Sessions().open(1, "user", 1, -1, Geometry(4096, 1, 1, 0), -1, 0.0)
    session.note_wish(2**30)
    session.note_wish(2**31)
    assert (session.take_wish(), session.take_wish()) == (3 * 2**30, 0)

    session.note_wish(2**30)
    session.note_wish(-1)
    assert session.take_wish() == -1
    session.note_wish(-1)
    session.note_wish(2**30)
    assert session.take_wish() == 2**30
