"""Decisions about the worker's side, from facts as machines have told them."""

from __future__ import annotations

import pytest

from sklearn_wsl_gpu.doctor import filesystems, linux, memory
from sklearn_wsl_gpu.doctor.asking import Answer
from sklearn_wsl_gpu.doctor.filesystems import Mount
from sklearn_wsl_gpu.pool import sizing

_GIB = 2**30
#: As published: microsoft/WSL#14301, #40161; virtiofs; and a path with a space.
MOUNTS = r"""none /mnt/wsl tmpfs rw,relatime 0 0
/dev/sdd / ext4 rw,relatime,discard,errors=remount-ro,data=ordered 0 0
tmpfs /dev/shm tmpfs rw,nosuid,nodev,size=4096k 0 0
C:\134 /mnt/c 9p rw,noatime,aname=drvfs;path=C:\134;uid=1000,cache=5,access=client,msize=65536,trans=fd 0 0
D:\134 /mnt/d 9p rw,noatime,aname=drvfs;path=D:\134,cache=0x5,access=client,msize=65536,trans=fd,rfd=7,wfd=7 0 0
drvfsE0 /mnt/my\040drive virtiofs rw,noatime 0 0
"""
_SIGNS = ["WSL_DISTRO_NAME", "/run/WSL"]


@pytest.mark.parametrize(
    ("release", "signs", "kind", "result"),
    [
        ("6.6.87.2-microsoft-standard-WSL2", _SIGNS, "wsl2", "ok"),
        ("5.15.167.4-microsoft-standard-WSL2", [], "wsl2", "ok"),
        ("4.19.128-microsoft-standard", _SIGNS, "wsl2", "failed"),
        ("4.4.0-19041-Microsoft", _SIGNS, "wsl1", "failed"),
        ("6.13.0-mine", _SIGNS, "custom", "warning"),
        ("6.8.0-51-generic", ["/run/WSL"], "linux", "ok"),
        ("6.8.0-51-generic", [], "linux", "ok"),
        ("5.2.1", [], "linux", "failed"),
    ],
)
def test_kernels_are_told_apart(release: str, signs: list[str], kind: str, result: str) -> None:
    finding = linux.judge_kernel(release, signs, "Ubuntu")

    assert linux.kind_of_kernel(release, signs) == kind
    assert finding.result == result
    assert release in finding.evidence
    assert bool(finding.remedy) == (result != "ok")


def test_a_distribution_of_wsl_1_is_to_be_converted_by_its_name() -> None:
    assert linux.judge_kernel("4.4.0-19041-Microsoft", [], "Ubuntu 22").remedy.endswith('"Ubuntu 22" 2')


_EXT4 = Mount("/dev/sdd", "/", "ext4", {})
_GLIBC = ("glibc", "2.35")


@pytest.mark.parametrize(
    ("version", "bits", "libc", "kind", "result"),
    [
        ((3, 12), 64, _GLIBC, "ext4", "ok"),
        ((3, 12), 32, _GLIBC, "ext4", "failed"),
        ((3, 12), 64, ("glibc", "2.27"), "ext4", "warning"),
        ((3, 12), 64, ("", ""), "ext4", "warning"),
        ((3, 15), 64, _GLIBC, "ext4", "warning"),
        ((3, 12), 64, _GLIBC, "9p", "warning"),
        ((3, 12), 64, _GLIBC, "virtiofs", "warning"),
    ],
)
def test_the_interpreter_has_to_be_one_that_cuml_is_made_for(
    version: tuple[int, int], bits: int, libc: tuple[str, str], kind: str, result: str
) -> None:
    finding = linux.judge_python(version, bits, libc, "/home/ada/venv", _EXT4._replace(kind=kind))

    assert finding.result == result
    assert "/home/ada/venv" in finding.evidence


def test_an_interpreter_that_needs_a_login_shell_is_warned_of() -> None:
    lacking = Answer(1, "", "Traceback\nModuleNotFoundError: No module named 'sklearn'\n")

    finding = linux.judge_environment("/usr/bin/python3", lacking, False, False)

    assert finding.result == "warning"
    assert "No module named 'sklearn'" in finding.evidence
    fine = Answer(0, "1.9.1\n", "")
    assert linux.judge_environment("/venv/bin/python", fine, False, False).result == "ok"
    assert linux.judge_environment("/venv/bin/python", fine, True, True).result == "ok"
    assert "LD_LIBRARY_PATH" in linux.judge_environment("/venv/bin/python", fine, True, False).evidence


def _memory(free: float) -> memory.Finding:
    bounds = [sizing.Bound("memory", 16 * _GIB, int(free * _GIB))]
    return memory.judge_memory(bounds, sizing.choose([], (4, 4, 8), 2**28), {"swap": 2 * _GIB})


def test_memory_is_compared_with_the_pool() -> None:
    assert _memory(12).result == "ok"
    assert "16 slots of 256 MiB" in _memory(12).evidence
    assert "swap 2.0 GiB" in _memory(12).evidence
    assert "does not fit" in _memory(3).evidence
    assert _memory(3).result == "warning"
    assert ".wslconfig" in _memory(3).remedy


def test_little_memory_is_warned_of_even_if_a_pool_fits() -> None:
    bounds = [sizing.Bound("memory", 2 * _GIB, _GIB)]

    assert memory.judge_memory(bounds, sizing.choose(bounds, (4, 4, 8), None), {}).result == "warning"


@pytest.mark.parametrize(
    ("mode", "result"),
    [("nat", "ok"), ("mirrored", "information"), ("none", "warning"), ("wsl1", "failed"), ("", "information"),
     ("consomme", "ok"), ("bridged", "ok")],
)  # fmt: skip
def test_networking_modes(mode: str, result: str) -> None:
    finding = linux.judge_network(mode, "172.20.1.2")

    assert finding.result == result
    assert bool(finding.remedy) == (result != "ok")


def test_wslg_is_for_information() -> None:
    assert "is off" in linux.judge_wslg(False, False).evidence
    assert "is not there" in linux.judge_wslg(True, False).evidence


@pytest.mark.parametrize(
    ("path", "kind", "cache"),
    [
        ("/home/ada", "ext4", ""),
        ("/mnt/c/Users/ada", "9p", "5"),
        ("/mnt/d", "9p", "0x5"),
        ("/mnt/cc", "ext4", ""),
        ("/mnt/my drive/x", "virtiofs", ""),
        ("/dev/shm/pool", "tmpfs", ""),
    ],
)
def test_a_path_lies_on_the_innermost_mount(path: str, kind: str, cache: str) -> None:
    mount = filesystems.mount_of(path, MOUNTS)

    assert (mount.kind, mount.options.get("cache", "")) == (kind, cache)


def test_without_mounts_the_kind_is_unknown() -> None:
    assert filesystems.mount_of("/home", "").kind == "unknown"


@pytest.mark.parametrize(
    ("directory", "result"),
    [
        (None, "ok"),
        ("/dev/shm", "ok"),
        ("/mnt/c/pool", "failed"),
        ("/mnt/my drive", "failed"),
        ("/home/ada", "warning"),
    ],
)
def test_a_pool_never_lies_on_a_file_system_of_another_kernel(directory: str | None, result: str) -> None:
    finding = filesystems.judge_pool(directory, filesystems.mount_of(directory or "/", MOUNTS))

    assert finding.result == result
    assert bool(finding.remedy) == (result != "ok")


def test_the_mount_options_of_a_pool_are_shown() -> None:
    evidence = filesystems.judge_pool("/mnt/c/pool", filesystems.mount_of("/mnt/c/pool", MOUNTS)).evidence

    assert "9p cache=5 msize=65536" in evidence


def test_drives_that_answer_that_hang_and_that_are_not_there() -> None:
    mounts = [filesystems.mount_of(path, MOUNTS) for path in ("/mnt/c", "/mnt/d")]
    fine, hanging = Answer(0, "", ""), Answer(-9, "", "", timed_out=True)

    assert filesystems.judge_drives(mounts, {"/mnt/c": fine, "/mnt/d": fine}, 5.0).result == "ok"
    finding = filesystems.judge_drives(mounts, {"/mnt/c": fine, "/mnt/d": hanging}, 5.0)
    assert finding.result == "warning"
    assert finding.evidence == "/mnt/d: There was no answer within 5 s."
    assert filesystems.judge_drives([], {}, 5.0).result == "information"
