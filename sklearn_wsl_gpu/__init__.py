"""Existing scikit-learn code runs on a worker: a GPU in WSL2, or any process of this machine.

::

    user code ─► wrapped method ─► policy: offload or stay? ─► gather: estimator + arguments ─► values + arrays
                                       │ stay (with a reason)                                      │
                                       ▼                                                           ▼
                                original scikit-learn                     pool: all arrays of the call in one span
                                                                                                   │
    estimator fully fitted ◄─ adopt (check all, assign once) ◄─ reply ◄─ protocol: msgpack over ZeroMQ REQ/REP
                                                                                                   │
                       worker front: sessions, queue, pool table ─► executor process: engine

Importing this package imports nothing else of it, and not scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sklearn_wsl_gpu.allocating import asarray, empty
    from sklearn_wsl_gpu.context import OffloadSession, config_context, offload, report
    from sklearn_wsl_gpu.enabling import disable, enable
    from sklearn_wsl_gpu.errors import (
        AuthenticationError,
        ConfigurationError,
        DeadlineExceeded,
        EngineError,
        FallbackWarning,
        OffloadError,
        PoolError,
        PoolSpaceError,
        PoolTooSmall,
        ProtocolError,
        Reason,
        Unsupported,
        VersionMismatch,
        WorkerDied,
        WorkerStartError,
        WorkerUnavailable,
    )
    from sklearn_wsl_gpu.reporting import CallRecord, Report
    from sklearn_wsl_gpu.sessions import shutdown

__all__ = [
    "AuthenticationError",
    "CallRecord",
    "ConfigurationError",
    "DeadlineExceeded",
    "EngineError",
    "FallbackWarning",
    "OffloadError",
    "OffloadSession",
    "PoolError",
    "PoolSpaceError",
    "PoolTooSmall",
    "ProtocolError",
    "Reason",
    "Report",
    "Unsupported",
    "VersionMismatch",
    "WorkerDied",
    "WorkerStartError",
    "WorkerUnavailable",
    "asarray",
    "config_context",
    "disable",
    "empty",
    "enable",
    "offload",
    "report",
    "shutdown",
]

#: No module has the name of something public: a submodule that is imported would take its place.
_HOME = {"OffloadSession": "context", "offload": "context", "report": "context", "shutdown": "sessions"}
_HOME |= {"config_context": "context", "disable": "enabling", "enable": "enabling"}
_HOME |= {"asarray": "allocating", "empty": "allocating"}
_HOME |= {"CallRecord": "reporting", "Report": "reporting"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("sklearn-wsl-gpu")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)
    return value


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext sklearn_wsl_gpu``: offload everything from now on, and add ``%%offload`` for single cells."""
    from sklearn_wsl_gpu import notebook

    notebook.load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext sklearn_wsl_gpu``: offload nothing more."""
    from sklearn_wsl_gpu import notebook

    notebook.unload(shell)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
