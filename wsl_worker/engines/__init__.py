"""Engines, found by name among the entry points of the group ``sklearn_wsl_gpu.engines``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points

from sklearn_wsl_gpu.errors import ConfigurationError
from wsl_worker.engines.base import Engine

GROUP = "sklearn_wsl_gpu.engines"
#: What ``auto`` tries, the best first; plain scikit-learn only where there is no other.
PREFERENCE = ("cuml", "array_api")


def names() -> list[str]:
    """Return the names of the installed engines, without importing any."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def choose(name: str, device: str = "auto") -> list[type[Engine]]:
    """Import and return the classes of the engines that can run here, by preference.

    Parameters
    ----------
    name : str
        Of an installed engine. ``"auto"`` is those of `PREFERENCE` that can run, so that one does what another
        cannot; or plain scikit-learn, where none can or the device is ``"cpu"``.
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
    objections: list[str] = []
    if name == "auto":
        candidates = [] if device == "cpu" else [one for one in PREFERENCE if one in found]
        chosen, objections = _able(found, candidates, device)
        if chosen:
            return chosen
        name = "cpu"
    chosen, more = _able(found, [name], device)
    if not chosen:
        raise ConfigurationError(f"No engine can run on device {device!r} here. {' '.join([*objections, *more])}")
    return chosen


def _able(
    found: Mapping[str, EntryPoint], candidates: Sequence[str], device: str
) -> tuple[list[type[Engine]], list[str]]:
    chosen, objections = [], []
    for candidate in candidates:
        engine: type[Engine] = found[candidate].load()
        words = engine.unavailable(device)
        if words is None:
            chosen.append(engine)
        else:
            objections.append(f"{candidate}: {words}")
    return chosen, objections
