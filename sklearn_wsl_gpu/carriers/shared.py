"""The carrier for two processes on one kernel: both map the same memory, nothing is copied.

A client offers its segment as ``["shared", pid, descriptor, nonce]``, having written the nonce into it. The
worker opens ``/proc/<pid>/fd/<descriptor>``, reads the nonce back, and writes its answer; the client reads
that from its mapping. Only then is the memory believed to be shared. Nothing is ever found by a name in a
file system, so nothing is left behind in one.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import threading
from collections.abc import Sequence
from typing import Any

from sklearn_wsl_gpu.arrays import SpanRef
from sklearn_wsl_gpu.carriers.base import Carrier
from sklearn_wsl_gpu.errors import StaleReference, WorkerUnavailable
from sklearn_wsl_gpu.pool.layout import CHALLENGE_BYTES, CHALLENGE_OFFSET, Geometry, unpack_superblock
from sklearn_wsl_gpu.pool.segment import Segment

NAME = "shared"


def boot_id() -> str:
    """Return what identifies the running kernel and its table of process numbers; empty where there is no such thing.

    In another container a number means another process.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def offer(segment: Segment) -> list[Any]:
    """Return what a worker needs to find and prove this segment."""
    nonce = os.urandom(CHALLENGE_BYTES)
    segment.client_challenge(nonce)
    return [NAME, os.getpid(), segment.descriptor, nonce]


def _answer(nonce: bytes) -> bytes:
    return hashlib.blake2b(nonce, digest_size=CHALLENGE_BYTES, person=b"worker").digest()


def accept(raw: list[Any], budget: int) -> tuple[int, Geometry, bytes]:
    """Open an offered segment on the worker's side.

    Parameters
    ----------
    raw : list
        An offer, unchecked.
    budget : int
        Bytes that a pool may have.

    Returns
    -------
    descriptor : int
        Of the segment's memory.
    geometry : Geometry
        Of its slots, as it is now: the client may write another one there at any time.
    proof : bytes
        For the client.

    Raises
    ------
    WorkerUnavailable
        With the reason, if the memory is not shared or not what was offered.
    """
    is_known = len(raw) == 4 and raw[0] == NAME and type(raw[3]) is bytes and len(raw[3]) == CHALLENGE_BYTES
    if sys.platform == "win32" or not is_known:
        raise WorkerUnavailable("The worker does not know the carrier that the client offers.", "no-carrier")
    _, pid, number, nonce = raw
    if type(pid) is not int or type(number) is not int or pid < 1 or number < 0:
        raise WorkerUnavailable("The client's offer of its pool is malformed.", "no-carrier")
    try:
        descriptor = _open_memory(f"/proc/{pid}/fd/{number}")
    except (OSError, OverflowError) as error:
        raise _not_shared() from error
    try:
        about = os.fstat(descriptor)
        if os.pread(descriptor, CHALLENGE_BYTES, CHALLENGE_OFFSET) != nonce:
            raise _not_shared()
        try:
            _, geometry = unpack_superblock(os.pread(descriptor, 64, 0))
        except StaleReference as error:
            raise _not_shared() from error
        if geometry.file_bytes > budget or about.st_size < geometry.file_bytes:
            raise too_large(geometry, budget)
        proof = _answer(nonce)
        os.pwrite(descriptor, proof, CHALLENGE_OFFSET + CHALLENGE_BYTES)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, geometry, proof


def _open_memory(path: str) -> int:
    """Open memory without a name, of this user: so that no file of the user can be written to through an offer."""
    if sys.platform != "win32":  # where no worker runs
        # To open what a client names may have effects (a terminal, a pipe), so it is looked at first.
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            about = os.fstat(handle)
            if stat.S_ISREG(about.st_mode) and not about.st_nlink and about.st_uid == os.getuid():
                return os.open(f"/proc/self/fd/{handle}", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        finally:
            os.close(handle)
    raise _not_shared()


class Shared(Carrier):
    """The client's end of memory that the worker has, too: there is nothing to be moved.

    Parameters
    ----------
    offered : list
        What `offer` said of the pool's first segment.
    answer : sequence
        What the worker said to that, unchecked.
    """

    kind = name = NAME
    needs_segment = True
    open_seconds = 1.0

    def __init__(self, offered: list[Any], answer: Sequence[Any]) -> None:
        self._offered = offered
        self._answer = answer

    def open(self, segment: Segment, deadline: float, enough: threading.Event) -> None:
        self.admit(0, segment, self._offered, self._answer)

    def admit(self, number: int, segment: Segment, offered: list[Any], answer: Sequence[Any]) -> None:
        if [*answer] != [_answer(offered[3])] or segment.worker_challenge() != answer[0]:
            raise _not_shared()

    def there(
        self, request: int, ref: SpanRef, offset: int, pieces: Sequence[memoryview], deadline: float | None
    ) -> None:
        pass

    def back(self, request: int, ref: SpanRef, window: memoryview, deadline: float | None) -> None:
        pass

    def close(self) -> None:
        pass


def too_large(geometry: Geometry, budget: int) -> WorkerUnavailable:
    """Return the error of a pool that is larger than the worker takes."""
    return WorkerUnavailable(
        f"The worker takes pools of at most {budget / 1e9:.1f} GB; this one has {geometry.pool_bytes / 1e9:.1f} GB. "
        "Make slots or slot_bytes smaller.",
        "pool-too-large",
    )


def _not_shared() -> WorkerUnavailable:
    return WorkerUnavailable(
        "The worker does not share memory with this process: it runs on another machine or kernel, in another "
        "container, or as another user. Run it beside the client, as the same user.",
        "no-carrier",
    )
