"""Decisions about a GPU, from what programs print."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from sklearn_wsl_gpu.doctor import gpu, packages, reach
from sklearn_wsl_gpu.doctor.asking import Answer

_NONE = Answer(0, "", "")


@pytest.mark.parametrize(
    ("is_wsl", "devices", "has_card", "result"),
    [
        (True, ["/dev/dxg"], False, "ok"),
        (True, [], False, "failed"),
        (True, ["/dev/nvidia0"], True, "failed"),
        (False, ["/dev/nvidia0", "/dev/nvidiactl"], True, "ok"),
        (False, [], True, "warning"),
        (False, ["/dev/nvidiactl"], False, "information"),
        (False, [], False, "information"),
    ],
)
def test_the_device_of_a_gpu(is_wsl: bool, devices: list[str], has_card: bool, result: str) -> None:
    assert gpu.judge_device(is_wsl, devices, has_card).result == result


_WSL_CUDA = "/usr/lib/wsl/lib/libcuda.so.1"
_LINUX_CUDA = "/usr/lib/x86_64-linux-gnu/libcuda.so.470.256.02"


@pytest.mark.parametrize(
    ("is_wsl", "loaded", "listed", "result"),
    [
        (True, [_WSL_CUDA], [_WSL_CUDA], "ok"),
        (True, [_WSL_CUDA], [_WSL_CUDA, _LINUX_CUDA], "warning"),
        (True, [_LINUX_CUDA], [_LINUX_CUDA], "failed"),
        (True, [], [], "failed"),
        (False, [_LINUX_CUDA], [_LINUX_CUDA], "ok"),
        (False, [], [], "failed"),
    ],
)
def test_cudas_library_is_the_one_of_wsl(is_wsl: bool, loaded: list[str], listed: list[str], result: str) -> None:
    finding = gpu.judge_library(is_wsl, loaded, "libcuda.so.1: cannot open shared object file", listed)

    assert finding.result == result
    assert bool(finding.remedy) == (result != "ok")


def test_a_linux_driver_inside_wsl_is_named_with_the_way_to_its_package() -> None:
    assert f"dpkg -S {_LINUX_CUDA}" in gpu.judge_library(True, [_LINUX_CUDA], "", [_LINUX_CUDA]).remedy


_SMI = "NVIDIA GeForce RTX 4080, {driver}, 8.9, 16376, 14561\n"


@pytest.mark.parametrize(
    ("driver", "majors", "result"),
    [
        ("581.29", {13}, "ok"), ("580.65.06", {13}, "ok"), ("572.16", {13}, "failed"), ("572.16", {12}, "ok"),
        ("535.183.01", {12}, "ok"), ("528.49", {12}, "failed"), ("572.16", set(), "ok"), ("470.82", set(), "failed"),
        ("591.1", {12, 13}, "ok"), ("572.16", {12, 13}, "failed"),
    ],
)  # fmt: skip
def test_the_driver_has_to_be_new_enough_for_the_packages(driver: str, majors: set[int], result: str) -> None:
    finding = gpu.judge_driver(Answer(0, _SMI.format(driver=driver), ""), 20.0, majors)

    assert finding.result == result
    assert driver in finding.evidence


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(127, "", "nvidia-smi: No such file or directory"), "No such file"),
        (Answer(9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", ""), "couldn't"),
        (Answer(-9, "", "", timed_out=True), "no answer within 20 s"),
        (Answer(0, "No devices were found\n", ""), "No devices"),
    ],
)
def test_a_failure_of_nvidia_smi_is_shown(answer: Answer, words: str) -> None:
    finding = gpu.judge_driver(answer, 20.0, {13})

    assert finding.result == "failed"
    assert words in finding.evidence


def _gpus(*rows: str) -> list[gpu.Gpu]:
    return gpu.parse_gpus("\n".join(rows))


_NEW, _OLD = "NVIDIA RTX A2000, 581.29, 8.6, 6138, 5900", "NVIDIA GeForce GTX 1080, 581.29, 6.1, 8192, 8000"
_VOLTA, _FULL = "Tesla V100, 581.29, 7.0, 16384, 16000", "NVIDIA RTX A2000, 581.29, 8.6, 6138, 300"


@pytest.mark.parametrize(
    ("rows", "majors", "result"),
    [
        ([_NEW], {13}, "ok"), ([_OLD], set(), "failed"), ([_VOLTA], {12}, "ok"), ([_VOLTA], {13}, "failed"),
        ([_NEW, _OLD], {12}, "warning"), ([_FULL], {12}, "warning"),
        (["NVIDIA X, 581.29, [N/A], [N/A], [N/A]"], {13}, "ok"),
    ],
)  # fmt: skip
def test_a_gpu_has_to_be_new_enough_and_have_memory(rows: list[str], majors: set[int], result: str) -> None:
    finding = gpu.judge_gpus(_gpus(*rows), majors)

    assert finding.result == result
    assert rows[0].partition(",")[0] in finding.evidence


def test_lines_that_are_no_gpu_are_left_out() -> None:
    assert _gpus("Unable to determine the device handle for GPU0", "", "a, b, c, d, e") == []


@pytest.mark.parametrize(
    ("facts", "answer", "result", "words"),
    [
        ({"kernel": True, "devices": 2, "version": "13.0"}, _NONE, "ok", "2 GPUs"),
        ({"step": "cuInit", "error": "CUDA_ERROR_NO_DEVICE", "code": 100}, _NONE, "failed", "cuInit: CUDA_ERROR_NO"),
        ({"step": "cuInit"}, Answer(-9, "", "", True), "failed", "cuInit: There was no answer"),
        ({"step": "cuMemAlloc_v2"}, Answer(-signal.SIGSEGV, "", ""), "failed", "SIGSEGV"),
        ({"error": "the kernel computed [41] where 42 is right"}, _NONE, "failed", "41"),
    ],
)
def test_how_cuda_started(facts: dict[str, Any], answer: Answer, result: str, words: str) -> None:
    finding = gpu.judge_cuda(facts, answer, 60.0)

    assert finding.result == result
    assert words in finding.evidence


def test_memory_that_spills_and_memory_that_does_not() -> None:
    assert "nothing spills" in gpu.judge_managed({"concurrent_managed_access": False}).evidence
    assert "can spill" in gpu.judge_managed({"concurrent_managed_access": True}).evidence


def test_what_can_be_pinned() -> None:
    whole = gpu.judge_pinned({"pinned_mib": 512}, _NONE, 60.0, None)
    assert whole.evidence == "512 MiB can be pinned; more was not tried."
    part = gpu.judge_pinned({"pinned_mib": 208, "error": "CUDA_ERROR_OUT_OF_MEMORY"}, _NONE, 60.0, None)
    assert (part.result, part.evidence) == ("information", "208 MiB can be pinned, then: CUDA_ERROR_OUT_OF_MEMORY.")
    assert gpu.judge_pinned({"error": "CUDA_ERROR_OUT_OF_MEMORY"}, _NONE, 60.0, None).result == "warning"


@pytest.mark.parametrize(("same_pointer", "words"), [(True, "has the same address"), (False, "has another address")])
def test_how_the_gpu_addresses_what_is_registered_is_told(same_pointer: bool, words: str) -> None:
    assert words in gpu.judge_pinned({"pinned_mib": 512}, _NONE, 60.0, same_pointer).evidence


_CU13 = {
    "cuml-cu13": "26.10.0",
    "libcuml-cu13": "26.10.0",
    "rmm-cu13": "26.10.0",
    "cupy-cuda13x": "14.0",
    "cuda-python": "13.0.1",
}
_OTHERS = {"numpy": "2.1", "torch": "2.8", "nvidia-cublas-cu12": "12.6"}


@pytest.mark.parametrize(
    ("installed", "result"),
    [
        (_CU13, "ok"),
        ({**_CU13, **_OTHERS}, "ok"),
        ({**_CU13, "cupy-cuda12x": "13.4"}, "failed"),
        ({**_CU13, "cuda-python": "12.8.0"}, "failed"),
        ({**_CU13, "rmm-cu12": "26.10.0"}, "failed"),
        ({**_CU13, "cuml-cu13": "26.02.1"}, "failed"),
        ({"cuml": "26.10.0", "cuda-python": "13.0"}, "ok"),
        (_OTHERS, "information"),
    ],
)
def test_packages_are_of_one_release_of_cuda(installed: dict[str, str], result: str) -> None:
    finding = packages.judge_packages(installed, "26.10.")

    assert finding.result == result
    assert bool(finding.remedy) == (result != "ok")


def test_the_version_of_numba_cuda_is_told() -> None:
    assert "numba-cuda 0.28.2" in packages.judge_packages({**_CU13, "numba-cuda": "0.28.2"}, "26.10.").evidence


def test_the_packages_to_remove_are_named() -> None:
    remedy = packages.judge_packages({**_CU13, "cupy-cuda12x": "13.4"}, "26.10.").remedy

    assert remedy.endswith("pip uninstall cupy-cuda12x")


def test_the_release_of_cuml_that_is_served_is_that_of_this_packages_requirements() -> None:
    found = packages.served_release(["numpy<3", 'cuml-cu13==26.10.*; extra == "cuml-cu13"'])

    assert found == "26.10."
    assert packages.served_release(packages.requires("sklearn-wsl-gpu") or []) == found


def test_installed_packages_are_named_as_they_are_looked_for() -> None:
    assert packages.installed().keys() >= {"scikit-learn", "sklearn-wsl-gpu", "numpy"}


@pytest.mark.parametrize(
    ("facts", "answer", "result"),
    [
        ({"right": True, "seconds": 8.0}, _NONE, "ok"),
        ({"right": False, "seconds": 8.0}, _NONE, "failed"),
        ({"error": "CUDA shows no GPU here."}, _NONE, "failed"),
        ({}, Answer(-9, "", "", timed_out=True), "failed"),
    ],
)
def test_a_fit_on_the_gpu(facts: dict[str, Any], answer: Answer, result: str) -> None:
    assert reach.judge_fit(facts, answer, 180.0).result == result
