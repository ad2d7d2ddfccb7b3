"""Tells when a package of somebody else's estimators has been imported: they are wrapped then, not before."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

from sklearn_wsl_gpu.estimators import third_party
from sklearn_wsl_gpu.importing import find_and_run


class Follower(MetaPathFinder):
    """Calls what is to be called when a package of `third_party` has been imported."""

    def __init__(self) -> None:
        self._listener: Callable[[str], None] | None = None

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call a function with the name of each package from now on, and at once for those that are there."""
        self._listener = listener
        for package in third_party.packages():
            module = sys.modules.get(package)
            # One whose import is going on is told of at its end.
            if module is not None and getattr(getattr(module, "__spec__", None), "_initializing", False) is not True:
                listener(package)

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        if fullname not in third_party.packages():
            return None

        def run(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
            execute(module)
            if self._listener is not None:
                self._listener(fullname)

        return find_and_run(self, fullname, path, target, run)


_follower = Follower()


def follow() -> Follower:
    """Return the one follower of this process, at its place among the finders from now on."""
    if _follower not in sys.meta_path:
        sys.meta_path.insert(0, _follower)
    return _follower
