"""What CUDA's driver says of this machine, without a library that takes seconds to import."""

from __future__ import annotations

import ctypes


def count_gpus() -> int:
    """Return how many GPUs this process may use; 0 without a driver.

    References
    ----------
    CUDA Driver API, cuInit and cuDeviceGetCount.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value
