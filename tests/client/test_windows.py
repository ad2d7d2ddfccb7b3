"""The parts that only Windows has, with its own modules replaced by what they are documented to do."""

from __future__ import annotations

import argparse
import contextlib
import ntpath
import os
import runpy
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sklearn_wsl_gpu import ConfigurationError, cli, windows
from sklearn_wsl_gpu.pool import memory

_LXSS = r"Software\Microsoft\Windows\CurrentVersion\Lxss"


class Registry:
    """The calls of ``winreg`` that are used, over a mapping of keys to values."""

    HKEY_CURRENT_USER = "HKCU"
    REG_SZ = 1
    KEY_SET_VALUE = 2

    def __init__(self, keys: dict[str, dict[str, Any]]) -> None:
        self.keys = keys

    @contextlib.contextmanager
    def OpenKey(self, key: str, name: str, reserved: int = 0, access: int = 0) -> Iterator[str]:
        path = name if key == self.HKEY_CURRENT_USER else f"{key}\\{name}"
        if path not in self.keys:
            raise FileNotFoundError(2, "The system cannot find the file specified")
        yield path

    def CreateKeyEx(self, key: str, name: str, reserved: int, access: int) -> contextlib.AbstractContextManager[str]:
        assert (key, access) == (self.HKEY_CURRENT_USER, self.KEY_SET_VALUE)
        self.keys.setdefault(name, {})
        return self.OpenKey(key, name)

    def QueryInfoKey(self, key: str) -> tuple[int, int, int]:
        return len(self._below(key)), len(self.keys[key]), 0

    def EnumKey(self, key: str, number: int) -> str:
        return self._below(key)[number]

    def QueryValueEx(self, key: str, name: str) -> tuple[Any, int]:
        if name not in self.keys[key]:
            raise FileNotFoundError(2, "The system cannot find the file specified")
        return self.keys[key][name], self.REG_SZ

    def SetValueEx(self, key: str, name: str, reserved: int, kind: int, value: str) -> None:
        assert (reserved, kind) == (0, self.REG_SZ)
        self.keys[key][name] = value

    def DeleteValue(self, key: str, name: str) -> None:
        del self.keys[key][name]

    def _below(self, key: str) -> list[str]:
        return [path.rpartition("\\")[2] for path in self.keys if path.rpartition("\\")[0] == key]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    found = Registry({})
    monkeypatch.setitem(sys.modules, "winreg", found)  # type: ignore[arg-type]
    return found


def test_distributions_are_read_from_the_registry(registry: Registry) -> None:
    def entry(name: str, flags: int, state: int = 1) -> dict[str, Any]:
        return {"DistributionName": name, "Flags": flags, "State": state, "Version": 2}

    registry.keys = {
        _LXSS: {"DefaultDistribution": "{B}", "DefaultVersion": 2},
        rf"{_LXSS}\{{a}}": entry("docker-desktop", 0xF),
        rf"{_LXSS}\{{b}}": entry("Ubuntu 24.04 für mich", 0xF),
        rf"{_LXSS}\{{c}}": entry("of WSL 1, whatever its Version says", 0x7),
        rf"{_LXSS}\{{d}}": entry("being installed", 0xF, 3),
        rf"{_LXSS}\AppxInstallerCache": {},
    }

    assert windows.registered_distributions() == [
        ("docker-desktop", 2, False),
        ("Ubuntu 24.04 für mich", 2, True),
        ("of WSL 1, whatever its Version says", 1, False),
    ]


def test_without_a_default_none_is_the_default(registry: Registry) -> None:
    registry.keys = {_LXSS: {}, rf"{_LXSS}\{{a}}": {"DistributionName": "A", "Flags": 8, "State": 1}}

    assert windows.registered_distributions() == [("A", 2, False)]


def test_where_wsl_was_never_set_up_there_is_no_distribution(registry: Registry) -> None:
    assert windows.registered_distributions() == []


def test_a_registry_that_cannot_be_read_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*key: Any) -> Any:
        raise PermissionError(13, "Access is denied")

    monkeypatch.setitem(sys.modules, "winreg", SimpleNamespace(HKEY_CURRENT_USER=0, OpenKey=refuse))  # type: ignore[arg-type]

    assert windows.registered_distributions() is None


_RUN = r"Software\Microsoft\Windows\CurrentVersion\Run"


def test_what_runs_at_logon_is_noted_looked_at_and_taken_away(registry: Registry) -> None:
    registry.keys = {_RUN: {"OneDrive": "another program"}}
    assert windows.logon_command("ours") is None

    windows.set_logon_command("ours", "pythonw -m ours")
    assert windows.logon_command("ours") == "pythonw -m ours"
    assert registry.keys[_RUN] == {"OneDrive": "another program", "ours": "pythonw -m ours"}

    windows.set_logon_command("ours", None)
    assert registry.keys[_RUN] == {"OneDrive": "another program"}


def test_who_never_had_anything_run_at_logon_has_now(registry: Registry) -> None:
    windows.set_logon_command("ours", "pythonw -m ours")

    assert registry.keys == {_RUN: {"ours": "pythonw -m ours"}}


class Kernel32:
    """The calls of ``kernel32`` that are used; it notes which handles are open."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.open: dict[int, Any] = {}
        self.attributes: dict[str, int] = {}
        self.CreateJobObjectW, self.OpenProcess = self._call("job"), self._call("process")

    def _call(self, kind: str) -> Any:
        def call(*arguments: Any) -> int | None:
            if kind == self.refuses:
                return None
            handle = 0x7F00_0000_0000 + len(self.open)  # more than 32 bits
            self.open[handle] = (kind, arguments, [])
            return handle

        return call

    def SetInformationJobObject(self, job: Any, what: int, limits: bytes, size: int) -> bool:
        if job.value not in self.open:
            return False
        assert (what, size, len(limits)) == (9, 144, 144)
        assert limits[16:20] == (0x2000).to_bytes(4, "little")
        assert limits.count(0) == 143
        return True

    def AssignProcessToJobObject(self, job: Any, process: Any) -> bool:
        if process.value not in self.open:
            return False
        self.open[job.value][2].append(self.open[process.value][1])
        return True

    def CloseHandle(self, handle: Any) -> bool:
        del self.open[handle.value]
        return True

    def GetFileAttributesW(self, path: str) -> int:
        return self.attributes.get(path, -1)

    def GetCompressedFileSizeW(self, path: str, high: Any) -> int:
        high._obj.value = 3
        return {r"C:\pool\sparse": -2, r"C:\pool\none": -1}[path]  # of 32 bits, as the call's result is

    def GetDriveTypeW(self, root: str) -> int:
        return {"C:\\": 3, "E:\\": 2, "\\\\server\\share\\": 4}.get(root, 1)


@pytest.fixture
def kernel32(monkeypatch: pytest.MonkeyPatch) -> Kernel32:
    found = Kernel32()
    monkeypatch.setattr(windows.ctypes, "WinDLL", {"kernel32": found}.__getitem__, raising=False)
    return found


def test_a_child_is_put_into_a_job_that_ends_it_with_this_process(kernel32: Kernel32) -> None:
    job = windows.end_with_this_process(4711)

    assert list(kernel32.open) == [job]
    kind, _, processes = kernel32.open[job]
    assert (kind, processes) == ("job", [(0x0101, False, 4711)])
    windows.close(job)
    assert kernel32.open == {}


@pytest.mark.parametrize("refuses", ["job", "process"])
def test_where_windows_refuses_a_job_nothing_is_left(refuses: str, kernel32: Kernel32) -> None:
    kernel32.refuses = refuses

    assert windows.end_with_this_process(4711) == 0
    assert kernel32.open == {}
    windows.close(0)


@pytest.mark.parametrize(("system", "mode"), [("nt", 0o777), ("posix", 0o700)])
def test_a_private_directory_stays_the_users_though_an_administrators_run_has_made_it(
    system: str, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Elsewhere 0o700 keeps others out. On Windows it would leave it to the administrators.
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", system)
        there = runpy.run_path(windows.__file__)

    assert there["PRIVATE"] == mode


@pytest.mark.skipif(os.name == "nt", reason="what is so elsewhere")
def test_elsewhere_there_are_neither_jobs_nor_drives() -> None:
    assert windows.end_with_this_process(4711) == 0
    assert windows.volume("/tmp") is None
    assert windows.size_on_disk("/tmp") is None
    assert not windows.is_elevated()


def test_what_a_file_takes_is_asked_of_windows(kernel32: Kernel32) -> None:
    assert windows.size_on_disk(r"C:\pool\sparse") == 3 * 2**32 + 2**32 - 2
    assert windows.size_on_disk(r"C:\pool\none") is None


@pytest.mark.parametrize("elevated", [0, 1])
def test_whether_this_is_an_administrator_is_asked_of_windows(elevated: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shell32 = SimpleNamespace(IsUserAnAdmin=lambda: elevated)
    monkeypatch.setattr(windows.ctypes, "windll", SimpleNamespace(shell32=shell32), raising=False)

    assert windows.is_elevated() == bool(elevated)


def test_what_a_drive_is_and_how_a_directory_is_kept_is_asked_of_windows(kernel32: Kernel32) -> None:
    kernel32.attributes = {r"C:\pool": 0x10, r"E:\x": 0x810, r"\\server\share\x": 0x10}

    assert windows.volume(r"C:\pool") == (3, 0x10)
    assert windows.volume(r"E:\x") == (2, 0x810)
    assert windows.volume(r"\\server\share\x") == (4, 0x10)
    assert windows.volume(r"C:\not there") is None


def test_a_pool_is_not_made_where_it_cannot_live(kernel32: Kernel32, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel32.attributes = {r"C:\pool": 0x10, r"E:\x": 0x10, r"C:\Cloud\x": 0x10}
    monkeypatch.setenv("OneDrive", r"C:\Cloud")
    monkeypatch.setattr(memory.os.path, "abspath", ntpath.normpath)

    memory._check_volume(r"C:\pool")
    for directory, words in ((r"E:\x", "on a removable drive"), (r"C:\Cloud\x", "such as OneDrive")):
        with pytest.raises(ConfigurationError, match=rf"cannot live in pool_dir: .*{words}.* Name a directory"):
            memory._check_volume(directory)


def test_a_console_is_made_to_obey_before_it_is_cleared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[tuple[str, str]] = []
    shown = [("a worker", True)]

    def show(_: argparse.Namespace) -> tuple[str, bool]:
        if not shown:
            raise KeyboardInterrupt
        return shown.pop()

    def run(command: str) -> None:
        told.append((command, capsys.readouterr().out))

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(cli, "os", SimpleNamespace(name="nt", system=run))
    monkeypatch.setattr(cli, "_state", show)
    monkeypatch.setattr(cli, "_WATCH_SECONDS", 0.0)

    assert cli._status(argparse.Namespace(watch=True)) == 0
    assert told == [("", "")]
    assert capsys.readouterr().out == "\x1b[H\x1b[2Ja worker\n"
