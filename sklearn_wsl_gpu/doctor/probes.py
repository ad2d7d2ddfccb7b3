"""Facts that only a process of its own may ask for, because it may hang or crash: ``-m sklearn_wsl_gpu.doctor.probes``.

Each prints what it knows as lines of JSON while it goes on, so that what was told before an end counts.
"""

from __future__ import annotations

import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

_TRIPS = 20
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
#: Whatever the environment says, a call goes to the worker, or tells why not.
_ALWAYS: dict[str, Any] = {
    "fallback": "raise", "policy": "always", "precision": "engine", "min_elements": 0, "include": None, "exclude": None,
}  # fmt: skip


def tell(**facts: Any) -> None:
    """Print facts."""
    print(json.dumps(facts), flush=True)


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

    def start(self) -> ctypes.c_int:
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


def cuda() -> None:
    """Start CUDA, take 1 MiB of the GPU's memory, and run a kernel on it.

    Tells the ``step`` it is at, ``devices``, ``version``, attributes of the first device, ``kernel`` (true when it
    has computed what it should), or ``error`` and its ``code``.
    """
    call = _Cuda()
    try:
        device = call.start()
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
        call.start()
        done, step = 0, _FIRST_PINNED_MIB
        while done < _MOST_PINNED_MIB:
            call("cuMemAllocHost_v2", ctypes.byref(ctypes.c_void_p()), ctypes.c_size_t(step * _MIB))
            done += step
            step = min(_STEP_PINNED_MIB, _MOST_PINNED_MIB - done)
            tell(pinned_mib=done)
    except _CudaError:
        return


def reach(**arguments: Any) -> None:
    """Open a session with a worker, and have 64 KiB go there and back.

    Tells ``endpoint``, ``open_seconds``, ``engines``, ``versions`` of the worker, ``trip_seconds`` (the median of
    questions that are answered at once), and ``echo`` (true where the same bytes came back) or ``no_echo``, why no
    engine takes that; or ``error`` and its ``code``.
    """
    from sklearn_wsl_gpu import config, sessions
    from sklearn_wsl_gpu.errors import OffloadError, Unsupported

    try:
        begin = time.perf_counter()
        session = sessions.obtain(config.resolve(arguments))
        tell(open_seconds=time.perf_counter() - begin, endpoint=session.where.endpoint, engines=list(session.engines))
        tell(versions={name: session.version(name) for name in ("sklearn_wsl_gpu", "scikit-learn")})
        trips = []
        for _ in range(_TRIPS):
            begin = time.perf_counter()
            session.status()
            trips.append(time.perf_counter() - begin)
        tell(trip_seconds=statistics.median(trips))
        try:
            tell(echo=_echo(arguments))
        except Unsupported as error:
            tell(no_echo=str(error))
    except OffloadError as error:
        tell(error=str(error), code=error.code)
    finally:
        sessions.shutdown()


def _echo(arguments: dict[str, Any]) -> bool:
    import numpy as np
    from sklearn.preprocessing import StandardScaler

    from sklearn_wsl_gpu.context import offload

    sent = np.random.default_rng().standard_normal((64, 128))
    # One that neither centers nor scales gives back what it is given.
    scaler = StandardScaler(with_mean=False, with_std=False)
    with offload(**arguments, **_ALWAYS) as session:
        received = scaler.fit_transform(sent)
    return session.report().offloaded > 0 and received.tobytes() == sent.tobytes()


def fit(**arguments: Any) -> None:
    """Fit KMeans on the GPU, with a worker of this process; tell ``seconds``, and whether it is ``right``."""
    import numpy as np
    from sklearn.cluster import KMeans

    from sklearn_wsl_gpu import sessions
    from sklearn_wsl_gpu.context import offload
    from sklearn_wsl_gpu.errors import OffloadError

    near = np.random.default_rng(0).random((64, 4))
    data = np.concatenate([near, near + 100]).astype(np.float32)
    begin = time.perf_counter()
    try:
        with offload(**arguments, **_ALWAYS, endpoint=None, engine="cuml"):
            labels = KMeans(n_clusters=2, n_init=1, random_state=0).fit(data).labels_
        right = len(set(labels[:64])) == 1 and len(set(labels[64:])) == 1 and labels[0] != labels[-1]
        tell(seconds=time.perf_counter() - begin, right=bool(right))
    except OffloadError as error:
        tell(error=str(error), code=error.code)
    finally:
        sessions.shutdown()


_PROBES: dict[str, Callable[..., None]] = {
    "library": library, "cuda": cuda, "pinned": pinned, "reach": reach, "fit": fit,
}  # fmt: skip

if __name__ == "__main__":
    _PROBES[sys.argv[1]](**json.loads(sys.argv[2]))
