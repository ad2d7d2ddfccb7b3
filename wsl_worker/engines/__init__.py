"""Engines, found by name among the entry points of the group ``sklearn_wsl_gpu.engines``."""

from __future__ import annotations

from importlib.metadata import entry_points

from sklearn_wsl_gpu.errors import ConfigurationError
from wsl_worker.engines.base import Engine

GROUP = "sklearn_wsl_gpu.engines"
#: Which engine ``auto`` takes: the first of these that is installed.
PREFERENCE = ("cuml", "array_api", "cpu")


def names() -> list[str]:
    """Return the names of the installed engines, without importing any."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def create(name: str) -> Engine:
    """Import and construct an engine.

    Raises
    ------
    ConfigurationError
        If there is none of that name.
    """
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name == "auto":
        name = next(preferred for preferred in PREFERENCE if preferred in found)
    if name not in found:
        raise ConfigurationError(f"engine must be one of {['auto', *names()]}; got {name!r}.")
    engine: Engine = found[name].load()()
    return engine
