"""The command itself, run from the shell on this machine, also when programs hang and when a worker is gone."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from sklearn_wsl_gpu import cli, standing
from sklearn_wsl_gpu.doctor import asking, gpu, own
from sklearn_wsl_gpu.doctor.checks import Circumstances
from sklearn_wsl_gpu.keys import create_keys
from tests.doctor.conftest import run_doctor, write_program
from tests.integration.tools import has_ended, until

has_gpu = Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()


def _rows(text: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(text)["checks"]}


@pytest.mark.skipif(has_gpu, reason="this machine has a GPU")
def test_on_linux_without_a_gpu_nothing_fails_and_a_call_goes_there_and_back() -> None:
    ran = run_doctor("--json")
    rows = _rows(ran.stdout)

    assert ran.returncode == 0, ran.stdout
    assert ran.stderr == ""
    assert rows["gpu-device"]["result"] == "information"
    for name in ("kernel", "environment", "keys", "reach", "versions", "model-versions", "challenge"):
        assert rows[name]["result"] == "ok", rows[name]
    assert "64 KiB there and back unchanged" in rows["reach"]["evidence"]
    assert rows["cuda-start"]["result"] == "skipped"
    assert not {"windows-build", "wsl-version", "network", "hvsocket"} & rows.keys()
    assert {row["side"] for row in rows.values()} == {"linux"}


def test_the_table_has_remedies_but_no_names_of_users_and_the_exit_code_says_that_a_check_failed(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home" / "lovelace" / "Schlüssel"
    create_keys(home / "keys")
    (home / "keys" / "client.json").chmod(0o644)
    ran = run_doctor(
        "--mask", "--keys", str(home / "keys"), environment={"HOME": str(home.parent), "PYTHONIOENCODING": "ascii"}
    )
    lines = ran.stdout.splitlines()

    assert ran.returncode == 1
    assert any(line.startswith("FAILED   keys") for line in lines)
    assert "home/<user>/Schl?ssel/keys/client.json'" in ran.stdout
    assert "lovelace" not in ran.stdout
    assert any(line.startswith("ok       kernel") for line in lines)
    assert "1 failed" in lines[-1]


def test_over_a_stream_bytes_go_there_and_back_and_the_bandwidth_is_told() -> None:
    rows = _rows(run_doctor("--json", environment={"SKLEARN_WSL_GPU_CARRIER": "stream"}).stdout)

    assert rows["challenge"]["result"] == "ok", rows["challenge"]
    assert rows["challenge"]["evidence"] == "stream (tcp) passed."
    there, back = re.findall(r"([0-9.]+) GB/s", rows["bandwidth"]["evidence"])
    assert float(there) > 0
    assert float(back) > 0


def test_an_endpoint_without_a_worker_fails_with_what_to_do(tmp_path: Path) -> None:
    create_keys(tmp_path)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        ran = run_doctor("--json", "--endpoint", endpoint, "--keys", str(tmp_path))
    rows = _rows(ran.stdout)

    assert ran.returncode == 1
    assert rows["reach"]["result"] == "failed"
    assert endpoint in rows["reach"]["evidence"]
    assert rows["reach"]["remedy"]
    assert rows["challenge"]["result"] == "skipped"


@pytest.mark.parametrize(("name", "value"), [("ENGINE", "abacus"), ("ENDPOINT", "abacus"), ("SLOTS", "abacus")])
def test_a_setting_that_is_wrong_is_one_finding_and_what_goes_by_settings_is_skipped(name: str, value: str) -> None:
    ran = run_doctor("--json", environment={f"SKLEARN_WSL_GPU_{name}": value})
    rows = _rows(ran.stdout)

    assert ran.returncode == 1
    assert [row["name"] for row in rows.values() if row["result"] == "failed"] == ["configuration"]
    assert (
        f"got 'abacus'. It is an argument of offload() and the environment variable SKLEARN_WSL_GPU_{name}."
        in (rows["configuration"]["evidence"])
    )
    assert rows["configuration"]["remedy"] == "Correct that setting; README, Settings, lists them."
    assert rows["reach"]["evidence"] == "It depends on configuration."
    assert rows["kernel"]["result"] == "ok"


def test_settings_that_are_not_the_default_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SKLEARN_WSL_GPU_PREFAULT")
    monkeypatch.delenv("SKLEARN_WSL_GPU_KEYS")
    monkeypatch.setenv("SKLEARN_WSL_GPU_ENGINE", "cpu")

    assert own.look_at_configuration(Circumstances({}, False)).evidence == "Settings: engine is 'cpu'."
    assert own.look_at_configuration(Circumstances({"engine": "auto"}, False)).evidence.startswith("All settings have")


def test_a_reply_directory_of_a_dead_process_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / "sklearn_wsl_gpu-replies-0"
    left.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    finding = own.look_at_leftovers(Circumstances({}, False))

    assert finding.result == "information"
    assert str(left) in finding.evidence


@pytest.mark.skipif(os.name == "nt", reason="a worker runs on Linux")
def test_a_worker_that_is_kept_is_looked_at(tmp_path: Path) -> None:
    keys = str(tmp_path / "keys")
    circumstances = Circumstances({"keys": keys}, False)
    assert own.look_at_kept(circumstances).evidence.startswith("None is kept")

    pid = standing.start(keys, "cpu", "auto", "tcp://127.0.0.1:*")[0]["pid"]
    try:
        assert "answers: engine cpu, 0 sessions" in own.look_at_kept(circumstances).evidence
        os.kill(pid, signal.SIGSTOP)
        assert f"(process {pid}) runs and does not answer" in own.look_at_kept(circumstances).evidence
    finally:
        os.kill(pid, signal.SIGKILL)
    until(lambda: has_ended(pid))
    gone = own.look_at_kept(circumstances)
    assert gone.result == "warning"
    assert "is gone: each process looks for it in vain" in gone.evidence

    assert standing.stop(keys, None) is None
    assert own.look_at_kept(circumstances).result == "information"


def test_the_help_says_what_the_exit_code_means(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["doctor", "--help"])

    assert "exit code is 1 if a check failed" in " ".join(capsys.readouterr().out.split())


def test_the_worker_sides_doctor_tells_a_line_of_json_for_each_check() -> None:
    command = [sys.executable, "-P", "-m", "sklearn_wsl_gpu.doctor"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    head, *rows = [json.loads(line) for line in ran.stdout.splitlines()]

    assert head["versions"]["scikit-learn"]
    assert "kernel" in {row["name"] for row in rows}
    assert "reach" not in {row["name"] for row in rows}


def test_a_program_on_the_path_that_hangs_is_ended_with_all_that_it_started(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its child holds the pipes, as those of a wrapper do.
    write_program(programs, "nvidia-smi", "sleep 1000 & wait")
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(gpu, "_SMI_SECONDS", 0.5)
    finding = gpu.look_at_driver(Circumstances({}, False))

    assert finding.result == "failed"
    assert "no answer" in finding.evidence


def test_where_there_are_no_groups_of_processes_the_program_alone_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "sys", SimpleNamespace(platform="win32"))

    assert asking.ask([sys.executable, "-c", "import time; time.sleep(1000)"], 0.5).timed_out


def test_what_nvidia_smi_prints_is_understood_from_a_program_on_the_path(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(programs, "nvidia-smi", 'echo "NVIDIA GeForce RTX 4080, 581.29, 8.9, 16376, 14561"')
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    circumstances = Circumstances({}, False)

    assert gpu.look_at_driver(circumstances).result == "ok"
    assert gpu.look_at_gpus(circumstances).evidence.startswith("NVIDIA GeForce RTX 4080, compute capability 8.9")


@pytest.mark.skipif(os.name == "nt", reason="signals are sent")
def test_ctrl_c_ends_the_command_and_the_programs_that_it_has_asked() -> None:
    words = "import sys; from sklearn_wsl_gpu.cli import main; sys.exit(main(['doctor']))"
    with subprocess.Popen([sys.executable, "-P", "-c", words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "python" in line:
                break
        asked: list[psutil.Process] = []
        while not asked:  # the next check starts an interpreter
            asked = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGINT)
        process.stdout.read()

    assert process.returncode == 130
    assert not psutil.wait_procs(asked, 10)[1]


def test_a_program_that_is_not_there_is_an_answer() -> None:
    answer = asking.ask(["no-such-program"], 5.0)

    assert answer.code == 127
    assert "no-such-program" in answer.words
