"""What tests of the doctor share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sklearn_wsl_gpu.launch import wsl
from tests.launch import fake_wsl

SYSTEM_PATH = "/usr/bin:/bin"


def run_doctor(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in the shell of a user, with nothing of this package in the environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SKLEARN_WSL_GPU")}
    from_cli = "import sys; from sklearn_wsl_gpu.cli import main; sys.exit(main())"
    words = [sys.executable, "-P", "-c", from_cli, "doctor", *arguments]
    return subprocess.run(
        words, env={**clean, "COLUMNS": "120", **(environment or {})}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory for programs that come first on PATH."""
    found = tmp_path / "programs"
    found.mkdir()
    return found


def write_program(directory: Path, name: str, text: str) -> None:
    """Make a shell script."""
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[fake_wsl.Machine]:
    """A fake ``wsl.exe`` that knows its version too, with a worker where ``setup`` puts it."""
    found = fake_wsl.install(tmp_path / "wsl")
    python = found.home / wsl.VENV / "bin" / "python"
    python.parent.mkdir(parents=True)
    write_program(python.parent, "python", f'exec "{sys.executable}" "$@"')
    found.environment = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    found.save()
    write_version(found, "WSL-Version: 2.6.1.0\nKernelversion: 6.6.87.2-1\n")
    yield found
    from tests.integration.tools import until  # which Windows cannot import

    try:
        until(lambda: not found.inside())
    finally:
        found.shut_down()


def write_version(machine: fake_wsl.Machine, text: str) -> None:
    """Have the fake answer ``wsl --version`` with this; else with nothing and an error, if it is empty."""
    (machine.directory / "version").write_text(text)
    known = f'[ "$1" = --version ] && exec cat "{machine.directory}/version"' if text else ""
    other = f'exec "{sys.executable}" "{fake_wsl.__file__}" "{machine.directory}" "$@"'
    write_program(machine.directory / "bin", "wsl.exe", f"{known}\n{other}")


def beside(machine: fake_wsl.Machine) -> dict[str, str]:
    """Return the environment in which the fake is used."""
    return {"PATH": f"{machine.directory / 'bin'}{os.pathsep}{os.environ['PATH']}", wsl.NAMED: "wsl.exe"}
