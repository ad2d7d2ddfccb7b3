"""``sklearn-wsl-gpu worker``: a worker for several programs, started, looked at and stopped from a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import ConfigurationError, sessions, standing
from sklearn_wsl_gpu.cli import main
from sklearn_wsl_gpu.context import offload
from sklearn_wsl_gpu.launch import kept, starting, wsl
from tests.integration.tools import has_ended, until

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a worker runs on Linux")


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[str]:
    where = str(tmp_path / "keys")
    yield where
    sessions.shutdown()
    main(["worker", "stop", "--keys", where])


def _json(capsys: pytest.CaptureFixture[str], *command: str) -> dict[str, Any]:
    capsys.readouterr()
    main(["worker", *command, "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_worker_is_started_used_shown_and_stopped(keys: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker", "start", "--keys", keys]) == 0
    said = capsys.readouterr().out
    worker = _json(capsys, "status", "--keys", keys)["workers"][0]
    assert f"From now on offload(keys={keys!r}) uses it." in said
    assert (worker["ready"], worker["engines"], worker["sessions"]) == (True, ["cpu"], [])
    assert [(executor["device"], executor["sessions"]) for executor in worker["executors"]] == [("auto", 0)]

    with offload(endpoint=worker["endpoint"], keys=keys, slots=(1, 2, 1), slot_bytes=2**23, fallback="raise"):
        held = StandardScaler().fit_transform(np.ones((150_000, 4)))
    shown = _json(capsys, "status", "--keys", keys)["workers"][0]["sessions"]
    assert [(session["pid"], session["calls"]) for session in shown] == [(os.getpid(), 1)]
    assert shown[0]["pool"] == "4 slots of 8 MiB, as asked"
    slots = shown[0]["slots"]
    assert [slot["kind"] for slot in slots] == ["input", "scratch", "output", "output"]
    assert [slot["state"] for slot in slots] == ["free", "free", "kept", "free"]
    assert held.nbytes <= slots[2]["used"] <= held.nbytes + 8192
    assert {slot["size"] for slot in slots} == {2**23}
    assert slots[2]["age"] > 0 == slots[0]["age"]
    assert [slot["owner"] for slot in slots] == ["", "", "StandardScaler.fit_transform", ""]
    assert [(slot["segment"], slot["number"]) for slot in slots] == [(0, 0), (0, 1), (0, 2), (0, 3)]
    counters = shown[0]["counters"]
    assert counters["leases"] >= 1
    assert counters["leased_bytes"] >= counters["peak_bytes"] >= held.nbytes
    assert (counters["waiting"], counters["waits"]["total"]) == ({"high": 0, "normal": 0, "low": 0}, 0)
    assert shown[0]["slots_left_out"] == 0

    main(["worker", "status", "--keys", keys])
    words = capsys.readouterr().out
    assert f"Session 1 of process {os.getpid()}: 1 calls" in words
    assert "  2  output   kept" in words
    assert "  StandardScaler.fit_transform\n" in words
    assert f"  {counters['leases']} leases of " in words
    assert "0 waits for room of 0.0 s; nobody waiting" in words
    assert "  pool of 4 slots of 8 MiB, as asked" in words

    assert main(["worker", "stop", "--keys", keys]) == 0
    assert has_ended(worker["pid"])
    assert main(["worker", "status", "--keys", keys]) == 1
    np.testing.assert_array_equal(held, 0)


def test_a_directory_of_keys_may_begin_with_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    known: list[Path] = []
    monkeypatch.setattr(standing, "_running", known.append)

    main(["worker", "status", "--keys", "~/Schlüssel 2"])
    monkeypatch.setenv("SKLEARN_WSL_GPU_KEYS", "~/Schlüssel 2")
    main(["worker", "status"])

    assert known == [tmp_path / "Schlüssel 2"] * 2


def test_what_is_no_endpoint_is_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("worker status", "worker stop", "pool shrink", "doctor"):
        with pytest.raises(SystemExit, match="2"):
            main([*command.split(), "--endpoint", "localhost"])
        assert "argument --endpoint: endpoint must be None (a worker of this" in capsys.readouterr().err


def test_ctrl_c_promises_nothing_that_a_command_does_not_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(standing, "start", interrupted)

    assert main(["worker", "start"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_starting_twice_leaves_the_first_worker_alone(keys: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = _json(capsys, "start", "--keys", keys)
    second = _json(capsys, "start", "--keys", keys)

    assert first["workers"][0]["pid"] == second["workers"][0]["pid"]


def test_of_two_that_are_started_at_once_one_is_left(
    keys: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    first: list[dict[str, Any]] = []

    class Process(starting.WorkerProcess):
        def __init__(self, *arguments: Any) -> None:
            if not started:  # after it was seen that none runs, another command starts one
                with monkeypatch.context() as context:
                    context.setattr(standing, "WorkerProcess", starting.WorkerProcess)
                    first.append(_json(capsys, "start", "--keys", keys)["workers"][0])
            super().__init__(*arguments)
            started.append(self.child)

    monkeypatch.setattr(standing, "WorkerProcess", Process)
    assert _json(capsys, "start", "--keys", keys)["workers"][0]["pid"] == first[0]["pid"]

    assert [child.poll() for child in started] == [0]
    assert _json(capsys, "status", "--keys", keys)["workers"][0]["pid"] == first[0]["pid"]


def test_a_worker_that_was_killed_counts_as_none_and_another_can_be_started(
    keys: str, capsys: pytest.CaptureFixture[str]
) -> None:
    process = psutil.Process(_json(capsys, "start", "--keys", keys)["workers"][0]["pid"])
    process.kill()
    process.wait(10)

    assert _json(capsys, "status", "--keys", keys) == {"workers": []}
    assert _json(capsys, "stop", "--keys", keys) == {"stopped": []}
    assert _json(capsys, "start", "--keys", keys)["workers"][0]["pid"] != process.pid


@pytest.mark.parametrize("command", ["start", "status", "stop"])
def test_a_worker_that_does_not_answer_gets_no_other_beside_it(
    command: str, keys: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pid = _json(capsys, "start", "--keys", keys)["workers"][0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert main(["worker", command, "--keys", keys]) == 2
    finally:
        os.kill(pid, signal.SIGCONT)
    assert f"(process {pid}) runs and does not answer" in capsys.readouterr().err

    assert _json(capsys, "status", "--keys", keys)["workers"][0]["pid"] == pid


def test_a_worker_whose_start_is_interrupted_does_not_stay(
    keys: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(endpoint: str, directory: Path) -> None:
        raise KeyboardInterrupt

    before = {child.pid for child in psutil.Process().children()}
    with monkeypatch.context() as patch:
        patch.setattr(standing, "look", interrupt)
        assert main(["worker", "start", "--keys", keys]) == 130

    assert {child.pid for child in psutil.Process().children()} == before
    assert not kept.path_in(Path(keys)).exists()
    assert main(["worker", "status", "--keys", keys]) == 1


@pytest.mark.parametrize(
    ("between", "command"),
    [(False, "kill {pid}"), (True, "wsl -d Ubuntu-24.04 --exec kill {pid}")],
    ids=["linux", "wsl"],
)
def test_a_worker_that_does_not_stop_is_an_error_that_says_how_it_is_ended(
    between: bool, command: str, keys: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["worker", "start", "--keys", keys])
    pid = _json(capsys, "status", "--keys", keys)["workers"][0]["pid"]
    note = kept.path_in(Path(keys))
    note.write_text(json.dumps(json.loads(note.read_text()) | {"distribution": "Ubuntu-24.04"}))
    with monkeypatch.context() as patch:
        patch.setattr(standing, "_has_ended", lambda *_: False)
        patch.setattr(wsl, "is_between", lambda: between)
        assert main(["worker", "stop", "--keys", keys]) == 2

    assert f"still runs. Run: {command.format(pid=pid)}\n" in capsys.readouterr().err


def test_a_note_that_an_administrators_run_has_left_is_told(keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)

    with pytest.raises(ConfigurationError, match="If a run as administrator made it, delete it as administrator"):
        standing._running_or_forgotten(Path(keys))


def test_a_worker_somewhere_else_is_shown_and_stopped_by_its_endpoint(
    keys: str, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = _json(capsys, "start", "--keys", keys)["workers"][0]

    assert (
        _json(capsys, "status", "--keys", keys, "--endpoint", worker["endpoint"])["workers"][0]["pid"] == worker["pid"]
    )
    assert _json(capsys, "stop", "--keys", keys, "--endpoint", worker["endpoint"]) == {"stopped": [worker["endpoint"]]}
    until(lambda: has_ended(worker["pid"]))
    assert main(["worker", "status", "--keys", keys, "--endpoint", "tcp://127.0.0.1:1"]) == 2
    assert "Nothing listens at tcp://127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--engine", "abacus"], "The engine abacus does not start: ConfigurationError: engine must be one of"),
        (["--listen", "tcp://example.org:4711"], "give tcp://ADDRESS:PORT, with an IP address"),
        (["--stream-port", "65536"], "or at its port for arrays: bind(): port must be 0-65535."),
    ],
)
def test_a_worker_that_cannot_start_says_why_and_leaves_nothing(
    options: list[str], words: str, keys: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["worker", "start", "--keys", keys, *options]) == 2
    assert words in capsys.readouterr().err
    assert _json(capsys, "status", "--keys", keys) == {"workers": []}


@pytest.mark.usefixtures("running_worker")
def test_the_map_of_slots_is_part_of_the_status_of_a_session() -> None:
    with offload(slots=(1, 2, 0), slot_bytes=2**23, fallback="raise") as session:
        held = StandardScaler().fit_transform(np.ones((150_000, 4)))
        assert [slot["state"] for slot in session.status()["slots"]] == ["free", "kept", "free"]  # type: ignore[attr-defined]
        del held
        assert {slot["state"] for slot in session.status()["slots"]} == {"free"}  # type: ignore[attr-defined]


#: As the command; an interrupt is heard also where what runs the tests has its own ignored.
_COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from sklearn_wsl_gpu.cli import main
sys.exit(main())
"""


def _watch(keys: str, stdout: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _COMMAND, "worker", "status", "--watch", "--keys", keys, *more]
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True)


def test_a_worker_is_watched_until_an_interrupt(keys: str, capsys: pytest.CaptureFixture[str]) -> None:
    endpoint = _json(capsys, "start", "--keys", keys)["workers"][0]["endpoint"]
    with _watch(keys, subprocess.PIPE, "--json") as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        assert json.loads(watching.stdout.readline())["workers"][0]["sessions"] == []
        with offload(endpoint=endpoint, keys=keys, fallback="raise"):
            StandardScaler().fit(np.eye(3))
        shown = (json.loads(line)["workers"][0]["sessions"] for line in watching.stdout)
        assert next(found for found in shown if found)[0]["pid"] == os.getpid()
        main(["worker", "stop", "--keys", keys])
        assert any(json.loads(line) == {"workers": []} for line in watching.stdout), "it goes on without a worker"

        watching.send_signal(signal.SIGINT)

        assert watching.wait(30) == 0
        assert watching.stderr.read() == ""


def test_a_terminal_is_cleared_before_each_look(keys: str) -> None:
    ours, theirs = os.openpty()
    with _watch(keys, theirs) as watching:
        os.close(theirs)
        assert watching.stderr is not None
        seen = b""
        while seen.count(b"No worker runs that") < 2:
            seen += os.read(ours, 4096)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0
        assert watching.stderr.read() == ""
    os.close(ours)

    assert seen.startswith(b"\x1b[H\x1b[2J")
    assert seen.count(b"\x1b[H\x1b[2J") >= 2


def test_watching_ends_when_nobody_reads_any_more(keys: str) -> None:
    with _watch(keys, subprocess.PIPE) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        assert "No worker runs that" in watching.stdout.readline()
        watching.stdout.close()

        assert watching.wait(30) == 141, "as a program that a closed pipe ended"
        assert watching.stderr.read() == ""


def test_the_state_of_a_worker_with_several_devices_names_each(keys: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker", "start", "--keys", keys, "--device", "cpu,cpu"]) == 0
    endpoint = _json(capsys, "status", "--keys", keys)["workers"][0]["endpoint"]
    for slots in ((1, 1, 1), (1, 1, 2)):
        with offload(endpoint=endpoint, keys=keys, slots=slots, slot_bytes=2**20, fallback="raise"):
            StandardScaler().fit(np.eye(3))
    executors = _json(capsys, "status", "--keys", keys)["workers"][0]["executors"]
    main(["worker", "status", "--keys", keys])
    words = capsys.readouterr().out
    main(["worker", "stop", "--keys", keys])

    assert [(executor["device"], executor["sessions"], executor["done"]) for executor in executors] == [
        ("cpu", 1, 1)
    ] * 2
    assert f"  on cpu, process {executors[1]['pid']}: ready, 1 sessions, 1 done" in words


def test_the_pool_of_a_client_is_grown_and_shrunk_from_a_terminal(
    keys: str, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = _json(capsys, "start", "--keys", keys)["workers"][0]["endpoint"]
    with offload(endpoint=endpoint, keys=keys, slots=(1, 1, 1), slot_bytes=2**22, fallback="raise") as session:
        StandardScaler().fit(np.eye(3))
        pool = sessions.obtain(session.settings).pool

        assert main(["pool", "grow", "4MiB", "--keys", keys]) == 0
        assert "Sessions that grow by 4.2 MB with their next call: 1" in capsys.readouterr().out
        assert main(["pool", "grow", "0.00390625GiB", "--keys", keys]) == 0
        capsys.readouterr()
        StandardScaler().fit(np.eye(3))
        until(lambda: pool.pool_bytes == 20 * 2**20)
        assert main(["pool", "shrink", "--session", "1", "--keys", keys, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"sessions": 1}
        StandardScaler().fit(np.eye(3))
        until(lambda: pool.pool_bytes == 12 * 2**20)
        assert main(["pool", "shrink", "--session", "9", "--keys", keys]) == 1


@pytest.mark.parametrize("text", ["much", "0", "-1", "1PB", "1.2.3GiB", "9000000000GiB", ""])
def test_a_size_that_is_none_is_refused_with_what_is_one(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pool", "grow", "--", text])
    assert "no size such as 1073741824, 512MiB or 1.5GiB" in capsys.readouterr().err


def test_the_pool_of_nobody_is_not_grown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pool", "grow", "1GiB", "--keys", str(tmp_path)]) == 2
    assert "No worker runs that" in capsys.readouterr().err
