"""What tests of the launch share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sklearn_wsl_gpu import sessions
from sklearn_wsl_gpu.launch import wsl
from tests.integration.tools import until
from tests.launch import fake_wsl


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_wsl.Machine]:
    """A ``wsl.exe`` on the path that workers are started through; what it leaves running fails the test."""
    if os.name == "nt":
        pytest.skip("the fake is a script of a shell")
    found = fake_wsl.install(tmp_path / "wsl")
    monkeypatch.setenv("PATH", f"{found.directory / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv(wsl.NAMED, "wsl.exe")
    yield found
    sessions.shutdown()
    try:
        until(lambda: not found.inside())  # they notice the end of their input
    finally:
        found.shut_down()
