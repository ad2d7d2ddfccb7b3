"""A ``wsl.exe`` that is none: it speaks as the real one does, and runs commands here, as the real one does over there.

Run as ``fake_wsl.py DIRECTORY ARGUMENTS``; DIRECTORY has ``machine.json`` (see `Machine`) and takes a log of what was
asked, and the numbers of the processes "inside". As there, such a process is no child of the caller: it sees another
environment, and goes on when ``wsl.exe`` is killed, until it notices the end of its standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

_REFUSED = 255


@dataclass
class Machine:
    """What the fake tells, and where it keeps it."""

    directory: Path
    home: Path
    #: name, state in words, version; the default comes first
    distributions: list[tuple[str, str, int]] = field(default_factory=lambda: [("Ubuntu", "Running", 2)])
    header: tuple[str, str, str] = ("NAME", "STATE", "VERSION")
    encoding: str = "utf-16-le"
    #: Old ones do not know the variable.
    knows_wsl_utf8: bool = True
    #: Words of a command that never ends; of one that fails, with what it says.
    hangs: str = ""
    fails: str = ""
    says: str = "Das Subsystem konnte nicht gestartet werden."
    environment: dict[str, str] = field(default_factory=dict)

    def save(self) -> None:
        """Let what was changed hold for the next run."""
        content = {**asdict(self), "directory": str(self.directory), "home": str(self.home)}
        (self.directory / "machine.json").write_text(json.dumps(content))

    @property
    def asked(self) -> list[list[str]]:
        """The arguments of all runs so far."""
        log = self.directory / "asked.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def program(self, name: str, script: str) -> None:
        """Have a program in the distribution, by a script of a shell."""
        path = self.directory / "programs" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def inside(self) -> list[psutil.Process]:
        """The processes "inside" that still run."""
        found = []
        for path in (self.directory / "inside").iterdir():
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(int(path.name))
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def shut_down(self) -> None:
        """Do what ``wsl --shutdown`` does: nobody inside is asked."""
        for process in self.inside():
            for child in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()


def install(where: Path) -> Machine:
    """Make a ``wsl.exe`` at ``where/bin``, and return what it will tell."""
    machine = Machine(where, where / "home")
    for directory in (where / "bin", where / "inside", where / "programs", machine.home):
        directory.mkdir(parents=True)
    program = where / "bin" / "wsl.exe"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "{where}" "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    machine.save()
    return machine


def _say(machine: Machine, text: str) -> None:
    plain = machine.knows_wsl_utf8 and os.environ.get("WSL_UTF8") == "1"
    raw = text.replace("\n", "\r\n").encode("utf-8" if plain else "utf-16-le")
    bom = b"\xff\xfe" if machine.encoding == "utf-16-le-bom" and not plain else b""
    sys.stdout.buffer.write(bom + raw)
    sys.stdout.buffer.flush()


def _table(machine: Machine) -> str:
    width = max(len(name) for name, _, _ in machine.distributions) + 4
    name, state, version = machine.header
    rows = [f"  {name:{width}}{state:16}{version}"]
    for number, (name, state, is_2) in enumerate(machine.distributions):
        rows.append(f"{' ' if number else '*'} {name:{width}}{state:16}{is_2}")
    return "\n".join([*rows, ""])


def _execute(machine: Machine, distribution: str, words: list[str]) -> int:
    search = f"{machine.directory}/programs:/usr/bin:/bin"
    environment = {"PATH": search, "HOME": str(machine.home), "WSL_DISTRO_NAME": distribution}
    program = shutil.which(words[0], path=search)
    if program is None:
        _say(
            machine, f"<3>WSL (11) ERROR: CreateProcessCommon: execvpe({words[0]}) failed: No such file or directory\n"
        )
        return 1
    process = subprocess.Popen(
        [program, *words[1:]], cwd=machine.home, env={**environment, **machine.environment}, stdin=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    (machine.directory / "inside" / str(process.pid)).touch()
    assert process.stdin is not None

    def relay(to: Any) -> None:
        with contextlib.suppress(OSError), to:
            while chunk := os.read(0, 65536):
                os.write(to.fileno(), chunk)

    threading.Thread(target=relay, args=(process.stdin,), daemon=True).start()
    code = process.wait()
    (machine.directory / "inside" / str(process.pid)).unlink(missing_ok=True)
    return code if code >= 0 else 1


def main() -> int:
    """Answer one run."""
    directory, arguments = Path(sys.argv[1]), sys.argv[2:]
    content = json.loads((directory / "machine.json").read_text())
    machine = Machine(**{**content, "directory": directory, "home": Path(content["home"])})
    machine.distributions = [tuple(entry) for entry in machine.distributions]  # type: ignore[misc]
    with (directory / "asked.jsonl").open("a") as log:
        log.write(json.dumps(arguments) + "\n")
    text = " ".join(arguments)
    if machine.hangs and machine.hangs in text:
        signal.pause()
    if machine.fails and machine.fails in text:
        _say(machine, f"{machine.says}\n")
        return _REFUSED
    names = [name for name, _, _ in machine.distributions]
    match arguments:
        case ["-l", "-q"] if names:
            _say(machine, "\n".join([*names, ""]))
        case ["-l", "-v"] if names:
            _say(machine, _table(machine))
        case ["--shutdown"]:
            machine.shut_down()
        case ["-d", name, "--cd", "~", "--exec", *words] if name in names and words:
            return _execute(machine, name, words)
        case _:
            _say(machine, f"{machine.says}\n")
            return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
