"""Commands that are given what they cannot use, or find what is damaged: they say so, and do not wait for ever."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sklearn_wsl_gpu import OffloadError, WorkerStartError, running, standing, windows
from sklearn_wsl_gpu.cli import main
from sklearn_wsl_gpu.doctor import asking, own
from sklearn_wsl_gpu.launch import autostart, starting, wsl
from sklearn_wsl_gpu.launch.commands import Command
from tests.integration.tools import until

on_linux = pytest.mark.skipif(os.name == "nt", reason="a worker, and its stand-ins, run on Linux")


@on_linux
def test_a_worker_that_closes_its_output_and_stays_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "_END_SECONDS", 0.2)
    words = [sys.executable, "-c", "import os, time; os.close(1); time.sleep(600)"]

    with pytest.raises(WorkerStartError, match="closed its standard output before it was ready, and did not end"):
        starting.WorkerProcess(Command(words, "", 60.0, dict(os.environ), "python"), {}, None, 0)


def test_what_is_to_be_typed_is_quoted() -> None:
    python = "/home/my name/bin/python"

    assert Command([], "", 1.0, {}, python).hint == f"'{python}' -m wsl_worker --help"
    there = Command([], "My Linux", 1.0, {}, python).hint
    assert there == f'wsl -d "My Linux" --exec "{python}" -m wsl_worker --help'


@on_linux
def test_the_end_of_a_doctor_ends_the_wsl_that_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "wsl.exe"
    program.write_text("#!/bin/sh\nsleep 600\n")
    program.chmod(0o755)
    monkeypatch.setenv(wsl.NAMED, str(program))
    ended: list[wsl.Completed] = []
    thread = threading.Thread(target=lambda: ended.append(wsl.run(["--version"], 600.0)))
    thread.start()
    until(lambda: bool(wsl.running))
    begin = time.monotonic()
    asking.end_all()
    thread.join(60)

    assert ended[0].code == -9
    assert time.monotonic() - begin < 60
    assert not wsl.running


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--engine", "abacus"], "engine must be one of"),
        (["--device", "gpu"], "device must be"),
        (["--interpreter", "python3"], "interpreter must be"),
        (["--listen", "nonsense"], "--listen must be tcp://ADDRESS:PORT"),
        (["--listen", "tcp://gpu-server:5555"], "--listen must be tcp://ADDRESS:PORT"),
        (["--listen", "tcp://127.0.0.1:*"], "--listen must be tcp://ADDRESS:PORT"),
    ],
)
def test_what_could_not_start_at_logon_is_not_noted(
    options: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(autostart, "_check", lambda: None)
    noted: list[Any] = []
    monkeypatch.setattr(windows, "set_logon_command", lambda *given: noted.append(given))

    assert main(["worker", "autostart", "on", *options]) == 2
    assert words in capsys.readouterr().err
    assert noted == []
    assert main(["worker", "autostart", "on", "--listen", "tcp://[::1]:4711"]) == 0
    assert len(noted) == 1


@pytest.mark.parametrize("kept", ["", "{}", "[]", "null", '{"report": {}}', '{"report": {"calls": []}}', "3"])
def test_a_damaged_report_is_as_none(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(running, "LAST_RUN", tmp_path / "last_run.json")
    (tmp_path / "last_run.json").write_text(kept)

    for more in ([], ["--json"]):
        assert main(["report", *more]) == 2
        assert "There is no report of a run" in capsys.readouterr().err


def test_python_m_tells_its_version_as_the_command_does() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "sklearn_wsl_gpu", "--version"], capture_output=True, text=True, check=True
    )

    assert ran.stdout.startswith("sklearn-wsl-gpu ")


def test_two_dashes_end_the_options_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "say.py").write_text("import sys; print(sys.argv[1:])")
    command = [sys.executable, "-m", "sklearn_wsl_gpu", "--", "say.py", "--", "-x"]
    environment = {**os.environ, "HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)

    assert ran.stdout.strip() == "['--', '-x']"


@on_linux
@pytest.mark.parametrize("options", [["--embedded"], ["--keys", "-"], ["--keys", ""]])
def test_a_worker_without_keys_says_what_it_needs(options: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "wsl_worker", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 2
    assert "--keys DIRECTORY" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("source", ["", " ", "--help", "-r evil"])
def test_setup_installs_nothing_that_is_an_option_of_pip(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["setup", f"--from={source}", "--dry-run"]) == 2
    assert "--from must be a wheel" in capsys.readouterr().err


def test_who_watches_sees_that_a_worker_does_not_answer_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = iter([OffloadError("It does not answer."), None, KeyboardInterrupt()])

    def status(*_: object) -> None:
        found = next(looks)
        if found is not None:
            raise found

    monkeypatch.setattr(standing, "status", status)
    assert main(["worker", "status", "--watch", "--json"]) == 0

    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert shown == [{"workers": [], "error": "It does not answer."}, {"workers": []}]


@on_linux
def test_a_worker_whose_client_lives_is_no_leftover() -> None:
    program = "import sys; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program, "wsl_worker"], stdin=subprocess.PIPE) as process:
        assert own._has_client(Path(f"/proc/{process.pid}"))
        process.communicate()
    ours, theirs = os.pipe()
    with subprocess.Popen([sys.executable, "-c", program, "wsl_worker"], stdin=ours) as process:
        os.close(ours)
        assert own._has_client(Path(f"/proc/{process.pid}"))
        os.close(theirs)
        process.wait()


@pytest.mark.parametrize("stream", [None, "closed"])
def test_an_error_that_cannot_be_told_has_its_exit_code_all_the_same(
    stream: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OffloadError("It does not answer.")

    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(standing, "stop", fail)
    monkeypatch.setattr(sys, "stderr", None if stream is None else closed)

    assert main(["worker", "stop"]) == 2
