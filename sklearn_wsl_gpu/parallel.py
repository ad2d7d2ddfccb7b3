"""Settings in joblib's threads and processes: a snapshot that travels with each task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sklearn_wsl_gpu import launch, sessions
from sklearn_wsl_gpu.config import Frame, Settings, active, enter
from sklearn_wsl_gpu.reporting import Report, process_report


class _Snapshot:
    """The active settings, in a form that a process of joblib can take over."""

    def __init__(self, frame: Frame, where: launch.Address | None) -> None:
        self.frame: Frame | None = frame
        self.settings = frame.settings
        self.where = where

    def __getstate__(self) -> dict[str, Any]:
        return {"frame": None, "settings": self.settings, "where": self.where}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.frame, self.settings, self.where = state["frame"], state["settings"], state["where"]

    def run(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self.frame is None:
            _settle_in(self.settings, self.where)
        frame = self.frame or Frame(self.settings, (Report(), process_report), None, self, set())
        before = enter(frame)
        try:
            return function(*args, **kwargs)
        finally:
            enter(before)


_settled: set[str] = set()


def _settle_in(settings: Settings, where: launch.Address | None) -> None:
    # In a process of joblib: its classes are scikit-learn's own until now, and stay wrapped for later tasks.
    from sklearn_wsl_gpu import patching

    if not _settled:
        _settled.add("installed")
        patching.install()
    if where is not None:
        launch.inherit(launch.worker_key(settings), where)


class _Task:
    """A task of joblib under a snapshot; scikit-learn hands its own settings on through it."""

    def __init__(self, function: Any, snapshot: _Snapshot) -> None:
        self.function = function
        self.snapshot = snapshot

    def __getattr__(self, name: str) -> Any:
        # scikit-learn's Parallel asks for what it needs, and warns if a task (joblib.delayed's) does not have it.
        if name not in ("with_config", "with_config_and_warning_filters"):
            raise AttributeError(name)
        configured = getattr(self.function, name)
        return lambda *settings: _Task(configured(*settings), self.snapshot)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.snapshot.run(self.function, args, kwargs)


def carried(pool: Any, iterable: Iterable[Any]) -> Iterable[Any]:
    """Return joblib's tasks so that each runs under the settings that are active now."""
    frame = active()
    if frame is None:
        return iterable
    snapshot = _Snapshot(frame, _worker_for_processes(pool, frame.settings))

    def tasks() -> Iterator[Any]:
        for function, args, kwargs in iterable:
            yield _Task(function, snapshot), args, kwargs

    return tasks()


def uses_processes(pool: Any) -> bool:
    """Tell whether joblib runs the tasks of a pool in other processes."""
    backend = getattr(pool, "_backend", None)
    in_threads = getattr(backend, "uses_threads", False) or getattr(backend, "supports_sharedmem", False)
    return not in_threads and getattr(pool, "n_jobs", 1) not in (1, None)


def _worker_for_processes(pool: Any, settings: Settings) -> launch.Address | None:
    if not uses_processes(pool) or settings.endpoint is not None:
        return None
    # One worker for all: its children would otherwise each start one.
    return sessions.worker_address(settings)
