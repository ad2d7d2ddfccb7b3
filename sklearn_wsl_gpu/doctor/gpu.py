"""The GPU of the worker's side: device, CUDA's library, driver, and whether CUDA starts."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sklearn_wsl_gpu.doctor import packages
from sklearn_wsl_gpu.doctor.asking import Answer, ask, ask_probe, describe, read
from sklearn_wsl_gpu.doctor.checks import Circumstances, Finding, failed, information, ok, warning

#: What a release of CUDA needs, by its first number: the driver's first number, and the compute capability of a GPU
#: (NVIDIA, "RAPIDS Platform Support", 26.10).
NEEDS = {12: (535, (7, 0)), 13: (580, (7, 5))}
_WSL_LIBRARIES = "/usr/lib/wsl/"
_LITTLE_MIB = 1024
_UPDATE = (
    "Install NVIDIA's current driver on Windows (none inside WSL), then run wsl --update and wsl --shutdown there."
)


def judge_device(is_wsl: bool, devices: Sequence[str], has_card: bool) -> Finding:
    """Decide on the device of a GPU.

    Parameters
    ----------
    is_wsl : bool
    devices : sequence of str
        Those of ``/dev/dxg`` and ``/dev/nvidia*`` that there are.
    has_card : bool
        Whether the PCI bus shows a graphics card of NVIDIA's.
    """
    if is_wsl:
        if "/dev/dxg" in devices:
            return ok("/dev/dxg")
        return failed("There is no /dev/dxg: WSL has no GPU.", _UPDATE)
    cards = [device for device in devices if re.fullmatch(r"/dev/nvidia[0-9]+", device)]
    if cards:
        return ok(", ".join(cards))
    if has_card:
        return warning("There is an NVIDIA GPU, and no driver for it (/dev/nvidia0).", "Install NVIDIA's driver.")
    return information("There is no NVIDIA GPU: the worker computes with scikit-learn on the CPU.")


def _has_card() -> bool:
    for device in Path("/sys/bus/pci/devices").glob("*"):
        if read(f"{device}/vendor").strip() == "0x10de" and read(f"{device}/class").startswith("0x03"):
            return True
    return False


def look_at_device(circumstances: Circumstances) -> Finding:
    devices = [str(path) for path in [*Path("/dev").glob("nvidia*"), Path("/dev/dxg")] if path.exists()]
    return judge_device(circumstances.is_wsl, sorted(devices), _has_card())


def judge_library(is_wsl: bool, loaded: Sequence[str], error: str, listed: Sequence[str]) -> Finding:
    """Decide on CUDA's driver library.

    Parameters
    ----------
    is_wsl : bool
    loaded : sequence of str
        Files that a process has mapped which asked for ``libcuda.so.1``.
    error : str
        Why there are none.
    listed : sequence of str
        Files of that name in the linker's cache.
    """
    if not loaded:
        if is_wsl:
            return failed(
                f"libcuda.so.1 is not found: {error}",
                "Run: sudo ldconfig. If that does not help, start with LD_LIBRARY_PATH=/usr/lib/wsl/lib.",
            )
        return failed(f"libcuda.so.1 is not found: {error}", "Install NVIDIA's driver for this Linux.")
    evidence = f"libcuda.so.1 is {loaded[0]}"
    if not is_wsl:
        return ok(evidence)
    foreign = [path for path in listed if not path.startswith(_WSL_LIBRARIES)]
    remove = f"Remove the driver inside WSL: dpkg -S {foreign[0] if foreign else loaded[0]} names its package."
    if not loaded[0].startswith(_WSL_LIBRARIES):
        return failed(f"{evidence}, of a Linux driver: WSL's is in /usr/lib/wsl/lib.", remove)
    if foreign:
        return warning(f"{evidence}; there is also {', '.join(foreign)}, of a Linux driver.", remove)
    return ok(evidence)


def look_at_library(circumstances: Circumstances) -> Finding:
    facts, answer = ask_probe("library", {}, 15.0)
    cache = ask([shutil.which("ldconfig") or "/sbin/ldconfig", "-p"], 10.0)
    listed = re.findall(r"^\s*libcuda\.so\.1 .*=> (\S+)$", cache.out, re.MULTILINE)
    error = str(facts.get("error") or describe(answer, 15.0))
    return judge_library(circumstances.is_wsl, facts.get("loaded", []), error, listed)


class Gpu(NamedTuple):
    """What ``nvidia-smi`` tells of a GPU; memory in MiB, None where it is not told."""

    name: str
    driver: str
    capability: tuple[int, ...]
    total: int | None
    free: int | None


QUERY = ("--query-gpu=name,driver_version,compute_cap,memory.total,memory.free", "--format=csv,noheader,nounits")


def parse_gpus(text: str) -> list[Gpu]:
    """Return the GPUs that ``nvidia-smi`` lists, asked as `QUERY` says."""
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 5 and re.match(r"[0-9]+\.", fields[1]):
            numbers = [int(field) if field.isdecimal() else None for field in fields[3:]]
            capability = tuple(int(number) for number in re.findall(r"[0-9]+", fields[2]))
            found.append(Gpu(fields[0], fields[1], capability, *numbers))
    return found


def judge_driver(answer: Answer, seconds: float, majors: Iterable[int]) -> Finding:
    """Decide on the driver.

    Parameters
    ----------
    answer : Answer
        Of ``nvidia-smi``, asked as `QUERY` says.
    seconds : float
        Time-out of that.
    majors : iterable of int
        First numbers of the CUDA that packages are installed for.
    """
    gpus = parse_gpus(answer.out)
    if answer.code or answer.timed_out or not gpus:
        return failed(f"nvidia-smi: {describe(answer, seconds)}", _UPDATE)
    driver = gpus[0].driver
    number, chosen = int(driver.partition(".")[0]), sorted(majors)
    lacking = [major for major in chosen if number < NEEDS.get(major, (0,))[0]]
    if lacking:
        need = NEEDS[lacking[0]][0]
        return failed(
            f"Driver {driver}; the packages are for CUDA {lacking[0]}, which needs {need}.",
            f"Install a driver of {need} or later on Windows, or the packages for an older CUDA (docs/gpu.md).",
        )
    if not chosen:
        fits = [str(major) for major, (need, _) in NEEDS.items() if number >= need]
        if not fits:
            return failed(f"Driver {driver} is too old for cuML, which needs {NEEDS[12][0]}.", _UPDATE)
        return ok(f"Driver {driver}, good for packages of CUDA {' and '.join(fits)}")
    return ok(f"Driver {driver}, good for CUDA {', '.join(map(str, chosen))}")


_SMI_SECONDS = 20.0


def look_at_driver(circumstances: Circumstances) -> Finding:
    own = "/usr/lib/wsl/lib/nvidia-smi"
    program = own if circumstances.is_wsl and os.path.exists(own) else "nvidia-smi"
    answer = ask([program, *QUERY], _SMI_SECONDS)
    circumstances.noted["gpus"] = parse_gpus(answer.out)
    return judge_driver(answer, _SMI_SECONDS, packages.cuda_majors(packages.installed()))


def judge_gpus(gpus: Sequence[Gpu], majors: Iterable[int]) -> Finding:
    """Decide on the GPUs that there are, for packages of these releases of CUDA."""
    need = max((NEEDS[major][1] for major in majors if major in NEEDS), default=NEEDS[12][1])
    told = [
        f"{gpu.name}, compute capability {'.'.join(map(str, gpu.capability)) or 'unknown'}, "
        f"{'?' if gpu.free is None else gpu.free} of {'?' if gpu.total is None else gpu.total} MiB free"
        for gpu in gpus
    ]
    evidence = "; ".join(told)
    old = [gpu for gpu in gpus if gpu.capability and gpu.capability < need]
    least = ".".join(map(str, need))
    if len(old) == len(gpus):
        return failed(f"{evidence}. cuML needs {least}.", "Use a newer GPU, or the engine cpu.")
    if old:
        return warning(f"{evidence}. cuML needs {least}.", "Set device to one that is new enough, such as cuda:1.")
    if any(gpu.free is not None and gpu.free < _LITTLE_MIB for gpu in gpus):
        return warning(evidence, "Close programs that use the GPU, on Windows too: memory does not spill to the host.")
    return ok(evidence)


def look_at_gpus(circumstances: Circumstances) -> Finding:
    return judge_gpus(circumstances.noted["gpus"], packages.cuda_majors(packages.installed()))


def judge_cuda(facts: Mapping[str, Any], answer: Answer, seconds: float) -> Finding:
    """Decide on how CUDA started in a process of its own: see `cuda.start`."""
    if facts.get("kernel"):
        return ok(f"cuInit, 1 MiB of memory and a kernel, on {facts['devices']} GPUs; CUDA {facts['version']}")
    step = facts.get("step", "start")
    error = facts.get("error") or describe(answer, seconds)
    if facts.get("code") == 100:  # CUDA_ERROR_NO_DEVICE
        return failed(f"{step}: {error}", f"A Linux driver inside WSL hides the GPU, or it is disabled. {_UPDATE}")
    return failed(f"{step}: {error}", f"Run wsl --shutdown on Windows, and try again. If it stays: {_UPDATE}")


CUDA_SECONDS = 60.0


def look_at_cuda(circumstances: Circumstances) -> Finding:
    facts, answer = ask_probe("cuda", {}, CUDA_SECONDS)
    circumstances.noted["cuda"] = facts
    return judge_cuda(facts, answer, CUDA_SECONDS)


def judge_managed(facts: Mapping[str, Any]) -> Finding:
    """Decide on managed memory: where it is not, an array larger than the GPU's memory cannot be computed."""
    if facts.get("concurrent_managed_access"):
        return information("The GPU has managed memory: what does not fit there can spill to the host.")
    return information(
        "The GPU has no concurrent managed memory, as always in WSL: its own memory is the limit, nothing spills."
    )


def look_at_managed(circumstances: Circumstances) -> Finding:
    return judge_managed(circumstances.noted["cuda"])


def judge_pinned(facts: Mapping[str, Any], answer: Answer, seconds: float, same_pointer: bool | None) -> Finding:
    """Decide on how much memory can be pinned, see `cuda.pinned`, and tell how the GPU addresses what is registered."""
    pinned = int(facts.get("pinned_mib", 0))
    if not pinned:
        error = facts.get("error") or describe(answer, seconds)
        return warning(f"No memory can be pinned: {error}", "Copies to the GPU are slower. On Windows: wsl --shutdown.")
    until = f", then: {facts['error']}" if facts.get("error") else "; more was not tried"
    evidence = f"{pinned} MiB can be pinned{until}."
    if same_pointer is not None:
        evidence += f" What is registered has {'the same' if same_pointer else 'another'} address on the GPU."
    return information(evidence)


PINNED_SECONDS = 60.0


def look_at_pinned(circumstances: Circumstances) -> Finding:
    facts, answer = ask_probe("pinned", {}, PINNED_SECONDS)
    same_pointer = circumstances.noted.get("cuda", {}).get("same_pointer_for_registered")
    return judge_pinned(facts, answer, PINNED_SECONDS, same_pointer)
