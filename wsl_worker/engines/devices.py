"""What CUDA's driver says of this machine, without a library that takes seconds to import."""

from __future__ import annotations

import ctypes
from typing import Any


def count_gpus() -> int:
    """Return how many GPUs this process may use; 0 without a driver.

    References
    ----------
    CUDA Driver API, cuInit and cuDeviceGetCount.
    """
    driver, count = _driver(), ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def bus_id(number: int) -> str:
    """Return where a GPU is on the PCI bus, such as ``"0000:65:00.0"``; empty if there is none of that number.

    References
    ----------
    CUDA Driver API, cuDeviceGet and cuDeviceGetPCIBusId.
    """
    driver, device, text = _driver(), ctypes.c_int(0), ctypes.create_string_buffer(64)
    if driver is None or driver.cuDeviceGet(ctypes.byref(device), number):
        return ""
    return "" if driver.cuDeviceGetPCIBusId(text, len(text), device) else text.value.decode("ascii", "replace")


def answers(cupy: Any) -> bool:
    """Tell whether the device that CuPy uses still answers."""
    try:
        cupy.cuda.runtime.deviceSynchronize()
    except cupy.cuda.runtime.CUDARuntimeError:
        return False
    return True


def _driver() -> ctypes.CDLL | None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return None if driver.cuInit(0) else driver
