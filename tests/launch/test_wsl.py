"""What is asked of ``wsl.exe``, what is made of its answers in any language, and what is said if there are none."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sklearn_wsl_gpu import ConfigurationError, WorkerStartError, windows
from sklearn_wsl_gpu.launch import commands, starting, wsl, wslpath
from sklearn_wsl_gpu.launch.wsl import Distribution
from tests.launch import fake_wsl

#: Tables in the bytes of the real one: English and German as people have published them, the Chinese one composed.
RECORDED = Path(__file__).parent / "recorded"


@pytest.mark.parametrize(
    ("file", "names", "expected"),
    [
        (
            "english.utf16",
            ["Ubuntu", "Legacy", "Ubuntu-18.04", "docker-desktop"],
            [
                Distribution("Ubuntu", 2, True, "Running"),
                Distribution("Legacy", 1, False, "Stopped"),
                Distribution("Ubuntu-18.04", 1, False, "Stopped"),
                Distribution("docker-desktop", 2, False, "Running"),
            ],
        ),
        *[
            (
                file,
                ["Debian", "Ubuntu"],
                [Distribution("Debian", 2, True, "Wird ausgeführt"), Distribution("Ubuntu", 2, False, "Beendet")],
            )
            for file in ("german.utf8", "german.utf16bom")
        ],
        (
            "chinese.utf16",
            ["docker-desktop", "docker-desktop-data", "Ubuntu 22.04 LTS"],
            [
                Distribution("docker-desktop-data", 2, False, "正在运行"),
                Distribution("docker-desktop", 2, True, "正在运行"),
                Distribution("Ubuntu 22.04 LTS", 2, False, "已停止"),
            ],
        ),
    ],
)
def test_a_table_is_understood_in_any_language_and_encoding(
    file: str, names: list[str], expected: list[Distribution]
) -> None:
    assert wsl.parse_list(wsl.decode((RECORDED / file).read_bytes()), names) == expected


def test_a_long_message_in_another_script_is_understood() -> None:
    words = "このディストリビューションは見つかりませんでした。" * 3
    assert wsl.decode(f"{words}\r\n".encode("utf-16-le")) == f"{words}\n"
    assert wsl.decode(f"{words}\n".encode()) == f"{words}\n"


@pytest.mark.parametrize(
    ("name", "typed"), [("Ubuntu-24.04", "Ubuntu-24.04"), ("Ubuntu 24.04", '"Ubuntu 24.04"'), ("Lüge", '"Lüge"')]
)
def test_a_name_is_typed_without_quotes_where_it_can_be(name: str, typed: str) -> None:
    # cmd.exe leaves them, and wsl.exe takes them for a part of the name.
    assert wsl.typed(name) == typed


def test_a_wait_for_wsl_hears_ctrl_c_and_gets_all_that_is_said(
    machine: fake_wsl.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.program("slow", "cat; sleep 1; echo the rest")
    waits: list[float] = []
    communicate = subprocess.Popen.communicate

    def noting(process: Any, stdin: bytes | None = None, timeout: float | None = None) -> Any:
        assert timeout is not None
        waits.append(timeout)
        return communicate(process, stdin, timeout)

    monkeypatch.setattr(subprocess.Popen, "communicate", noting)
    done = wsl.run(wsl.inside("Ubuntu", "slow"), 60.0, b"what it was given\n")

    assert (done.code, done.out) == (0, "what it was given\nthe rest\n")
    assert len(waits) > 1
    assert max(waits) <= wsl.LOOK_SECONDS


def test_a_failure_of_wsl_itself_is_told_as_it_tells_it(
    monkeypatch: pytest.MonkeyPatch, machine: fake_wsl.Machine
) -> None:
    monkeypatch.setattr(wsl, "_communicate", lambda process, stdin, seconds: (b"", b""))
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **keywords: _Ended())

    assert wsl.run(["--version"], 1.0).code == -1


class _Ended:
    """A process as Windows shows one that ended with -1."""

    returncode = 2**32 - 1
    stdin = stdout = stderr = None


@pytest.mark.parametrize("knows_wsl_utf8", [True, False])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-le-bom"])
def test_distributions_are_listed_by_old_and_new_versions(
    encoding: str, knows_wsl_utf8: bool, machine: fake_wsl.Machine
) -> None:
    machine.encoding, machine.knows_wsl_utf8 = encoding, knows_wsl_utf8
    machine.header = ("名称", "状態", "バージョン")
    machine.distributions = [("Ubuntu 24.04 für Lüge", "実行中", 2), ("docker-desktop", "停止", 2), ("alt", "停止", 1)]
    machine.save()

    assert wsl.distributions() == [
        Distribution("Ubuntu 24.04 für Lüge", 2, True, "実行中"),
        Distribution("docker-desktop", 2, False, "停止"),
        Distribution("alt", 1, False, "停止"),
    ]


@pytest.fixture
def on_windows(machine: fake_wsl.Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fake_wsl.Machine:
    """Take this for Windows, whose own ``wsl.exe`` the fake is."""
    system = tmp_path / "Windows" / "System32"
    system.mkdir(parents=True)
    (system / "wsl.exe").symlink_to(machine.directory / "bin" / "wsl.exe")
    monkeypatch.setenv("SYSTEMROOT", str(system.parent))
    monkeypatch.delenv(wsl.NAMED)
    monkeypatch.setattr(wsl, "sys", SimpleNamespace(platform="win32"))
    return machine


# Where WSL was never set up, wsl.exe might offer to do that, and wait for an answer.
@pytest.mark.parametrize("registered", [[("Debian", 2, True), ("old", 1, False)], []])
def test_on_windows_the_registry_is_asked_and_wsl_is_not(
    registered: list[tuple[str, int, bool]], on_windows: fake_wsl.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "registered_distributions", lambda: registered)

    assert wsl.is_between()
    assert wsl.distributions() == [Distribution(*entry, "") for entry in registered]
    assert on_windows.asked == []


def test_where_the_registry_cannot_be_read_wsl_is_asked(
    on_windows: fake_wsl.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_before: list[list[list[str]]] = []
    monkeypatch.setattr(windows, "registered_distributions", lambda: asked_before.append(on_windows.asked))

    assert wsl.distributions() == [Distribution("Ubuntu", 2, True, "Running")]
    assert asked_before == [[]]
    assert on_windows.asked == [["-l", "-q"], ["-l", "-v"]]


def _is(name: str, version: int = 2, is_default: bool = False) -> Distribution:
    return Distribution(name, version, is_default, "")


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ([_is("Debian"), _is("Ubuntu", is_default=True)], None, "Ubuntu"),
        ([_is("Debian"), _is("Ubuntu", is_default=True)], "debian", "Debian"),
        ([_is("docker-desktop", is_default=True), _is("Debian")], None, "Debian"),
        ([_is("rancher-desktop-data"), _is("podman-machine-default"), _is("docker-desktop"), _is("A")], None, "A"),
        ([_is("old", 1, True), _is("new", 2)], None, "new"),
        ([_is("podman-machine-default", is_default=True)], "podman-machine-default", "podman-machine-default"),
    ],
)
def test_the_distribution_that_is_wanted_or_the_default_or_the_first_that_will_do_is_taken(
    found: list[Distribution], wanted: str | None, expected: str
) -> None:
    assert wsl.choose(found, wanted).name == expected


@pytest.mark.parametrize(
    ("found", "wanted", "words"),
    [
        ([], None, "No Linux distribution is installed in WSL. Run `wsl --install -d Ubuntu`"),
        ([_is("docker-desktop")], None, "part of other programs: docker-desktop. Run `wsl --install -d Ubuntu`"),
        ([_is("Ubuntu")], "Debian", "There is no distribution 'Debian' in WSL, only: Ubuntu. Set distribution"),
        ([_is("My Linux", 1)], None, 'which has no GPU. Run `wsl --set-version "My Linux" 2`'),
        ([_is("a"), _is("Ubuntu-24.04", 1)], "Ubuntu-24.04", "Run `wsl --set-version Ubuntu-24.04 2`"),
    ],
)
def test_where_no_distribution_will_do_it_is_said_what_to_type(
    found: list[Distribution], wanted: str | None, words: str
) -> None:
    with pytest.raises(WorkerStartError) as raised:
        wsl.choose(found, wanted)
    assert words in str(raised.value)


def test_a_list_that_is_refused_is_an_error_with_the_words_of_wsl(machine: fake_wsl.Machine) -> None:
    machine.distributions, machine.says = [], "Für das Windows-Subsystem sind keine Verteilungen installiert."
    machine.save()

    with pytest.raises(WorkerStartError, match=r"It says: Für das Windows-Subsystem .* Run `wsl --install"):
        wsl.distributions()


def test_a_run_that_hangs_is_ended_in_time(machine: fake_wsl.Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.hangs = "-l"
    machine.save()
    monkeypatch.setattr(wsl, "_LIST_SECONDS", 0.2)

    with pytest.raises(WorkerStartError, match=r"`wsl -l -q` did not end within .* Run `wsl --shutdown`"):
        wsl.distributions()


def test_a_command_that_hangs_inside_is_ended_in_time_though_it_holds_the_pipes(machine: fake_wsl.Machine) -> None:
    done = wsl.run(wsl.inside("Ubuntu", "sleep", "30"), 1.0)

    assert (done.timed_out, done.out) == (True, "")
    machine.shut_down()


def test_what_was_said_before_the_time_was_over_is_told(machine: fake_wsl.Machine) -> None:
    machine.program("slow", "echo half of it; echo and a warning >&2; sleep 300")

    for seconds in (1.0, 4.0, 16.0):  # before it has said anything it has to start
        done = wsl.run(wsl.inside("Ubuntu", "slow"), seconds)
        if done.err:
            break

    assert (done.timed_out, done.out, done.err) == (True, "half of it\n", "and a warning\n")
    with pytest.raises(WorkerStartError, match=r"within .* s\. It said: half of it and a warning\. Run `wsl"):
        wsl.ask("Ubuntu", "slow", seconds=seconds)
    machine.shut_down()


def test_a_command_gets_its_words_its_input_and_the_home_directory(machine: fake_wsl.Machine) -> None:
    done = wsl.run(wsl.inside("Ubuntu", "cat", "-", "with space.txt"), 20, b"from here\n")
    assert (done.code, done.out) == (1, "from here\n")
    assert "with space.txt" in done.err

    (machine.home / "with space.txt").write_text("größer\n")
    assert wsl.ask("Ubuntu", "cat", "with space.txt").out == "größer\n"
    assert wsl.home("Ubuntu") == str(machine.home)


def test_the_interpreter_is_the_one_of_setup_or_the_one_that_is_named(machine: fake_wsl.Machine) -> None:
    with pytest.raises(WorkerStartError, match=r"no Python for the worker at .*/venv/bin/python in Ubuntu. Run `skl"):
        wsl.interpreter("Ubuntu")
    made = machine.home / wsl.VENV / "bin" / "python"
    made.parent.mkdir(parents=True)
    made.symlink_to(sys.executable)

    assert wsl.interpreter("Ubuntu") == str(made)
    assert wsl.interpreter("Ubuntu", f"~/{wsl.VENV}/bin/python") == str(made)
    assert wsl.interpreter("Ubuntu", sys.executable) == sys.executable


@pytest.mark.parametrize("named", [None, "/opt/python"])
def test_a_distribution_that_does_not_start_is_named_as_the_cause(named: str | None, machine: fake_wsl.Machine) -> None:
    machine.fails, machine.says = "--exec", "Virtualisierung ist nicht aktiviert. Fehlercode: 0x80370102"
    machine.save()

    with pytest.raises(WorkerStartError, match=r"Ubuntu does not start .* Virtualisierung .* 0x80370102"):
        wsl.interpreter("Ubuntu", named)


def test_wsl_is_found_where_windows_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(wsl.NAMED, raising=False)
    monkeypatch.setenv("SYSTEMROOT", str(tmp_path))
    with pytest.raises(WorkerStartError, match=r"WSL is not installed. Run `wsl --install"):
        wsl.executable()
    for directory in ("System32", "Sysnative"):
        path = tmp_path / directory / "wsl.exe"
        path.parent.mkdir()
        path.touch()
        assert wsl.executable() == str(path)


def test_a_named_program_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(wsl.NAMED, "/no/such/wsl.exe")

    with pytest.raises(WorkerStartError, match=r"SKLEARN_WSL_GPU_WSL=/no/such/wsl.exe is no program"):
        wsl.run(["-l"], 1)


def _look(*command: str) -> wsl.Completed:
    return wsl.ask("Ubuntu", *command)


def test_a_path_of_windows_is_translated_by_the_distribution(machine: fake_wsl.Machine) -> None:
    machine.program("wslpath", 'test "$1" = -u && test "$2" = "C:/Users/Jörg Müller/x.whl" && echo "/c/Jörg/x.whl"')

    assert wslpath.posix_path(_look, r"C:\Users\Jörg Müller\x.whl") == "/c/Jörg/x.whl"
    assert wslpath.posix_path(_look, "/home/me/x.whl") == "/home/me/x.whl"


def test_a_path_of_the_distribution_is_translated_by_it(machine: fake_wsl.Machine) -> None:
    machine.program("wslpath", r"""test "$1" = -w && test "$2" = /home/jörg/x && printf '%s\n' '\\wsl.localhost\U\x'""")

    assert wslpath.windows_path(_look, "Ubuntu", "/home/jörg/x") == r"\\wsl.localhost\U\x"


def test_where_the_distribution_cannot_translate_its_table_of_mounts_does(machine: fake_wsl.Machine) -> None:
    machine.program("wslpath", "exit 1")
    machine.program(
        "cat", r"""case "$1" in
        /etc/wsl.conf) printf '[automount]\nroot = /windows\n';;
        /proc/mounts) printf '%s\n' 'C:\134 /windows/c 9p rw,aname=drvfs;path=C:\;uid=1000,trans=fd 0 0';;
        esac""",
    )  # fmt: skip

    assert wslpath.posix_path(_look, r"C:\x y\z.whl") == "/windows/c/x y/z.whl"
    with pytest.raises(ConfigurationError, match=r"does not see drive D: .* /windows/d"):
        wslpath.posix_path(_look, r"D:\z.whl")
    assert wslpath.windows_path(_look, "Ubuntu", "/windows/c/x y/z.whl") == r"C:\x y\z.whl"
    assert wslpath.windows_path(_look, "Ubuntu", "/home/me/x") == r"\\wsl.localhost\Ubuntu\home\me\x"


def test_a_child_on_windows_has_no_window_and_no_part_in_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "CREATE_NO_WINDOW", 0x0800_0000, raising=False)
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0x200, raising=False)

    assert runpy.run_path(wsl.__file__)["HIDDEN"] == 0x0800_0200


def test_wsl_and_the_worker_are_hidden_children(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = []

    def refuse(command: list[str], **options: Any) -> Any:
        flags.append(options["creationflags"])
        raise FileNotFoundError(2, "it is only looked at")

    monkeypatch.setattr(wsl, "HIDDEN", 0x0800_0200)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setenv(wsl.NAMED, sys.executable)
    with pytest.raises(WorkerStartError, match="cannot be started"):
        wsl.run(["-l"], 1.0)
    with pytest.raises(WorkerStartError, match="cannot be started"):
        starting.WorkerProcess(
            commands.Command([sys.executable], "", 1.0, dict(os.environ), sys.executable), {}, None, 0
        )

    assert flags == [0x0800_0200, 0x0800_0200]
