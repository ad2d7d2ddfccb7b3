"""What memory there is, read from made-up machines: control groups of both versions, WSL, and broken files."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sklearn_wsl_gpu.pool import machine
from sklearn_wsl_gpu.pool.sizing import Bound

MIB = 2**20
ROOT_MOUNTS = "30 1 0:26 / / rw - ext4 /dev/sda rw\n"
UNIFIED = "31 30 0:28 {shown} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
LEGACY = (
    "32 30 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 30 0:30 {shown} /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these are files of Linux")


class Machine:
    """A directory that looks like the root of a Linux."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/meminfo", "MemTotal:       1000000 kB\nMemFree:  1 kB\nMemAvailable:    600000 kB\n")
        self.write("proc/sys/kernel/osrelease", "6.6.1-generic\n")

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def group(self, path: str, **files: str | int) -> None:
        """Write files of a group; a double underscore stands for a dot."""
        for name, text in files.items():
            self.write(f"sys/fs/cgroup/{path}/{name.replace('__', '.')}", f"{text}\n")

    def unified(self, own: str, shown: str = "/") -> None:
        self.write("proc/self/cgroup", f"0::{own}\n")
        self.write("proc/self/mountinfo", ROOT_MOUNTS + UNIFIED.format(shown=shown))

    def legacy(self, own: str, shown: str = "/") -> None:
        self.write("proc/self/cgroup", f"12:cpu,cpuacct:/other\n4:memory:{own}\n0::/\n")
        self.write("proc/self/mountinfo", ROOT_MOUNTS + LEGACY.format(shown=shown))

    def groups(self) -> list[Bound]:
        memory, *groups = machine.memory_bounds(self.root)
        assert memory == Bound("memory", 1_000_000 * 1024, 600_000 * 1024)
        return groups


@pytest.fixture
def made(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_control_groups_there_is_the_memory_of_the_machine(made: Machine) -> None:
    assert made.groups() == []


def test_the_group_of_the_process_and_all_around_it_count(made: Machine) -> None:
    made.unified("/outer/box/inner")
    made.group("outer", memory__max=900 * MIB, memory__current=100 * MIB)
    made.group("outer/box", memory__max="max", memory__high="max", memory__current=50 * MIB)
    made.group("outer/box/inner", memory__max=500 * MIB, memory__high=400 * MIB, memory__current=150 * MIB)
    made.group("elsewhere", memory__max=1, memory__current=1)

    assert made.groups() == [
        Bound("memory of control group /outer/box/inner", 400 * MIB, 250 * MIB),
        Bound("memory of control group /outer", 900 * MIB, 800 * MIB),
    ]


def test_groups_of_the_first_version_count_too(made: Machine) -> None:
    made.legacy("/docker/abc")
    made.group("memory", memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=7)
    made.group("memory/docker", memory__limit_in_bytes=300 * MIB, memory__usage_in_bytes=200 * MIB)
    made.group("memory/docker/abc", memory__limit_in_bytes=256 * MIB, memory__usage_in_bytes=56 * MIB)
    made.group("cpu/other", memory__limit_in_bytes=1)

    assert made.groups() == [
        Bound("memory of control group /docker/abc", 256 * MIB, 200 * MIB),
        Bound("memory of control group /docker", 300 * MIB, 100 * MIB),
    ]


@pytest.mark.parametrize(("own", "shown"), [("/docker/abc", "/docker/abc"), ("/../../x", "/"), ("/y", "/docker/abc")])
def test_in_a_container_the_limit_is_where_the_mount_begins(made: Machine, own: str, shown: str) -> None:
    made.unified(own, shown)
    made.group("", memory__max=128 * MIB, memory__current=28 * MIB)
    unified = made.groups()
    made.legacy(own, shown)
    made.group("memory", memory__limit_in_bytes=64 * MIB, memory__usage_in_bytes=4 * MIB)

    assert unified == [Bound("memory of control group /", 128 * MIB, 100 * MIB)]
    assert made.groups() == [Bound("memory of control group /", 64 * MIB, 60 * MIB)]


def test_files_that_were_read_long_ago_do_not_count_as_used(made: Machine) -> None:
    made.unified("/box")
    made.group("box", memory__max=100 * MIB, memory__current=99 * MIB)
    made.group("box", memory__stat=f"anon 5\ninactive_file {60 * MIB}\nactive_file 9")
    unified = made.groups()
    made.legacy("/box")
    made.group("memory/box", memory__limit_in_bytes=100 * MIB, memory__usage_in_bytes=99 * MIB)
    made.group("memory/box", memory__stat=f"inactive_file 1\ntotal_inactive_file {50 * MIB}")

    assert unified == [Bound("memory of control group /box", 100 * MIB, 61 * MIB)]
    assert made.groups() == [Bound("memory of control group /box", 100 * MIB, 51 * MIB)]


def test_a_group_that_is_over_its_limit_has_nothing_left(made: Machine) -> None:
    made.unified("/box")
    made.group("box", memory__max=MIB, memory__current=2 * MIB)

    assert made.groups()[0].free == 0


def test_a_mount_with_a_space_in_its_name_is_found(made: Machine) -> None:
    made.write("proc/self/cgroup", "0::/box\n")
    made.write("proc/self/mountinfo", "31 30 0:28 / /odd\\040place rw - cgroup2 cgroup2 rw\n")
    made.write("odd place/box/memory.max", f"{MIB}\n")

    assert made.groups() == [Bound("memory of control group /box", MIB, None)]


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "nonsense\n"},
        {"proc/self/cgroup": ""},
        {"proc/self/mountinfo": "31 30 0:28\n"},
        {"proc/self/mountinfo": "\n\n"},
        {"sys/fs/cgroup/box/memory.max": "lots\n"},
        {"sys/fs/cgroup/box/memory.max": ""},
        {"sys/fs/cgroup/box/memory.max": "-5\n"},
    ],
)
def test_what_cannot_be_read_is_no_bound(made: Machine, files: dict[str, str]) -> None:
    made.unified("/box")
    made.group("box", memory__max=MIB)
    for path, text in files.items():
        made.write(path, text)

    assert made.groups() == []


@pytest.mark.parametrize("statistics", ["inactive_file lots\n", "\n", "inactive_file"])
def test_a_limit_stands_without_what_is_used_of_it(made: Machine, statistics: str) -> None:
    made.unified("/box")
    made.group("box", memory__max=MIB, memory__current="much", memory__stat=statistics)
    unknown = made.groups()
    made.group("box", memory__current=1000)

    assert unknown == [Bound("memory of control group /box", MIB, None)]
    assert made.groups() == [Bound("memory of control group /box", MIB, MIB - 1000)]


@pytest.mark.parametrize("text", ["", "MemTotal: lots kB\n", "MemAvailable:   7 kB\n"])
def test_a_machine_that_tells_nothing_has_no_bound(tmp_path: Path, text: str) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(text)

    assert machine.memory_bounds(tmp_path) == []
    assert machine.memory_bounds(tmp_path / "nothing") == []


def test_a_kernel_that_does_not_tell_what_is_available_tells_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:       1000 kB\n")

    assert machine.memory_bounds(tmp_path) == [Bound("memory", 1000 * 1024, None)]


def test_in_wsl_the_memory_is_what_wsl_was_given(tmp_path: Path) -> None:
    made = Machine(tmp_path)
    made.write("proc/sys/kernel/osrelease", "5.15.167.4-microsoft-standard-WSL2\n")

    assert machine.memory_bounds(tmp_path)[0].what == "memory that WSL was given (.wslconfig)"


@pytest.mark.parametrize(
    ("text", "size", "where"),
    [
        (None, 500, "default"),
        ("[wsl2]\nmemory=300\n", 300, ".wslconfig"),
        ("\ufeff# mine\r\n[wsl2]\r\nMemory = 2KB # for now\r\n", 1000, ".wslconfig"),
        ("[wsl2]\nprocessors=2\nmemory=400B\n", 400, ".wslconfig"),
        ("[wsl2]\nmemory=lots\n", 500, "default"),
        ("[wsl2]\nmemory=0\n", 500, "default"),
        ("[experimental]\nmemory=300\n", 500, "default"),
        ("memory=300\n", 500, "default"),
        ("[wsl2\n", 500, "default"),
        ("[wsl2]\nmemory=8GB\nmemory=300\n", 300, ".wslconfig"),
    ],
)
def test_on_windows_wsl_has_what_its_settings_say_else_half(
    tmp_path: Path, text: str | None, size: int, where: str
) -> None:
    if text is not None:
        (tmp_path / ".wslconfig").write_text(text, "utf-8", newline="")

    (bound,) = machine._wsl_setting(tmp_path, [Bound("memory", 1000, 10)])

    assert (bound.size, bound.free) == (size, None)
    assert where in bound.what


def test_on_windows_a_setting_that_is_no_text_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / ".wslconfig").write_bytes(b"\xff\xfe[\x00")

    assert machine._wsl_setting(tmp_path, [Bound("memory", 1000)]) == [Bound("memory for WSL (its default)", 500)]
    assert machine._wsl_setting(tmp_path, []) == []


def test_windows_is_asked_by_a_structure_of_the_documented_size(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernel32:
        @staticmethod
        def GlobalMemoryStatusEx(pointer: Any) -> int:
            status = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_uint64 * 8)).contents
            assert status[0] & 0xFFFFFFFF == 64 == 8 * len(status)
            status[1], status[2] = 4000, 3000
            return 1

    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=Kernel32), raising=False)
    assert machine._windows_memory() == [Bound("memory", 4000, 3000)]

    monkeypatch.setattr(Kernel32, "GlobalMemoryStatusEx", lambda pointer: 0)
    assert machine._windows_memory() == []


def test_the_file_system_counts_where_the_pool_lies_in_one(tmp_path: Path) -> None:
    named = {bound.what: bound for bound in machine.bounds(str(tmp_path))}
    found = os.statvfs(tmp_path)

    assert named[f"the file system of {str(tmp_path)!r}"].size == found.f_blocks * found.f_frsize
    assert not [bound for bound in machine.bounds(None) if "file system" in bound.what]
    assert not [bound for bound in machine.bounds(str(tmp_path / "gone")) if "file system" in bound.what]


def test_this_machine_has_memory_and_not_more_free_than_there_is() -> None:
    for bound in machine.bounds(None):
        assert bound.size > 0
        assert bound.free is None or 0 <= bound.free <= bound.size
    total, available = machine.total_memory(), machine.available_memory()
    assert total is not None
    assert available is not None
    assert available <= total
