"""What ``SKLEARN_WSL_GPU=1`` does at the start of a Python process: `enable` as soon as scikit-learn is imported.

Called by the ``.pth`` file that the wheel puts beside the package, if the variable is set; so nothing may be
imported here that costs.
"""

from __future__ import annotations

import functools
import os
import sys
from importlib.abc import MetaPathFinder
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
    """Leaves finding to the others; enables when scikit-learn has been imported.

    Where one of our own modules imports it, that happens when the outermost of these is complete: `enable` needs
    them all.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._is_imported = False

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        if fullname != "sklearn" and not fullname.startswith("sklearn_wsl_gpu."):
            return None
        finders = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in finders)), None)
        if spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader

        # On the one loader object, which stays the module's own: others ask it for files and source.
        def exec_module(module: ModuleType) -> None:
            del loader.exec_module
            self._depth += 1
            try:
                loader.exec_module(module)
            finally:
                self._depth -= 1
            self._is_imported = self._is_imported or fullname == "sklearn"
            if self._is_imported and not self._depth and self in sys.meta_path:
                sys.meta_path.remove(self)
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
