"""The memory behind a segment, per platform. What there is of it is told by `machine`."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import sys
import tempfile
import threading
import weakref
from pathlib import Path
from weakref import WeakKeyDictionary

from sklearn_wsl_gpu import paths, windows
from sklearn_wsl_gpu.errors import ConfigurationError, OffloadError, PoolSpaceError
from sklearn_wsl_gpu.pool import files
from sklearn_wsl_gpu.pool.machine import available_memory

#: Reserved pages come in chunks of this size, so that small spans do not ask the kernel each time.
RESERVE_CHUNK_BYTES = 2 * 1024 * 1024
#: Share of the available memory that a pool never takes.
_HEADROOM = 0.1

_MADV_POPULATE_WRITE = 23
_MAP_NORESERVE, _MREMAP_MAYMOVE_FIXED = 0x4000, 3
_HAS_MEMFD = sys.platform == "linux" and hasattr(os, "memfd_create")
_FITTING = "on a local NTFS drive" if sys.platform == "win32" else "on a memory file system, such as /dev/shm,"


def directory_of(directory: str | None, named: bool = False) -> str | None:
    """Return where the memory of a pool comes from: the directory that is asked for, if any, or None for a memfd.

    On Windows memory is always that of a file, by default in a directory that is never on a network, and that no
    service copies elsewhere.
    """
    if directory is not None:
        return directory
    if sys.platform == "win32":
        return str(Path(os.environ.get("LOCALAPPDATA") or tempfile.gettempdir()) / "sklearn_wsl_gpu")
    return None if _HAS_MEMFD and not named else tempfile.gettempdir()


def create_backing(nbytes: int, directory: str | None, named: bool = False) -> tuple[int, str | None]:
    """Make `nbytes` of sparse memory, which goes when the last process that maps it ends, however it ends.

    Parameters
    ----------
    nbytes : int
        Size in bytes.
    directory : str or None
        A directory on a memory file system to use; None lets the system choose (a memfd on Linux).
    named : bool
        Whether it is a file that another kernel can open by its path. Only such a file may be left behind by a
        process that is killed; the next one that makes one there removes it.

    Returns
    -------
    descriptor : int
    path : str or None
        None where there is no name of it in any file system.

    Raises
    ------
    ConfigurationError
        If `directory` cannot hold such a file.
    """
    where = directory_of(directory, named)
    if where is None:
        return _memfd(nbytes), None
    try:
        if directory is None:
            os.makedirs(where, mode=windows.PRIVATE, exist_ok=True)
        _check_volume(where)
        if named or not hasattr(os, "O_TMPFILE"):
            return files.create(where, nbytes)
        descriptor = os.open(where, os.O_TMPFILE | os.O_RDWR, 0o600)
        os.truncate(descriptor, nbytes)
    except OSError as error:
        raise unfit(nbytes, directory, named, error) from error
    return descriptor, None


def unfit(nbytes: int, directory: str | None, named: bool, error: OSError) -> OffloadError:
    """Return what to raise when `create_backing` cannot make such memory, or what it has made cannot be used."""
    where = directory_of(directory, named)
    if error.errno == errno.ENOMEM or where is None:
        return PoolSpaceError(
            f"This process has no room for a pool of {nbytes / 1e6:.0f} MB ({error.strerror}). Set pool_limit to less."
        )
    return ConfigurationError(
        f"pool_dir={where!r} cannot hold the pool ({error.strerror}). Name a directory "
        f"{_FITTING} that you may write to, or leave pool_dir unset."
    )


def _memfd(nbytes: int) -> int:
    if sys.platform == "linux":
        import fcntl

        descriptor = os.memfd_create("sklearn_wsl_gpu", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, nbytes)
        os.fchmod(descriptor, 0o600)  # a memfd is born with mode 0777
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        return descriptor
    raise AssertionError("Elsewhere `directory_of` names a directory.")


def _check_volume(directory: str) -> None:
    found = windows.volume(os.path.abspath(directory))
    if found is not None:
        reason = paths.why_no_pool(os.path.abspath(directory), *found, synchronized())
        if reason is not None:
            raise ConfigurationError(f"A pool cannot live in pool_dir: {reason}")


def synchronized() -> list[str]:
    """Return the directories that OneDrive keeps the same elsewhere, as it names them in the environment."""
    return [os.environ.get(name, "") for name in ("OneDrive", "OneDriveConsumer", "OneDriveCommercial")]


def close_backing(descriptor: int, path: str | None) -> None:
    """Let go of what `create_backing` returned; the name goes at once, the memory with the last mapping."""
    if path is not None:
        files.remove(path)  # first: as long as the descriptor is open nobody takes it for abandoned
    os.close(descriptor)


#: What is mapped in this process, and the descriptor of its memory.
_mapped: WeakKeyDictionary[mmap.mmap, int] = WeakKeyDictionary()


def map_backing(descriptor: int, nbytes: int) -> mmap.mmap:
    """Map the whole of a segment, readable and writable."""
    mapped = mmap.mmap(descriptor, nbytes)
    _mapped[mapped] = descriptor
    if sys.platform == "linux":
        # Where a file system has huge pages for who asks (tmpfs with huge=advise), fresh memory costs a tenth.
        with contextlib.suppress(AttributeError, OSError):
            mapped.madvise(mmap.MADV_HUGEPAGE)
    return mapped


def let_go(mapped: mmap.mmap, descriptor: int, path: str | None) -> weakref.finalize[..., mmap.mmap]:
    """Let go of what `create_backing` returned when a mapping goes: its name at once, the memory with the last mapping.

    Until then `make_private` needs it. What is returned is called if the mapping is closed before it is collected.
    """
    if path is not None:
        files.remove(path)  # first: as long as the descriptor is open nobody takes it for abandoned
    finalizer = weakref.finalize(mapped, os.close, descriptor)
    finalizer.atexit = False
    return finalizer


def make_private() -> None:
    """Let what this process writes to its mappings be its own from now on, as it is with all other memory after a fork.

    The pages are mapped anew at the same addresses, and copied when they are first written to.
    """
    if sys.platform != "linux" or not _mapped:
        return
    libc = ctypes.CDLL(None)
    libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mremap.argtypes = [ctypes.c_void_p, *[ctypes.c_size_t] * 2, ctypes.c_int, ctypes.c_void_p]
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    for mapped, descriptor in [item for item in _mapped.items() if not item[0].closed]:
        size = len(mapped)
        made = libc.mmap(None, size, protection, mmap.MAP_PRIVATE | _MAP_NORESERVE, descriptor, 0)
        if made != ctypes.c_void_p(-1).value:  # else what is there stays
            libc.mremap(made, size, size, _MREMAP_MAYMOVE_FIXED, address_of(mapped))


if sys.platform == "linux":
    os.register_at_fork(after_in_child=make_private)


def address_of(mapped: mmap.mmap) -> int:
    """Return the address of the first byte of a mapping."""
    return ctypes.addressof(ctypes.c_char.from_buffer(mapped))


def populate(mapped: mmap.mmap, start: int, nbytes: int) -> bool:
    """Have the pages of a run there and writable for this process, contents unchanged, whoever else writes there.

    The first touch of a page costs many times the copy of its bytes, in each process of its own.

    Returns
    -------
    done : bool
        False where the system does no such thing: it is Linux from 5.14 that does.
    """
    if sys.platform != "linux":
        return False
    first = ctypes.c_char.from_buffer(mapped, start)
    # Not mmap.madvise, which would hold the interpreter's lock meanwhile.
    result = ctypes.CDLL(None).madvise(ctypes.byref(first), ctypes.c_size_t(nbytes), _MADV_POPULATE_WRITE)
    return bool(result == 0)


def reserve(descriptor: int, offset: int, nbytes: int) -> None:
    """Make sure that writing to these bytes cannot fail for lack of space.

    Without this, the first write to a sparse mapping on a full file system kills the writer with SIGBUS. They hold
    nothing yet: where there is no better way, they are written to.

    Raises
    ------
    PoolSpaceError
        If the memory or the file system has no space.
    """
    available = available_memory()
    if available is not None and nbytes > available * (1 - _HEADROOM):
        raise PoolSpaceError(
            f"The pool needs {nbytes / 1e6:.0f} MB more, and {available / 1e6:.0f} MB of memory are available. "
            "Free some memory, or pass smaller arrays."
        )
    try:
        if hasattr(os, "posix_fallocate"):
            # In pieces: a signal undoes the whole of one in some kernels, and a profiler sends signals all the time.
            for begin in range(offset, offset + nbytes, RESERVE_CHUNK_BYTES):
                os.posix_fallocate(descriptor, begin, min(RESERVE_CHUNK_BYTES, offset + nbytes - begin))
        else:
            files.write_zeros(descriptor, offset, nbytes)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM):
            raise PoolSpaceError(
                f"The file system behind the pool has no room for {nbytes / 1e6:.0f} MB more "
                f"({error.strerror}). Free space there, or set pool_dir to another memory file system."
            ) from error
        raise


def discard(mapped: mmap.mmap, start: int, nbytes: int) -> bool:
    """Give the memory behind a run of whole pages back to the system; tell whether it does such a thing."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            mapped.madvise(mmap.MADV_REMOVE, start, nbytes)
            return True
    return False


def step_back() -> None:
    """Let every other thread go before this one, where the system can tell threads apart."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def page_faults() -> int:
    """Return how many pages this process has had to wait for, because they were not mapped yet; 0 where none tells."""
    if sys.platform != "linux":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
