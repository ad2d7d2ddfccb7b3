"""``sklearn-wsl-gpu setup``: what it shows, what it does, in WSL and on Linux, and how it goes on after a failure."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import sys
import zipfile
from importlib.metadata import distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import offload, sessions
from sklearn_wsl_gpu.cli import main
from sklearn_wsl_gpu.launch import setup, wsl
from tests.launch.fake_wsl import Machine

VERSION, SKLEARN = version("sklearn-wsl-gpu"), version("scikit-learn")
#: The Python of the distribution that is looked for first: the version that runs here.
OWN = f"python3.{sys.version_info[1]}"


@pytest.mark.parametrize(
    ("gpus", "extra", "words"),
    [
        ("580.95.05, 8.9\n", "cuml-cu13", "driver 580, compute capability 8.9"),
        ("581.29, 12.0\n", "cuml-cu13", "driver 581"),
        ("579.99, 8.9\n", "cuml-cu12", "driver 579"),
        ("535.104.05, 7.5\n", "cuml-cu12", "driver 535"),
        ("580.95.05, 7.0\n", "cuml-cu12", "compute capability 7.0"),
        ("580.95.05, 6.1\n580.95.05, 8.6\n", "cuml-cu13", "compute capability 8.6"),
        ("580.95.05, 6.1\n", "", "no cuML: the GPU has compute capability 6.1, and 7.0 is needed"),
        ("470.82, 8.6\n", "", "no cuML: the NVIDIA driver 470 is older than 535. Install a newer one"),
        ("", "", "nvidia-smi shows no NVIDIA GPU"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", "", "no NVIDIA GPU"),
    ],
)
def test_the_extra_is_the_one_that_fits_driver_and_gpu(gpus: str, extra: str, words: str) -> None:
    found, why = setup.extra_for(gpus)

    assert found == extra
    assert words in why


@pytest.mark.parametrize(
    ("source", "extra", "expected"),
    [
        (None, "", f"sklearn-wsl-gpu=={VERSION}"),
        (None, "cuml-cu13", f"sklearn-wsl-gpu[cuml-cu13]=={VERSION}"),
        ("/mnt/c/x y/a.whl", "cuml-cu12", "/mnt/c/x y/a.whl[cuml-cu12]"),
        ("/home/me/checkout", "", "/home/me/checkout"),
        ("https://host/a.whl", "cuml-cu13", "sklearn-wsl-gpu[cuml-cu13]@https://host/a.whl"),
        ("sklearn-wsl-gpu>=0.1", "cuml-cu13", "sklearn-wsl-gpu[cuml-cu13]>=0.1"),
    ],
)
def test_what_pip_is_asked_for_has_the_extra(source: str | None, extra: str, expected: str) -> None:
    assert setup.requirement(source, extra) == expected


def _wheel(directory: Path, mark: str) -> Path:
    """Make a wheel of what is tested, without a build: the packages, and their metadata."""
    info = f"sklearn_wsl_gpu-{VERSION}.dist-info"
    content = {f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    for name in ("METADATA", "entry_points.txt"):
        content[f"{info}/{name}"] = (distribution("sklearn-wsl-gpu").read_text(name) or "").encode()
    content[f"{info}/mark.txt"] = mark.encode()
    for package in ("sklearn_wsl_gpu", "wsl_worker"):
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*")):
            if path.suffix in (".py", ".typed"):
                content[f"{package}/{path.relative_to(root).as_posix()}"] = path.read_bytes()
    record = ""
    for name, raw in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(raw)}\n"
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = directory / f"sklearn_wsl_gpu-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in content.items():
            archive.writestr(name, raw)
    return path


@pytest.fixture
def dependencies(tmp_path: Path) -> dict[str, str]:
    """An environment in which pip needs no index: what this package needs is there already, itself it is not."""
    farm = tmp_path / "dependencies"
    farm.mkdir()
    for where in sys.path:
        if Path(where).name == "site-packages":
            for path in Path(where).iterdir():
                own = path.name.startswith(("sklearn_wsl_gpu", "wsl_worker", "zz_", "_", "cuml"))
                if not own and path.suffix != ".pth" and not (farm / path.name).exists():
                    (farm / path.name).symlink_to(path)
    threads = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return {
        "PYTHONPATH": str(farm),
        "PIP_NO_INDEX": "1",
        "PIP_NO_COMPILE": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        **threads,
    }


@pytest.fixture
def distribution_of_wsl(machine: Machine, dependencies: dict[str, str]) -> Machine:
    machine.environment = dependencies
    # pip comes from there too: to unpack it takes longer than all the rest.
    change = 'if [ "$2" = venv ]; then set -- -m venv --without-pip --clear "$4"; fi'
    machine.program(OWN, f'{change}\nexec "{sys._base_executable}" "$@"')  # type: ignore[attr-defined]
    machine.save()
    return machine


def test_a_dry_run_shows_every_command_and_changes_nothing(
    distribution_of_wsl: Machine, capfd: pytest.CaptureFixture[str]
) -> None:
    gpu = 'case "$*" in *driver_version*) echo "580.95.05, 8.9";; esac'
    distribution_of_wsl.program("nvidia-smi", gpu)

    assert main(["setup", "--dry-run"]) == 0

    said = capfd.readouterr().out
    venv = f"{distribution_of_wsl.home}/{wsl.VENV}"
    start = f"$ {distribution_of_wsl.directory}/bin/wsl.exe -d Ubuntu --cd '~' --exec"
    assert f"{start} {OWN} -m venv --clear {venv}\n" in said
    assert f" in Ubuntu (\\\\wsl.localhost\\Ubuntu{venv.replace('/', chr(92))}).\n" in said
    wanted = f"scikit-learn=={SKLEARN} 'sklearn-wsl-gpu[cuml-cu13]=={VERSION}'"
    assert f"{start} {venv}/bin/python -m pip install --only-binary numpy,scipy,scikit-learn {wanted}\n" in said
    assert said.endswith("Nothing was changed.\n")
    assert list(distribution_of_wsl.home.iterdir()) == []
    shown = [line for line in said.splitlines() if line.startswith("$ ")]
    run = [arguments for arguments in distribution_of_wsl.asked if "--exec" in arguments]
    assert len(shown) == len(run) + 3  # the three that are only shown


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_it_installs_a_worker_in_wsl_that_offload_finds_and_goes_on_where_it_failed(
    distribution_of_wsl: Machine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    machine = distribution_of_wsl

    assert main(["setup"]) == 2  # this version is on no index here
    said, error = capfd.readouterr()
    assert "[1/3] a virtual environment\n" in said
    assert "it goes on from here. Where this version is on no index, name a wheel with --from." in error

    wheel = str(_wheel(tmp_path, "first"))
    assert main(["setup", "--from", wheel]) == 0
    said = capfd.readouterr().out
    assert "[1/3] a virtual environment: done\n" in said
    assert "[2/3] the packages\n" in said
    assert "Ready: offload() starts a worker there." in said

    assert main(["setup", "--from", wheel]) == 0
    said = capfd.readouterr().out
    assert "[2/3] the packages: done\n" in said
    assert "pip install" not in said

    with offload(fallback="raise") as session:
        scaler = StandardScaler().fit(np.eye(3))
    assert session.report().offloaded == 1
    np.testing.assert_array_equal(scaler.mean_, StandardScaler().fit(np.eye(3)).mean_)
    sessions.shutdown()

    assert main(["setup", "--from", str(_wheel(tmp_path, "another build of the same version"))]) == 0
    assert "pip uninstall -y sklearn-wsl-gpu" in capfd.readouterr().out
    (mark,) = machine.home.rglob("mark.txt")
    assert mark.read_text() == "another build of the same version"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_on_linux_it_does_the_same_locally(
    dependencies: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**dependencies, "HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    python = tmp_path / "home" / wsl.VENV / "bin" / "python"

    assert main(["setup", "--from", str(_wheel(tmp_path, ""))]) == 0

    assert f"Ready: offload(interpreter='{python}')" in capfd.readouterr().out
    with offload(fallback="raise", interpreter="~/.local/share/sklearn_wsl_gpu/venv/bin/python") as session:
        StandardScaler().fit(np.eye(3))
        executor = session.status()["executor_pid"]
        assert os.path.realpath(f"/proc/{executor}/exe") == os.path.realpath(sys.executable)
        assert str(python) in Path(f"/proc/{executor}/cmdline").read_text()
    sessions.shutdown()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 3.10", "Ubuntu has Python 3.10, and 3.11 or later is needed. Install one"),
        ("exit 127", "Ubuntu has no Python, and 3.11 or later is needed"),
        (
            'test "$1" = - && echo 3.12',
            "wsl -d Ubuntu -u root --exec apt-get update, then wsl -d Ubuntu -u root --exec apt-get install -y "
            "python3.12-venv (or what your distribution calls it). Then run this again.",
        ),
    ],
)
def test_where_a_distribution_lacks_something_it_is_said_what_to_install(
    script: str, words: str, machine: Machine, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in setup._PYTHONS:
        machine.program(name, script)

    assert main(["setup"]) == 2

    assert words in capfd.readouterr().err


def test_a_driver_that_hangs_is_not_taken_for_none(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "_LOOK_SECONDS", 2.0)
    machine.program(OWN, 'echo "3.12"')
    machine.program("nvidia-smi", "exec sleep 1000")

    assert main(["setup", "--dry-run"]) == 0
    assert "It gets no cuML: nvidia-smi does not end. Restart" in capfd.readouterr().out
    machine.shut_down()


@pytest.mark.parametrize("source", ["dist/none.whl", r"dist\none.whl", "none.whl", "./none"])
def test_a_wheel_that_is_nowhere_is_refused_before_anything_is_done(
    source: str, machine: Machine, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["setup", "--from", source, "--dry-run"]) == 2

    said, error = capfd.readouterr()
    assert said == ""
    assert f"There is no {source}. Name a wheel" in error
    assert machine.asked == []


def test_a_name_that_the_encoding_of_a_pipe_has_not_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    def show(*arguments: Any) -> str:
        arguments[-1]("/home/Jörg")
        return "/home/Jörg/python"

    monkeypatch.setattr(setup, "setup", show)
    printed = io.BytesIO()
    with io.TextIOWrapper(printed, "ascii") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(["setup", "--dry-run"]) == 0

        assert printed.getvalue().split() == b"/home/J?rg Nothing was changed.".split()


def test_ctrl_c_ends_it_in_words(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(setup, "setup", interrupted)

    assert main(["setup"]) == 130
    assert capfd.readouterr().err == "Interrupted. What was begun goes on when this is run again.\n"


def test_what_was_installed_and_does_not_fit_is_told() -> None:
    state = {"sklearn-wsl-gpu": "0.0.1", "scikit-learn": SKLEARN, "cuml-cu13": "", "errors": ["cuml: ImportError: no"]}

    with pytest.raises(Exception, match=rf"cuml: ImportError: no; sklearn-wsl-gpu is 0.0.1, and {VERSION} here; cuml"):
        setup._check(state, "/venv/bin/python", "cuml-cu13")
