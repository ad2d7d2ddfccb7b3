"""The parts that only Windows has, with its own modules replaced by what they are documented to do."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sklearn_wsl_gpu.launch import windows

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

    def QueryInfoKey(self, key: str) -> tuple[int, int, int]:
        return len(self._below(key)), len(self.keys[key]), 0

    def EnumKey(self, key: str, number: int) -> str:
        return self._below(key)[number]

    def QueryValueEx(self, key: str, name: str) -> tuple[Any, int]:
        if name not in self.keys[key]:
            raise FileNotFoundError(2, "The system cannot find the file specified")
        return self.keys[key][name], self.REG_SZ

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
