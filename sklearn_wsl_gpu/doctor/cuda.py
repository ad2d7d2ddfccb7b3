"""CUDA's driver library, asked in a process of its own: see `sklearn_wsl_gpu.doctor.probes`."""

from __future__ import annotations

import ctypes
from typing import Any

from sklearn_wsl_gpu.doctor.asking import tell

#: Adds one to the number of each of 64 threads (NVIDIA, "PTX ISA").
_KERNEL = b"""
.version 6.0
.target sm_70
.address_size 64
.visible .entry add_one(.param .u64 numbers)
{
    .reg .b64 %rd<5>;
    .reg .b32 %r<4>;
    ld.param.u64 %rd1, [numbers];
    cvta.to.global.u64 %rd2, %rd1;
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd3, %r1, 4;
    add.s64 %rd4, %rd2, %rd3;
    ld.global.u32 %r2, [%rd4];
    add.u32 %r3, %r2, 1;
    st.global.u32 [%rd4], %r3;
    ret;
}
"""
_THREADS = 64
_MIB = 2**20
#: Attributes of a device (cuda.h, CUdevice_attribute).
_ATTRIBUTES = {
    "pageable_memory_access": 88,
    "concurrent_managed_access": 89,
    "same_pointer_for_registered": 91,
}
_FIRST_PINNED_MIB, _STEP_PINNED_MIB, _MOST_PINNED_MIB = 16, 64, 512


def library() -> None:
    """Tell which files are mapped by who asks for ``libcuda.so.1``: ``loaded``, or an ``error``."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        tell(loaded=[], error=str(error))
        return
    with open("/proc/self/maps", encoding="utf-8") as file:
        found = dict.fromkeys(line.split(None, 5)[5].strip() for line in file if "libcuda.so" in line)
    tell(loaded=list(found))


class _CudaError(Exception):
    pass


class _Cuda:
    """CUDA's driver interface (cuda.h), each call checked."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")

    def __call__(self, name: str, *arguments: Any) -> None:
        tell(step=name)
        code = getattr(self._library, name)(*arguments)
        if code:
            word = ctypes.c_char_p()
            self._library.cuGetErrorName(code, ctypes.byref(word))
            text = (word.value or b"an unknown error").decode("ascii", "replace")
            tell(error=text, code=code)
            raise _CudaError(text)

    def open(self) -> ctypes.c_int:
        """Return the first device, ready for use."""
        self("cuInit", ctypes.c_uint(0))
        count, version, device, context = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p()
        self("cuDeviceGetCount", ctypes.byref(count))
        self("cuDriverGetVersion", ctypes.byref(version))
        tell(devices=count.value, version=f"{version.value // 1000}.{version.value % 1000 // 10}")
        self("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self("cuCtxSetCurrent", context)
        return device


def start() -> None:
    """Start CUDA, take 1 MiB of the GPU's memory, and run a kernel on it.

    Tells the ``step`` it is at, ``devices``, ``version``, attributes of the first device, ``kernel`` (true when it
    has computed what it should), or ``error`` and its ``code``.
    """
    call = _Cuda()
    try:
        device = call.open()
        for name, number in _ATTRIBUTES.items():
            value = ctypes.c_int()
            call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(number), device)
            tell(**{name: bool(value.value)})
        memory, module, function = ctypes.c_uint64(), ctypes.c_void_p(), ctypes.c_void_p()
        call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(_MIB))
        call("cuMemsetD32_v2", memory, ctypes.c_uint(41), ctypes.c_size_t(_MIB // 4))
        call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(_KERNEL))
        call("cuModuleGetFunction", ctypes.byref(function), module, b"add_one")
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(memory))
        blocks = [ctypes.c_uint(number) for number in (1, 1, 1, _THREADS, 1, 1, 0)]
        call("cuLaunchKernel", function, *blocks, None, arguments, None)
        call("cuCtxSynchronize")
        numbers = (ctypes.c_uint32 * _THREADS)()
        call("cuMemcpyDtoH_v2", numbers, memory, ctypes.c_size_t(ctypes.sizeof(numbers)))
    except _CudaError:
        return
    if set(numbers) == {42}:
        tell(kernel=True)
    else:
        tell(error=f"the kernel computed {sorted(set(numbers))} where 42 is right")


def pinned() -> None:
    """Tell how many MiB of memory can be pinned, ``pinned_mib``, and the ``error`` that came then."""
    call = _Cuda()
    try:
        call.open()
        done, step = 0, _FIRST_PINNED_MIB
        while done < _MOST_PINNED_MIB:
            call("cuMemAllocHost_v2", ctypes.byref(ctypes.c_void_p()), ctypes.c_size_t(step * _MIB))
            done += step
            step = min(_STEP_PINNED_MIB, _MOST_PINNED_MIB - done)
            tell(pinned_mib=done)
    except _CudaError:
        return
