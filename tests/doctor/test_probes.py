"""The probes of CUDA, run as they are against a libcuda that is compiled for the test, and says what it is told to."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sklearn_wsl_gpu.doctor import asking, gpu
from sklearn_wsl_gpu.doctor.checks import Circumstances

compiler = shutil.which("cc")
pytestmark = pytest.mark.skipif(compiler is None, reason="there is no C compiler")

_SOURCE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
typedef unsigned long long dptr;
static const char *mode(void) { const char *m = getenv("FAKE_CUDA"); return m ? m : ""; }
int cuGetErrorName(int code, const char **text) {
    *text = code == 100 ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_OUT_OF_MEMORY";
    return 0;
}
int cuInit(unsigned flags) {
    if (!strcmp(mode(), "hangs")) for (;;) pause();
    if (!strcmp(mode(), "crashes")) abort();
    return strcmp(mode(), "none") ? 0 : 100;
}
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *) 8; return 0; }
int cuCtxSetCurrent(void *context) { return context == (void *) 8 ? 0 : 1; }
int cuDeviceGetAttribute(int *value, int number, int device) { *value = number == 88; return 0; }
int cuMemAlloc_v2(dptr *memory, size_t size) { *memory = (dptr) (uintptr_t) malloc(size); return 0; }
int cuMemsetD32_v2(dptr memory, unsigned value, size_t count) {
    for (size_t i = 0; i < count; i++) ((uint32_t *) (uintptr_t) memory)[i] = value;
    return 0;
}
int cuModuleLoadData(void **module, const char *text) {
    *module = (void *) text;
    return strstr(text, ".visible .entry add_one") ? 0 : 1;
}
int cuModuleGetFunction(void **function, void *module, const char *name) {
    *function = (void *) 16;
    return strcmp(name, "add_one") != 0;
}
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **arguments, void **extra) {
    uint32_t *numbers = (uint32_t *) (uintptr_t) *(dptr *) arguments[0];
    if (function != (void *) 16 || gx * gy * gz != 1 || by * bz != 1 || shared || stream || extra) return 1;
    for (unsigned i = 0; i < bx && strcmp(mode(), "wrong"); i++) numbers[i] += 1;
    return 0;
}
int cuCtxSynchronize(void) { return 0; }
int cuMemcpyDtoH_v2(void *to, dptr from, size_t size) { memcpy(to, (void *) (uintptr_t) from, size); return 0; }
int cuMemAllocHost_v2(void **memory, size_t size) {
    static size_t total;
    total += size;
    *memory = (void *) 32;
    return total > (!strcmp(mode(), "pins") ? 200u << 20 : 4096ull << 20) ? 2 : 0;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("cuda")
    (where / "cuda.c").write_text(_SOURCE)
    assert compiler is not None
    command = [compiler, "-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o", "libcuda.so.1", "cuda.c"]
    subprocess.run(command, cwd=where, check=True)
    return where


@pytest.fixture
def fake(library: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{library}:{os.environ.get('LD_LIBRARY_PATH', '')}")
    return lambda mode: monkeypatch.setenv("FAKE_CUDA", mode)


def _look(check: Callable[[Circumstances], gpu.Finding], circumstances: Circumstances | None = None) -> gpu.Finding:
    return check(circumstances or Circumstances({}, False))


def test_cuda_that_starts_computes_and_tells_of_its_memory(fake: Callable[[str], None]) -> None:
    fake("")
    circumstances = Circumstances({}, False)

    assert _look(gpu.look_at_cuda, circumstances).evidence.endswith("on 1 GPUs; CUDA 13.0")
    facts: dict[str, Any] = circumstances.noted["cuda"]
    assert facts["pageable_memory_access"]
    assert not facts["concurrent_managed_access"]
    assert "nothing spills" in _look(gpu.look_at_managed, circumstances).evidence


@pytest.mark.parametrize(
    ("mode", "words"),
    [("none", "cuInit: CUDA_ERROR_NO_DEVICE"), ("crashes", "SIGABRT"), ("wrong", "computed [41] where 42 is right")],
)
def test_cuda_that_does_not_start_or_computes_what_is_wrong(fake: Callable[[str], None], mode: str, words: str) -> None:
    fake(mode)
    finding = _look(gpu.look_at_cuda)

    assert finding.result == "failed"
    assert words in finding.evidence


def test_cuda_that_hangs_is_given_up(fake: Callable[[str], None]) -> None:
    fake("hangs")
    facts, answer = asking.ask_probe("cuda", {}, 3.0)

    assert answer.timed_out
    assert facts == {"step": "cuInit"}
    assert gpu.judge_cuda(facts, answer, 3.0).result == "failed"


def test_memory_is_pinned_in_steps_until_it_is_refused(fake: Callable[[str], None]) -> None:
    fake("pins")
    assert _look(gpu.look_at_pinned).evidence == "144 MiB can be pinned, then: CUDA_ERROR_OUT_OF_MEMORY."
    fake("")
    assert _look(gpu.look_at_pinned).evidence == "512 MiB can be pinned; more was not tried."


def test_the_library_that_a_process_loads_is_named(fake: Callable[[str], None], library: Path) -> None:
    fake("")
    finding = _look(gpu.look_at_library)

    assert finding.evidence == f"libcuda.so.1 is {library}/libcuda.so.1"
    assert finding.result == "ok"
    inside = gpu.look_at_library(Circumstances({}, True))
    assert (inside.result, "of a Linux driver" in inside.evidence) == ("failed", True)


def test_without_a_library_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    facts, _ = asking.ask_probe("library", {}, 15.0)

    if not facts["loaded"]:
        assert "libcuda.so.1" in facts["error"]
        assert _look(gpu.look_at_library).result == "failed"
