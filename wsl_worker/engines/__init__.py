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


def choose(name: str, device: str = "auto") -> type[Engine]:
    """Import and return the class of an engine that can run here.

    Parameters
    ----------
    name : str
        Of an installed engine; ``"auto"`` is the first of `PREFERENCE` that can run, and plain scikit-learn on
        the device ``"cpu"``.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda:N"``.

    Raises
    ------
    ConfigurationError
        If there is none of that name, or it cannot run on the device.
    """
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name != "auto" and name not in found:
        raise ConfigurationError(f"engine must be one of {['auto', *names()]}; got {name!r}.")
    objections = []
    preference = ("cpu",) if device == "cpu" else PREFERENCE
    for candidate in (name,) if name != "auto" else (one for one in preference if one in found):
        engine: type[Engine] = found[candidate].load()
        words = engine.unavailable(device)
        if words is None:
            return engine
        objections.append(f"{candidate}: {words}")
    raise ConfigurationError(f"No engine can run on device {device!r} here. {' '.join(objections)}")
