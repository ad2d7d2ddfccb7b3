"""How a worker comes to exist: the address and keys to talk to, by the settings."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import NamedTuple

from sklearn_wsl_gpu.config import Settings
from sklearn_wsl_gpu.errors import ConfigurationError
from sklearn_wsl_gpu.keys import HOME, ClientKeys, read_client_keys
from sklearn_wsl_gpu.launch import commands, kept
from sklearn_wsl_gpu.launch.child import ChildWorker


class WorkerKey(NamedTuple):
    """What makes two embedded workers different."""

    engine: str
    device: str
    model_bytes: int
    distribution: str | None
    interpreter: str | None


class Address(NamedTuple):
    """Where a worker is, and how to prove who one is."""

    endpoint: str
    keys: ClientKeys
    #: Whether it is another process's embedded worker.
    guest: bool = False
    #: Whether it is the one that is kept for all processes, which nobody has named.
    kept: bool = False


@dataclass(slots=True)
class _Workers:
    local: dict[WorkerKey, ChildWorker] = field(default_factory=dict)
    inherited: dict[WorkerKey, Address] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_workers = _Workers()


def worker_key(settings: Settings) -> WorkerKey:
    """Return which embedded worker settings ask for."""
    return WorkerKey(*[getattr(settings, name) for name in WorkerKey._fields])


def address(settings: Settings, *, use_kept: bool = True) -> Address:
    """Return where the worker of these settings is; start one of this process's own if there is none.

    Parameters
    ----------
    settings : Settings
        If they name no endpoint, it is the worker that this process has, or else the one that is kept for all.
    use_kept : bool
        Whether one that is kept for all will do. It may be gone.

    Raises
    ------
    WorkerStartError
        If it does not come up.
    ConfigurationError
        If the keys of a named worker are missing.
    """
    if settings.endpoint is not None:
        return Address(settings.endpoint, read_client_keys(settings.keys or HOME))
    key = worker_key(settings)
    with _workers.lock:
        if key in _workers.inherited:
            return _workers.inherited[key]
        worker = _workers.local.get(key)
        if worker is None or not worker.alive:
            if worker is not None:
                worker.stop()
                del _workers.local[key]
            standing = _kept(settings) if use_kept else None
            if standing is not None:
                return standing
            command = commands.worker(key.distribution, key.interpreter, ["--embedded"])
            given = {"engine": key.engine, "device": key.device, "model_bytes": key.model_bytes}
            worker = _workers.local[key] = ChildWorker(command, given, settings.verbose)
        return Address(worker.endpoint, worker.keys)


def _kept(settings: Settings) -> Address | None:
    found = kept.find(settings)
    if found is None:
        return None
    try:
        return Address(found.endpoint, read_client_keys(settings.keys or HOME), kept=True)
    except ConfigurationError:
        return None  # nobody has asked for these keys


def inherit(key: WorkerKey, where: Address) -> None:
    """Use a worker that another process owns, as the embedded one; called in child processes."""
    with _workers.lock:
        if key not in _workers.local:
            _workers.inherited[key] = where._replace(guest=True)


def has_ended(where: Address) -> bool:
    """Tell whether this is a worker that this process started, and that has ended since."""
    return any(worker.endpoint == where.endpoint and not worker.alive for worker in [*_workers.local.values()])


def reach_seconds(where: Address) -> float | None:
    """Return how long a worker that this process started beyond ``wsl.exe`` could not be reached after it listened."""
    found = [worker.reach_seconds for worker in _workers.local.values() if worker.endpoint == where.endpoint]
    return found[0] if found else None


def discard(where: Address) -> bool:
    """Give up an embedded worker that does not answer; tell whether it was one.

    One that this process started is ended; the parent's is forgotten. The next `address` starts a new one.
    """
    with _workers.lock:
        inherited = [key for key, known in _workers.inherited.items() if known == where]
        for key in inherited:
            del _workers.inherited[key]
        own = [key for key, worker in _workers.local.items() if worker.endpoint == where.endpoint]
        for key in own:
            _workers.local.pop(key).kill()
        return bool(inherited or own)


def stop_all() -> None:
    """Stop the workers that this process started, and wait for their end."""
    with _workers.lock:
        workers = list(_workers.local.values())
        _workers.local.clear()
        _workers.inherited.clear()
    for worker in workers:
        worker.stop()


def after_fork() -> None:
    """Make a forked child a guest of its parent's workers: it uses them, and never stops them."""
    global _workers
    guests = {key: Address(worker.endpoint, worker.keys, True) for key, worker in _workers.local.items()}
    for worker in _workers.local.values():
        worker.abandon()
    _workers = _Workers(inherited={**_workers.inherited, **guests})


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork)
