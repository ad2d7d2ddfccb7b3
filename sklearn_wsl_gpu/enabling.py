"""Offloading for the whole process: `enable` and `disable`, and the environment variable that does it at start."""

from __future__ import annotations

import inspect
import threading
from typing import Any

from sklearn_wsl_gpu import config
from sklearn_wsl_gpu.config import Frame
from sklearn_wsl_gpu.context import OffloadSession, offload
from sklearn_wsl_gpu.reporting import Report, process_report

_lock = threading.Lock()


def enable(**settings: Any) -> OffloadSession:
    """Offload the calls of the whole process, in every thread, until `disable`.

    Calling it again replaces the settings. An `offload` block inside has its say over what it is given.

    Parameters
    ----------
    **settings
        The parameters of `offload`, with the same defaults and environment variables.

    Returns
    -------
    OffloadSession
        With the report of all calls from now on, and the worker's state.

    Raises
    ------
    ConfigurationError
        If a value is not allowed. Nothing is changed then.

    Examples
    --------
    >>> import sklearn_wsl_gpu
    >>> session = sklearn_wsl_gpu.enable(exclude=["LabelEncoder"])
    >>> sklearn_wsl_gpu.disable()
    """
    from sklearn_wsl_gpu import patching

    resolved = offload(**settings).resolved()
    own = Report()
    with _lock:
        before = config.set_process_frame(Frame(resolved, (own, process_report), None, "process", set()))
        if before is None:
            patching.install()
    return OffloadSession(resolved, own)


def disable() -> None:
    """End what `enable` began: scikit-learn's classes are as they were, unless an `offload` block is active.

    The worker goes on until the process ends or `shutdown` is called. Does nothing if nothing is enabled.
    """
    from sklearn_wsl_gpu import patching

    with _lock:
        if config.set_process_frame(None) is not None:
            patching.uninstall()


enable.__signature__ = inspect.signature(offload).replace(return_annotation=OffloadSession)  # type: ignore[attr-defined]
