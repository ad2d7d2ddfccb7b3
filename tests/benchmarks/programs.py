"""Benchmarks as modules: each imports what lies beside it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

_FOLDER = str(Path(__file__).parents[2] / "benchmarks")


def load(name: str) -> ModuleType:
    sys.path.insert(0, _FOLDER)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(_FOLDER)
