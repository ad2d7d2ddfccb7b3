"""The client's side of ``wsl.exe``: decisions, and the whole command through a fake one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sklearn_wsl_gpu.doctor import between, surroundings, windows
from sklearn_wsl_gpu.doctor.asking import Answer
from sklearn_wsl_gpu.doctor.checks import Circumstances
from sklearn_wsl_gpu.launch.wsl import Completed, Distribution
from sklearn_wsl_gpu.pool import memory
from tests.doctor.conftest import beside, run_doctor, write_program, write_version
from tests.launch.fake_wsl import Machine

_UBUNTU = Distribution("Ubuntu", 2, True, "")
_HUNG = Completed(-9, "", "", True)


@pytest.mark.parametrize(
    ("done", "result"),
    [
        (Completed(0, "WSL version: 2.6.1.0\nKernel version: 6.6.87.2-1\n", "", False), "ok"),
        (Completed(0, "WSL-Version: 2.5.10.0\n", "", False), "ok"),
        (Completed(0, "WSL 版本: 2.5.9.0\n", "", False), "warning"),
        (Completed(0, "WSL version: 2.7.0.0\n", "", False), "warning"),
        (Completed(1, "Ungültige Befehlszeilenoption: --version\n", "", False), "warning"),
        (Completed(0, "Copyright (c) Microsoft Corporation.\n", "", False), "warning"),
        (_HUNG, "failed"),
    ],
)
def test_the_version_of_wsl_in_any_language(done: Completed, result: str) -> None:
    finding = between.judge_version(done)

    assert finding.result == result
    assert bool(finding.remedy) == (result != "ok")


def test_a_default_that_belongs_to_another_program_is_warned_of() -> None:
    docker = Distribution("docker-desktop", 2, True, "")
    ubuntu = _UBUNTU._replace(is_default=False)

    assert between.judge_distribution([_UBUNTU, docker._replace(is_default=False)], _UBUNTU).result == "ok"
    finding = between.judge_distribution([docker, ubuntu], ubuntu)
    assert finding.result == "warning"
    assert "wsl --set-default Ubuntu," in finding.remedy


@pytest.mark.parametrize(
    ("done", "result", "words"),
    [
        (Completed(0, "", "", False), "ok", ""),
        (Completed(255, "Wsl/Service/CreateVm/HCS/HCS_E_HYPERV_NOT_INSTALLED", "", False), "failed", "BIOS"),
        (Completed(255, "Error: 0x80370114", "", False), "failed", "Virtual Machine Platform"),
        (Completed(255, "Fehlercode: Wsl/0x80070422", "", False), "failed", "WslService"),
        (Completed(255, "etwas anderes", "", False), "failed", "wsl --update"),
        (_HUNG, "failed", "wsl --shutdown"),
    ],
)  # fmt: skip
def test_why_the_virtual_machine_does_not_start(done: Completed, result: str, words: str) -> None:
    finding = between.judge_start(done, 1.0)

    assert finding.result == result
    assert words in finding.remedy


@pytest.mark.parametrize(
    ("text", "result", "words"),
    [
        ("", "ok", "15000 and 60000 ms"),
        ("[wsl2]\nmemory=8GB # half\n", "ok", "wsl2.memory=8GB."),
        ("[wsl2]\nvmIdleTimeout=-1\n[general]\ninstanceIdleTimeout=-1\n", "ok", "never stops"),
        ("[wsl2]\nlocalhostForwarding=False\n", "warning", "localhostforwarding=False"),
        ("[wsl2]\nnetworkingMode=mirrored\nlocalhostForwarding=false\n", "ok", "mirrored"),
        ("[wsl2]\nkernel=C:\\\\kernel\n", "warning", "kernel="),
        ("memory=8GB\n", "warning", "cannot be read"),
    ],
)
def test_settings_of_wsl(text: str, result: str, words: str) -> None:
    finding = surroundings.judge_settings(text, bool(text))

    assert finding.result == result
    assert words in finding.evidence


def test_clocks_that_agree_and_one_that_slept() -> None:
    assert between.judge_clock(0.2).result == "ok"
    assert between.judge_clock(-3600).result == "warning"
    assert "3600.0 s behind" in between.judge_clock(-3600).evidence


def test_whether_hvsocket_is_possible_and_why_not() -> None:
    number = "0d3c5a2e-7f5b-4d6e-9a43-b3f9a1c0d2e4"

    assert number in between.judge_hvsocket((3, 12), True, number).evidence
    assert "3.12 or later" in between.judge_hvsocket((3, 11), False, number).remedy
    assert "wsl --update" in between.judge_hvsocket((3, 12), True, "").remedy


def test_only_rows_are_taken_from_what_the_other_side_prints() -> None:
    row = {
        "name": "kernel",
        "side": "wsl",
        "severity": "fatal",
        "result": "ok",
        "evidence": "6.6",
        "remedy": "",
        "seconds": 1,
    }
    lines = ["Welcome to Ubuntu", json.dumps({"versions": {"numpy": "2.1"}}), json.dumps(row)]
    lines += [json.dumps({**row, "result": "fine"}), json.dumps({**row, "name": 3}), "[]", "{}", "3"]
    lines += [json.dumps({**row, "seconds": "long"})]
    rows, versions = between.parse_rows("\n".join(lines))

    assert [found.name for found in rows] == ["kernel"]
    assert versions == {"numpy": "2.1"}


@pytest.mark.parametrize(
    ("done", "count", "ended", "result"),
    [
        (Completed(0, "", "", False), 20, True, "ok"),
        (Completed(1, "", "No module named 'sklearn_wsl_gpu'", False), 0, False, "failed"),
        (Completed(0, "", "", False), 0, False, "failed"),
        (_HUNG, 3, False, "failed"),
    ],
)
def test_how_the_other_sides_doctor_did(done: Completed, count: int, ended: bool, result: str) -> None:
    assert between.judge_there(done, count, ended).result == result


@pytest.mark.parametrize(
    ("build", "bits", "result"), [(19044, 64, "ok"), (26100, 64, "ok"), (19043, 64, "failed"), (26100, 32, "failed")]
)
def test_builds_of_windows(build: int, bits: int, result: str) -> None:
    assert windows.judge_build(build, bits).result == result


def test_a_pool_lives_on_a_local_drive_only() -> None:
    home, synchronized = r"C:\Users\ada\AppData\Local", [r"C:\Users\ada\OneDrive"]

    assert windows.judge_directory(home, (3, 0x10), synchronized, 2**34, 65536).result == "ok"
    for path, facts in ((home, (4, 0x10)), (home, (3, 0x810)), (home, None), (r"C:\Users\ada\OneDrive\x", (3, 0x10))):
        finding = windows.judge_directory(path, facts, synchronized, 2**34, 65536)
        assert finding.result == "warning"
        assert path in finding.evidence


@pytest.mark.parametrize(
    ("taken", "words"), [(None, "has no sparse files"), (windows.TRIAL_BYTES, "takes all its space at once")]
)
def test_a_pool_lives_where_a_sparse_file_takes_little(taken: int | None, words: str) -> None:
    finding = windows.judge_directory(r"E:\pools", (3, 0x10), [], 2**34, taken)

    assert finding.result == "warning"
    assert words in finding.evidence


_PIDS = r"""
==============NVSMI LOG==============

GPU 00000000:01:00.0
    Processes
        GPU instance ID                   : N/A
        Process ID                        : 1404
            Type                          : C+G
            Name                          : C:\Windows\explorer.exe
            Used GPU Memory               : Not available in WDDM driver model
        Process ID                        : 9120
            Type                          : C+G
            Name                          : C:\Program Files\Blender\blender.exe
            Used GPU Memory               : Not available in WDDM driver model
        Process ID                        : 9121
            Type                          : C+G
            Name                          : C:\Windows\explorer.exe
        Process ID                        : 9122
            Type                          : C+G
            Name                          : [Insufficient Permissions]
"""


def test_the_programs_of_windows_that_use_the_gpu_are_named() -> None:
    finding = windows.judge_programs(Answer(0, _PIDS, ""))

    assert finding.result == "information"
    assert "used by [Insufficient Permissions], blender.exe, explorer.exe:" in finding.evidence
    assert windows.judge_programs(Answer(0, "", "")).evidence == "No program of Windows uses the GPU."
    assert "does not tell" in windows.judge_programs(Answer(127, "", "nvidia-smi.exe: not found")).evidence


@pytest.mark.parametrize(
    ("own", "kept", "result"),
    [
        (False, None, "ok"), (False, False, "ok"), (True, None, "warning"), (True, True, "warning"),
        (False, True, "warning"), (True, False, "warning"),
    ],
)  # fmt: skip
def test_client_and_worker_are_an_administrators_both_or_neither(own: bool, kept: bool | None, result: str) -> None:
    finding = windows.judge_elevation(own, kept)

    assert finding.result == result
    assert ("worker stop" in finding.remedy) == (kept not in (None, own))


def test_what_else_is_looked_at_on_windows() -> None:
    assert surroundings.judge_profile(r"C:\Users\ada").result == "ok"
    assert surroundings.judge_profile(r"C:\Users\Zoë").result == "warning"
    assert "Defender runs" in surroundings.judge_antivirus(True, "C:\\pool").evidence
    assert "another scanner" in surroundings.judge_antivirus(False, "C:\\pool").evidence


def test_the_hint_about_scanners_names_the_directory_that_pools_lie_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, named = r"C:\Users\ada\pools", str(tmp_path)
    monkeypatch.setattr(memory, "directory_of", {None: usual, named: named}.get)

    for arguments, directory in (({}, usual), ({"pool_dir": named}, named)):
        assert f"exclude {directory} (" in surroundings.look_at_antivirus(Circumstances(arguments, False)).remedy


def _rows(text: str) -> dict[str, dict[str, Any]]:
    # Of a name on both sides, the other side's comes first, as `setdefault` keeps it.
    found: dict[str, dict[str, Any]] = {}
    for row in json.loads(text)["checks"]:
        found.setdefault(row["name"], row)
    return found


def test_from_the_other_side_of_wsl_both_sides_are_in_one_table(machine: Machine) -> None:
    ran = run_doctor("--json", environment=beside(machine))
    rows = _rows(ran.stdout)

    assert ran.returncode == 0, ran.stdout
    for name in ("distribution", "wsl-version", "wsl-start", "interpreter", "clock", "doctor-there"):
        assert rows[name]["result"] == "ok", rows[name]
    assert rows["environment"]["result"] == "ok"  # of the other side
    assert rows["reach"]["result"] == "ok"
    assert "numpy" in rows["versions"]["evidence"]
    names = list(rows)
    assert names.index("doctor-there") < names.index("kernel") < names.index("reach")
    asked = [run for run in machine.asked if "sklearn_wsl_gpu.doctor" in run]
    assert [run[run.index("--exec") + 2 :] for run in asked] == [["-P", "-m", "sklearn_wsl_gpu.doctor"]]


def test_a_wsl_that_hangs_fails_one_check_and_what_depends_on_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn_wsl_gpu.doctor import command

    for name, value in beside(machine).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(between, "_START_SECONDS", 0.5)
    machine.hangs = "/bin/true"
    machine.save()
    rows = {row.name: row for row in command.look({})}

    assert rows["wsl-start"].result == "failed"
    assert "does not start within" in rows["wsl-start"].evidence
    assert {rows[name].result for name in ("interpreter", "clock", "doctor-there", "reach", "challenge")} == {"skipped"}
    machine.shut_down()


def test_a_wsl_that_does_not_know_its_version_is_warned_of_and_all_else_is_looked_at(machine: Machine) -> None:
    write_version(machine, "")
    ran = run_doctor("--json", environment=beside(machine))
    rows = _rows(ran.stdout)

    assert ran.returncode == 0, ran.stdout
    assert rows["wsl-version"]["result"] == "warning"
    assert "the old one of Windows, too old for streams over hvsocket" in rows["wsl-version"]["evidence"]
    assert rows["wsl-version"]["remedy"].startswith("Run wsl --update")
    for name in ("distribution", "wsl-start", "interpreter", "clock", "doctor-there", "reach", "versions"):
        assert rows[name]["result"] == "ok", rows[name]


def test_without_wsl_what_is_in_it_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn_wsl_gpu.doctor import command

    monkeypatch.setenv("SKLEARN_WSL_GPU_WSL", "no-such-wsl.exe")
    rows = {row.name: row for row in command.look({})}

    assert rows["distribution"].result == "failed"
    assert "is no program" in rows["distribution"].evidence
    assert {rows[name].result for name in ("wsl-version", "wsl-start", "doctor-there")} == {"skipped"}


def test_a_distribution_without_the_package_is_sent_to_setup(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn_wsl_gpu.doctor import command

    for name, value in beside(machine).items():
        monkeypatch.setenv(name, value)
    for path in machine.home.rglob("python"):
        path.unlink()
    row = next(row for row in command.look({}) if row.name == "interpreter")

    assert row.result == "failed"
    assert "sklearn-wsl-gpu setup" in row.evidence


def test_what_the_other_side_told_before_it_hung_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {
        "name": "kernel", "side": "wsl", "severity": "fatal", "result": "ok", "evidence": "6.6", "remedy": "",
        "seconds": 1,
    }  # fmt: skip
    told = f'{json.dumps({"versions": {}})}\n{json.dumps(row)}\n{{"name": "gpu'
    monkeypatch.setattr(between.wsl, "run", lambda arguments, seconds: Completed(-9, told, "", True))
    circumstances = Circumstances({}, False, noted={"distribution": "Ubuntu", "interpreter": "/venv/bin/python"})
    finding = between.look_there(circumstances)

    assert finding.result == "failed"
    assert finding.evidence.endswith("1 checks were carried out.")
    assert [found.name for found in circumstances.noted["there"]] == ["kernel"]


@pytest.mark.slow
def test_the_command_ends_beside_a_wsl_that_never_answers(machine: Machine) -> None:
    write_program(machine.directory / "bin", "wsl.exe", "exec sleep 1000")
    ran = run_doctor("--json", environment=beside(machine))
    rows = _rows(ran.stdout)

    assert ran.returncode == 1
    assert "did not end within" in rows["distribution"]["evidence"]
    assert {rows[name]["result"] for name in ("wsl-version", "wsl-start", "doctor-there", "reach")} == {"skipped"}
    assert rows["keys"]["result"] == "ok"
