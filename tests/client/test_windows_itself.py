"""What only Windows has, as Windows or Wine does it: the registry and jobs. Nothing of the user's is touched."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sklearn_wsl_gpu import windows
from sklearn_wsl_gpu.launch import autostart, wsl
from sklearn_wsl_gpu.launch.wsl import Distribution
from sklearn_wsl_gpu.pool import files

winreg: Any = pytest.importorskip("winreg", reason="this is not Windows")


def _write(name: str, values: Mapping[str, str | int]) -> None:
    with winreg.CreateKey(winreg.HKEY_CURRENT_USER, name) as key:
        for about, value in values.items():
            winreg.SetValueEx(key, about, 0, winreg.REG_DWORD if isinstance(value, int) else winreg.REG_SZ, value)


def _delete(name: str) -> None:
    with winreg.OpenKey(winreg.HKEY_CURRENT_USER, name) as key:
        below = [winreg.EnumKey(key, number) for number in range(winreg.QueryInfoKey(key)[0])]
    for one in below:
        _delete(rf"{name}\{one}")
    winreg.DeleteKey(winreg.HKEY_CURRENT_USER, name)


@pytest.fixture
def key() -> Iterator[str]:
    """A key of the registry for one test."""
    name = rf"Software\sklearn_wsl_gpu-tests-{os.getpid()}"
    _write(name, {})
    yield name
    _delete(name)


def test_distributions_are_read_from_keys_as_wsl_writes_them(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def entry(name: str, flags: int, state: int = 1) -> dict[str, str | int]:
        return {"DistributionName": name, "Flags": flags, "State": state, "Version": 2, "BasePath": r"C:\wsl"}

    guids = [f"{{{number}c1c26e2-7c37-4a5c-9c4f-0d1f3b0a4e5b}}" for number in range(3)]
    _write(key, {"DefaultDistribution": guids[0].upper(), "DefaultVersion": 2})
    _write(rf"{key}\AppxInstallerCache", {})
    for guid, values in zip(guids, [entry("Ubuntu für mich", 0xF), entry("old", 7), entry("new", 0xF, 3)], strict=True):
        _write(rf"{key}\{guid}", values)
    monkeypatch.setattr(windows, "_LXSS", key)
    monkeypatch.delenv(wsl.NAMED, raising=False)

    assert windows.registered_distributions() == [("Ubuntu für mich", 2, True), ("old", 1, False)]
    assert wsl.distributions() == [Distribution("Ubuntu für mich", 2, True, ""), Distribution("old", 1, False, "")]


def test_where_wsl_was_never_set_up_there_is_no_distribution(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "_LXSS", rf"{key}\Lxss")

    assert windows.registered_distributions() == []


def test_autostart_is_noted_and_taken_away(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "_RUN", rf"{key}\Run")
    assert autostart.turn_off() is None

    command = autostart.turn_on({"engine": "cpu"})

    assert windows.logon_command(autostart.NAME) == command
    assert autostart.turn_off() == command
    assert windows.logon_command(autostart.NAME) is None


@pytest.mark.skipif(hasattr(ctypes.WinDLL("ntdll"), "wine_get_version"), reason="Wine tells how large the file is")
def test_a_sparse_file_takes_little_until_something_is_written(tmp_path: Path) -> None:
    descriptor, path = files.create(str(tmp_path), 64 * 2**20)
    try:
        before = windows.size_on_disk(path)
        files.write_zeros(descriptor, 0, 2**21)
        after = windows.size_on_disk(path)
    finally:
        os.close(descriptor)

    assert before is not None
    assert after is not None
    assert before < 2**20
    assert before + 2**20 < after < 64 * 2**20


def test_whether_this_is_an_administrator_is_told() -> None:
    assert windows.is_elevated() in (True, False)


_PARENT = """
import subprocess, sys
from sklearn_wsl_gpu import windows
child = subprocess.Popen(
    [sys.executable, "-c", "import time; print('child', flush=True); time.sleep(600)"],
    stdin=subprocess.PIPE, stdout=sys.stdout, stderr=sys.stderr,
)
print(windows.end_with_this_process(child.pid), child.pid, flush=True)
sys.stdin.read()
"""


def test_a_child_in_a_job_ends_with_its_parent_though_that_is_killed() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as parent:
        assert parent.stdout is not None
        said = {parent.stdout.readline().strip() for _ in range(2)}
        job, child = map(int, (said - {"child"}).pop().split())
        try:
            assert job
            assert "child" in said
            parent.kill()
            parent.communicate(timeout=60)  # its pipes end with the last process that holds them
        finally:
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGTERM)
