"""Runs something around the import of a module."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

Run = Callable[[Callable[[ModuleType], None], ModuleType], None]


def find_and_run(finder: MetaPathFinder, name: str, path: Any, target: ModuleType | None, run: Run) -> Any:
    """Return what the other finders find of a module, to be executed by ``run(execute, module)``."""
    finders = [other for other in sys.meta_path if other is not finder and hasattr(other, "find_spec")]
    spec = next(filter(None, (other.find_spec(name, path, target) for other in finders)), None)
    if spec is None or spec.loader is None:
        return None
    loader: Any = spec.loader

    # On the one loader object, which stays the module's own: others ask it for files and source.
    def exec_module(module: ModuleType) -> None:
        del loader.exec_module
        run(loader.exec_module, module)

    loader.exec_module = exec_module
    return spec
