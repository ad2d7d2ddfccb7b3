"""The worker's side, but for its GPU: kernel, interpreter, network."""

from __future__ import annotations

import os
import platform
import re
import struct
import sys
from collections.abc import Collection, Sequence

from sklearn_wsl_gpu.doctor.asking import Answer, ask, ask_probe, describe, read
from sklearn_wsl_gpu.doctor.checks import Circumstances, Finding, failed, information, ok, warning
from sklearn_wsl_gpu.doctor.filesystems import FOREIGN, Mount, mount_of
from sklearn_wsl_gpu.launch import wsl

#: Python that the supported release of cuML is made for (NVIDIA, "RAPIDS Platform Support", 26.10).
_CUML_PYTHON = ((3, 11), (3, 14))
_CUML_GLIBC = (2, 28)
#: Linux whose processes can be watched for their end (pidfd_open(2)): a worker ends with its client by that.
_LEAST_KERNEL = (5, 3)


def signs_of_wsl() -> list[str]:
    """Return what says that this is WSL; a container, or ``sudo``, hides some of it."""
    found = [name for name in ("WSL_DISTRO_NAME", "WSL_INTEROP") if os.environ.get(name)]
    paths = ("/run/WSL", "/proc/sys/fs/binfmt_misc/WSLInterop", "/usr/lib/wsl/lib", "/dev/dxg")
    return found + [path for path in paths if os.path.exists(path)]


def kind_of_kernel(release: str, signs: Collection[str]) -> str:
    """Return ``"wsl1"``, ``"wsl2"``, ``"custom"`` (a kernel of the user's own in WSL2) or ``"linux"``.

    Parameters
    ----------
    release : str
        As ``uname -r`` prints it.
    signs : collection of str
        From `signs_of_wsl`.
    """
    if release.endswith("-Microsoft"):
        return "wsl1"
    if "microsoft" in release.lower():
        return "wsl2"
    return "custom" if len(signs) >= 2 else "linux"


def is_wsl() -> bool:
    """Tell whether this is Linux inside WSL."""
    return sys.platform == "linux" and kind_of_kernel(platform.release(), signs_of_wsl()) != "linux"


def judge_kernel(release: str, signs: Sequence[str], distribution: str) -> Finding:
    """Decide on the kernel."""
    kind = kind_of_kernel(release, signs)
    if kind == "wsl1":
        name = wsl.typed(distribution or "NAME")
        return failed(f"{release}: WSL 1, which has no GPU.", f"On Windows: wsl --set-version {name} 2")
    version = tuple(int(number) for number in re.findall(r"[0-9]+", release)[:2])
    if version < _LEAST_KERNEL:
        update = "On Windows: wsl --update" if kind != "linux" else "Upgrade to a Linux with a newer kernel."
        return failed(f"{release}: the worker needs Linux {_LEAST_KERNEL[0]}.{_LEAST_KERNEL[1]} or later.", update)
    if kind == "custom":
        return warning(
            f"{release}: a kernel of your own in WSL ({', '.join(signs)}).",
            "If something of the GPU fails: remove kernel= from .wslconfig, then run wsl --shutdown on Windows.",
        )
    where = f"WSL 2{f', distribution {distribution}' if distribution else ''}" if kind == "wsl2" else "Linux"
    return ok(f"{release} ({where})")


def look_at_kernel(_: Circumstances) -> Finding:
    return judge_kernel(platform.release(), signs_of_wsl(), os.environ.get("WSL_DISTRO_NAME", ""))


def judge_python(version: tuple[int, int], bits: int, libc: tuple[str, str], prefix: str, mount: Mount) -> Finding:
    """Decide on the interpreter of the worker.

    Parameters
    ----------
    version : tuple of int
    bits : int
        Of a pointer.
    libc : tuple of str
        Name and version, as `platform.libc_ver` tells them.
    prefix : str
        Where it is installed.
    mount : Mount
        What that lies on.
    """
    evidence = f"Python {version[0]}.{version[1]}, {bits} bit, {' '.join(libc).strip() or 'unknown libc'}, at {prefix}"
    if bits != 64:
        return failed(evidence, "Install a 64-bit Python.")
    if mount.kind.startswith(FOREIGN):
        return warning(
            f"{evidence}, on {mount.kind}: importing takes many times longer there.",
            "Make the virtual environment in the distribution's own file system, below your home directory.",
        )
    glibc = tuple(int(number) for number in re.findall(r"[0-9]+", libc[1])[:2]) if libc[0] == "glibc" else ()
    if glibc < _CUML_GLIBC:
        return warning(evidence, "cuML needs glibc 2.28 or later: use a newer distribution, such as Ubuntu 22.04.")
    if not _CUML_PYTHON[0] <= version <= _CUML_PYTHON[1]:
        return warning(evidence, "cuML is made for Python 3.11 to 3.14: make a virtual environment of one of these.")
    return ok(evidence)


def look_at_python(_: Circumstances) -> Finding:
    version, bits = (sys.version_info[0], sys.version_info[1]), struct.calcsize("P") * 8
    return judge_python(version, bits, platform.libc_ver(), sys.prefix, mount_of(sys.prefix, read("/proc/mounts")))


#: As `wsl.exe --exec` starts a worker.
_BARE = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
_BARE_SECONDS = 60.0
_IMPORTS = "import sklearn, zmq, msgpack, sklearn_wsl_gpu, wsl_worker; print(sklearn.__version__)"


def judge_environment(interpreter: str, answer: Answer, has_cuda: bool, has_cuda_bare: bool) -> Finding:
    """Decide on what an interpreter did that was started without a login shell.

    Parameters
    ----------
    interpreter : str
    answer : Answer
        How importing all that a worker needs ended.
    has_cuda, has_cuda_bare : bool
        Whether ``libcuda.so.1`` is found as this process was started, and without a login shell.
    """
    if answer.code or answer.timed_out:
        return warning(
            f"{interpreter} without a login shell: {describe(answer, _BARE_SECONDS)}",
            "Install the package where a bare interpreter finds it: a virtual environment, no PYTHONPATH or "
            "LD_LIBRARY_PATH set by ~/.bashrc.",
        )
    if has_cuda and not has_cuda_bare:
        return warning(
            f"{interpreter} finds libcuda.so.1 only with LD_LIBRARY_PATH, which a worker from Windows does not get.",
            "Run: echo /usr/lib/wsl/lib | sudo tee /etc/ld.so.conf.d/wsl.conf && sudo ldconfig",
        )
    return ok(f"{interpreter} finds all it needs without a login shell; scikit-learn {answer.words}")


def look_at_environment(_: Circumstances) -> Finding:
    bare = {**_BARE, "HOME": os.path.expanduser("~")}
    answer = ask([sys.executable, "-P", "-c", _IMPORTS], _BARE_SECONDS, bare)
    found = [bool(ask_probe("library", {}, 10.0, given)[0].get("loaded")) for given in (None, bare)]
    return judge_environment(sys.executable, answer, *found)


def judge_network(mode: str, addresses: str) -> Finding:
    """Decide on how WSL is connected.

    Parameters
    ----------
    mode : str
        As ``wslinfo --networking-mode`` prints it; empty where there is no such program.
    addresses : str
        IPv4 addresses of this side.
    """
    where = f"addresses of the distribution: {addresses or 'none'}"
    if not mode:
        return information(f"The networking mode is not told (no wslinfo); {where}", "On Windows: wsl --update")
    if mode == "wsl1":
        return failed("The distribution runs under WSL 1.", "On Windows: wsl --set-version NAME 2")
    if mode == "none":
        return warning(
            "networkingMode is none: there is no TCP between Windows and WSL.",
            "Remove networkingMode=none from .wslconfig on Windows, then run wsl --shutdown.",
        )
    if mode == "mirrored":
        return information(
            f"mirrored; {where}. WSL shares Windows's ports, and streams into WSL can be slow.",
            "If bandwidth is low: networkingMode=NAT in .wslconfig on Windows, then wsl --shutdown.",
        )
    return ok(f"{mode}; {where}")


def look_at_network(_: Circumstances) -> Finding:
    mode = ask(["wslinfo", "--networking-mode", "-n"], 10.0)
    return judge_network("" if mode.code else mode.out.strip(), ask(["hostname", "-I"], 5.0).out.strip())


def judge_wslg(has_wslg: bool, has_memory: bool) -> Finding:
    """Decide on WSLg, whose memory Windows sees too."""
    if not has_wslg:
        return information("WSLg is off; nothing of this package needs it.")
    memory = "is there" if has_memory else "is not there"
    return information(f"WSLg is on, and its shared memory {memory}; no carrier of this package uses that.")


def look_at_wslg(_: Circumstances) -> Finding:
    return judge_wslg(os.path.exists("/mnt/wslg"), os.path.exists("/mnt/shared_memory"))
