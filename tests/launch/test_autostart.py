"""``sklearn-wsl-gpu worker autostart``: one command has a worker start at logon, and one undoes it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sklearn_wsl_gpu import OffloadError, windows
from sklearn_wsl_gpu.cli import main
from sklearn_wsl_gpu.launch import autostart


def test_the_command_needs_no_window_no_path_and_no_environment() -> None:
    options = {
        "engine": "auto",
        "listen": "tcp://127.0.0.1:47474",
        "keys": r"C:\Users\Jörg M\keys",
        "interpreter": None,
    }

    assert autostart.command(options, r"C:\Program Files\Python312\python.exe") == (
        r'"C:\Program Files\Python312\pythonw.exe" -P -m sklearn_wsl_gpu.cli worker start --detach --engine auto '
        r'--listen tcp://127.0.0.1:47474 --keys "C:\Users\Jörg M\keys"'
    )


def test_a_command_that_windows_would_cut_is_refused() -> None:
    with pytest.raises(OffloadError, match=r"has [0-9]+ characters, and Windows takes 260: .* Shorten the paths"):
        autostart.command({"keys": "C:\\" + "k" * 250}, "C:\\python.exe")


@pytest.mark.skipif(os.name == "nt", reason="what is said elsewhere")
def test_elsewhere_it_is_said_what_does_it_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker", "autostart", "on"]) == 2

    said = capsys.readouterr().err
    assert "Starting a worker at logon is for Windows. On Linux a user unit of systemd does it" in said
    assert f"ExecStart={sys.executable} -m wsl_worker --listen tcp://127.0.0.1:47474" in said


def test_what_windows_forbids_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(name: str, command: str | None) -> None:
        raise PermissionError(13, "Access is denied")

    monkeypatch.setattr(autostart, "_check", lambda: None)
    monkeypatch.setattr(windows, "set_logon_command", refuse)

    assert main(["worker", "autostart", "on"]) == 2
    assert capsys.readouterr().err.endswith(r"CurrentVersion\Run, value sklearn_wsl_gpu: Access is denied." "\n")


def test_on_puts_it_there_and_off_takes_it_away_and_both_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run: dict[str, str] = {"OneDrive": "another program"}

    def put(name: str, command: str | None) -> None:
        run.pop(name) if command is None else run.update({name: command})

    monkeypatch.setattr(autostart, "_check", lambda: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(windows, "logon_command", run.get)
    monkeypatch.setattr(windows, "set_logon_command", put)

    assert main(["worker", "autostart", "on", "--distribution", "Ubuntu", "--keys", "keys"]) == 0
    said = capsys.readouterr().out
    assert run["sklearn_wsl_gpu"].endswith(
        f"--listen tcp://127.0.0.1:47474 --distribution Ubuntu --keys {tmp_path / 'keys'}"
    )
    assert run["sklearn_wsl_gpu"] in said
    assert f"From then on offload(keys={str(tmp_path / 'keys')!r}) uses it." in said
    assert "To undo this: sklearn-wsl-gpu worker autostart off" in said

    assert main(["worker", "autostart", "off"]) == 0
    assert "Windows does not run this any more: " in capsys.readouterr().out
    assert run == {"OneDrive": "another program"}

    assert main(["worker", "autostart", "off"]) == 0
    assert "Nothing was to be started at logon." in capsys.readouterr().out
