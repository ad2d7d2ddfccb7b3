"""What ``SKLEARN_WSL_GPU=1`` does at the start of a Python process: `enable` as soon as scikit-learn is imported.

Called by the ``.pth`` file that the wheel puts beside the package, if the variable is set; so nothing may be
imported here that costs.
"""

from __future__ import annotations

import functools
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any

VARIABLE = "SKLEARN_WSL_GPU"
_ON = ("1", "true", "yes", "on")
_OFF = ("", "0", "false", "no", "off")


# Python reads the file twice where a directory of packages has two names, as in many virtual environments.
@functools.cache
def install() -> None:
    """Arrange for `enable`, if the environment variable says so; at once, if scikit-learn is imported already."""
    value = os.environ.get(VARIABLE, "").strip().lower()
    if value in _OFF:
        return
    if value not in _ON:
        sys.stderr.write(f"sklearn_wsl_gpu: {VARIABLE} must be 1 or 0, not {value!r}; it has no effect.\n")
    elif "sklearn" in sys.modules:
        _enable()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds nothing itself; notices when scikit-learn is found, and acts when it has been imported."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        if fullname != "sklearn":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            sys.meta_path.insert(0, self)
            return None
        loader: Any = spec.loader

        # On the one loader object, which stays scikit-learn's own: others ask it for files and source.
        def exec_module(module: ModuleType) -> None:
            del loader.exec_module
            loader.exec_module(module)
            _enable()

        loader.exec_module = exec_module
        return spec


def _enable() -> None:
    # Whatever is wrong, the user's program imports scikit-learn and runs.
    try:
        from sklearn_wsl_gpu.enabling import enable

        enable()
    except Exception as error:
        import warnings

        from sklearn_wsl_gpu.errors import FallbackWarning

        text = f"{VARIABLE} is set, but nothing is offloaded: {type(error).__name__}: {error}"
        warnings.warn(text, FallbackWarning, stacklevel=2)
