"""What ``SKLEARN_WSL_GPU=1`` does at the start of a Python process: `enable` as soon as scikit-learn is imported.

Called by the ``.pth`` file that the wheel puts beside the package, if the variable is set; so nothing may be
imported here that costs.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

from sklearn_wsl_gpu.importing import find_and_run
from sklearn_wsl_gpu.saying import say

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
        say(f"{VARIABLE} must be 1 or 0, not {value!r}; it has no effect.")
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
        self._is_following = False

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        if not self._is_following and "." not in fullname and fullname not in sys.stdlib_module_names:
            # A package of somebody else's estimators imports scikit-learn itself, so that `enable` comes in the
            # middle of its import.
            self._is_following = True
            from sklearn_wsl_gpu.following import follow

            found = follow().find_spec(fullname, path, target)
            if found is not None:
                return found
        if fullname != "sklearn" and not fullname.startswith("sklearn_wsl_gpu."):
            return None

        def run(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
            self._depth += 1
            try:
                execute(module)
            finally:
                self._depth -= 1
            self._is_imported = self._is_imported or fullname == "sklearn"
            if self._is_imported and not self._depth and self in sys.meta_path:
                sys.meta_path.remove(self)
                _enable()

        return find_and_run(self, fullname, path, target, run)


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
