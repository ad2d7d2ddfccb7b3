"""``sklearn-wsl-gpu run`` and ``python -m sklearn_wsl_gpu``: programs run as python runs them, but offloaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_PROGRAM = """
import sys
print(sys.argv, sys.path[0], __name__, sorted({"numpy", "sklearn"} & set(sys.modules)))
import numpy as np
from sklearn.preprocessing import StandardScaler
StandardScaler().fit(np.eye(3))
"""
_COMMANDS = {
    "python -m": [sys.executable, "-m", "sklearn_wsl_gpu"],
    "command": [sys.executable, "-c", "import sys; from sklearn_wsl_gpu.cli import main; sys.exit(main())", "run"],
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def _do(home: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=home.parent,
        env={**os.environ, "HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def _report(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return _do(home, *_COMMANDS["command"][:-1], "report", *options)


@pytest.mark.parametrize("words", ["--help", "worker status", "worker status --json", "run -c print(1)", "doctor"])
def test_a_command_that_nobody_reads_any_more_ends_without_a_word(words: str, home: Path) -> None:
    command = [*_COMMANDS["command"][:-1], *words.split()]
    pipe = subprocess.PIPE
    # What a program writes itself to such a pipe is its own affair: here it is written at its end.
    environment = {**os.environ, "HOME": str(home), "PYTHONUNBUFFERED": ""}
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, said = process.communicate(timeout=100)

    assert (process.returncode, said) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
def test_a_full_disk_is_no_reader_that_has_gone(home: Path) -> None:
    command = [*_COMMANDS["command"][:-1], "worker", "status"]
    environment = {**os.environ, "HOME": str(home), "PYTHONUNBUFFERED": ""}
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, check=False)

    assert ran.returncode == 2
    assert ran.stderr == b"What there is to show cannot be written: No space left on device\n"


def _saved(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_report(home, "--json").stdout)
    return found


@pytest.mark.parametrize("command", _COMMANDS)
def test_a_script_gets_its_arguments_and_path_and_is_offloaded(command: str, home: Path) -> None:
    script = home / "script.py"
    script.write_text(_PROGRAM)

    ran = _do(home, *_COMMANDS[command], str(script), "-c", "--json", "-m", "x")

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"{[str(script), '-c', '--json', '-m', 'x']} {home} __main__ []\n"
    assert _saved(home)["report"]["offloaded"] == 1


@pytest.mark.parametrize("command", _COMMANDS)
def test_a_module_is_run_as_python_runs_it(command: str, home: Path) -> None:
    (home.parent / "program.py").write_text(_PROGRAM)

    ran = _do(home, *_COMMANDS[command], "-m", "program", "-m", "--flag")

    assert (ran.returncode, ran.stderr) == (0, "")
    where = str(home.parent)
    assert ran.stdout == f"{[str(home.parent / 'program.py'), '-m', '--flag']} {where} __main__ []\n"
    assert _saved(home)["report"]["offloaded"] == 1


@pytest.mark.parametrize("command", _COMMANDS)
def test_code_is_run_as_python_runs_it(command: str, home: Path) -> None:
    ran = _do(home, *_COMMANDS[command], "-c", _PROGRAM, "a", "-c")

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"{['-c', 'a', '-c']}  __main__ []\n"
    assert _saved(home)["report"]["offloaded"] == 1


def test_the_exit_code_and_the_traceback_are_the_programs_own(home: Path) -> None:
    script = home / "script.py"
    script.write_text("def f():\n    raise ValueError('no')\nf()\n")
    plain = _do(home, sys.executable, str(script))

    offloaded = _do(home, *_COMMANDS["command"], str(script))

    assert (offloaded.returncode, offloaded.stderr) == (plain.returncode, plain.stderr)
    assert _do(home, *_COMMANDS["python -m"], "-c", "import sys; sys.exit(7)").returncode == 7
    broken = _do(home, *_COMMANDS["python -m"], "-c", "1 +")
    assert broken.returncode == 1
    assert broken.stderr == _do(home, sys.executable, "-c", "1 +").stderr


def test_children_of_the_program_are_offloaded_too(home: Path) -> None:
    script = home / "script.py"
    script.write_text(
        "import multiprocessing\n"
        "def work(_):\n"
        "    import numpy, sklearn_wsl_gpu\n"
        "    from sklearn.preprocessing import StandardScaler\n"
        "    StandardScaler().fit(numpy.eye(3))\n"
        "    return sklearn_wsl_gpu.report().offloaded\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(work, [0]))\n"
    )

    assert _do(home, *_COMMANDS["python -m"], str(script)).stdout == "[1]\n"


def test_the_report_of_the_last_run_is_told_in_words_and_as_json(home: Path) -> None:
    assert _report(home).returncode == 2
    assert "sklearn-wsl-gpu run script.py" in _report(home).stderr
    _do(home, *_COMMANDS["command"], "-c", _PROGRAM, SKLEARN_WSL_GPU_EXCLUDE="StandardScaler")

    words, data = _report(home).stdout, _saved(home)

    assert "StandardScaler.fit  1  local (scikit-learn) [excluded]" in words
    assert "[excluded] StandardScaler is in exclude." in words
    assert (data["report"]["offloaded"], data["report"]["local"]) == (0, 1)
    assert data["report"]["calls"][0]["reason"]["code"] == "excluded"
    assert data["command"][-1] == _PROGRAM


def test_what_cannot_be_run_is_told(home: Path) -> None:
    missing = _do(home, *_COMMANDS["command"], "nowhere.py")
    nothing = _do(home, *_COMMANDS["python -m"])

    assert (missing.returncode, missing.stderr) == (2, "There is no script nowhere.py.\n")
    assert nothing.returncode == 2
    assert nothing.stderr.startswith("usage: python -m sklearn_wsl_gpu (script.py | -m MODULE | -c CODE)")


def test_python_m_does_what_the_command_does_unless_there_is_a_program_of_that_name(home: Path) -> None:
    command = _do(home, *_COMMANDS["python -m"], "worker", "status", "--keys", str(home / "keys"))
    (home.parent / "worker").mkdir()
    beside = _do(home, *_COMMANDS["python -m"], "worker", "status", "--keys", str(home / "keys"))
    (home.parent / "worker" / "__main__.py").write_text("print('a program')")
    program = _do(home, *_COMMANDS["python -m"], "worker", "status")

    assert (command.returncode, beside.returncode) == (1, 1)
    assert command.stdout.startswith("No worker runs")
    assert (program.returncode, program.stdout) == (0, "a program\n")


def test_a_home_that_cannot_be_written_costs_the_report_only(home: Path) -> None:
    (home / ".sklearn_wsl_gpu").write_text("a file where the directory would be")

    ran = _do(home, *_COMMANDS["command"], "-c", "print('done')")

    assert (ran.returncode, ran.stdout) == (0, "done\n")
    assert ran.stderr.startswith("sklearn_wsl_gpu: the report of this run is not saved: ")
