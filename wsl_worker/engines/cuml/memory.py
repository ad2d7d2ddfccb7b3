"""Memory of a device, and whether the device can still be used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from wsl_worker.engines.devices import answers
from wsl_worker.engines.staging import to_cupy

#: What libraries take beside the pool: their handles, and kernels that are loaded when first used.
_RESERVE_BYTES = 512 * 2**20
_UNIT = 256


def pool_sizes(free: int) -> tuple[int, int]:
    """Return what a pool takes at first, and at most, of what is free on the device, in bytes."""
    most = max(free - max(_RESERVE_BYTES, free // 10), free // 2)
    return most // 2 // _UNIT * _UNIT, most // _UNIT * _UNIT


def use_device(number: int) -> None:
    """Compute on a device from now on, with a pool of its memory."""
    import cupy
    import rmm

    device = cupy.cuda.Device(number)
    device.use()
    first, most = pool_sizes(device.mem_info[0])
    # Without a pool each allocation is one of the driver's. WSL2 has no managed memory to fall back on.
    pool = rmm.mr.PoolMemoryResource(rmm.mr.CudaMemoryResource(), initial_pool_size=first, maximum_pool_size=most)
    rmm.mr.set_current_device_resource(pool)


def is_usable() -> bool:
    """Tell whether the device still answers."""
    return answers(import_module("cupy"))


def to_device(value: Any) -> Any:
    """Return an array of the device; a number array of numpy is copied there."""
    return to_cupy()(value)
