"""What each engine can do, as tables: whether it takes a call is known without data, and before any is sent."""

from __future__ import annotations

from collections.abc import Mapping

from sklearn_wsl_gpu.errors import Reason
from sklearn_wsl_gpu.support import array_api, cpu, cuml
from sklearn_wsl_gpu.support.entry import CallLimit, Entry, Limit
from sklearn_wsl_gpu.support.request import Fact, Request, facts_of

__all__ = ["TABLES", "CallLimit", "Entry", "Fact", "Limit", "Request", "facts_of", "reason"]

#: Engine → estimator → what it computes of it.
TABLES: Mapping[str, Mapping[str, Entry]] = {"cuml": cuml.TABLE, "array_api": array_api.TABLE}


def reason(engine: str, request: Request) -> Reason | None:
    """Return why an engine does not take a call, or None if it does.

    Parameters
    ----------
    engine : str
        Name of an engine; one without a table here is asked on the worker, and gets None.
    request : Request
    """
    name = request.row.name
    if engine == "cpu":
        words = cpu.objection(request)
        return None if words is None else Reason("unsupported-argument", f"{name}: {words}.")
    if engine not in TABLES:
        return None
    entry = TABLES[engine].get(name)
    words = f"{engine} does not compute it" if entry is None else entry.objection(request)
    return None if words is None else Reason("unsupported-by-engine", f"{name}: {words}.")
