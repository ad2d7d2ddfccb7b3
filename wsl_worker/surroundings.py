"""What surrounds a call in the executor: recorded warnings, captured output, scikit-learn's settings."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import joblib
import numpy as np
import sklearn

from sklearn_wsl_gpu.errors import RemoteProtocolError, Unsupported
from sklearn_wsl_gpu.protocol.messages import FLOATING

#: Settings of scikit-learn that a client may pass on; the others are about output or display.
_SETTINGS = frozenset(
    {
        "assume_finite", "working_memory", "pairwise_dist_chunk_size", "enable_cython_pairwise_dist",
        "skip_parameter_validation", "sparse_interface", "array_api_dispatch", "enable_metadata_routing",
    }
)  # fmt: skip
_MAX_TEXT = 512 * 1024


class Output:
    """Takes the standard streams of the process, C code included, and gives back what was written to them."""

    def __init__(self) -> None:
        self._files = []
        for number, name in ((1, "stdout"), (2, "stderr")):
            file = tempfile.TemporaryFile()
            os.dup2(file.fileno(), number)
            self._files.append((name, file.fileno(), file))
        self._open_stdout()
        # Unbuffered, so that what C code prints stands between what Python prints, as it would in a terminal.
        with contextlib.suppress(OSError, AttributeError, ValueError):
            libc = ctypes.CDLL(None)
            libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, 2, 0)

    def _open_stdout(self) -> None:
        sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)

    def take(self) -> list[list[str]]:
        """Return what was written since the last time, as pairs of stream name and text."""
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:  # the disk is full: what is left in the buffer goes with it, and into no other call's output
            self._open_stdout()
        found = []
        for name, descriptor, _ in self._files:
            size = os.fstat(descriptor).st_size
            if size:
                raw = os.pread(descriptor, min(size, _MAX_TEXT), 0)
                os.ftruncate(descriptor, 0)
                os.lseek(descriptor, 0, os.SEEK_SET)
                more = f"\n[{size - len(raw)} bytes more were printed there]\n" if size > len(raw) else ""
                found.append([name, raw.decode("utf-8", "replace") + more])
        return found


class Backend:
    """What joblib runs with in this process: set once, and again where a call needs another, or has failed."""

    def __init__(self) -> None:
        self._name = ""
        self._context = contextlib.ExitStack()

    def use(self, name: str) -> None:
        """Have joblib run with a backend."""
        if name != self._name:
            self.forget()
            self._context.enter_context(joblib.parallel_backend(name, n_jobs=None))
            self._name = name

    def forget(self) -> None:
        """Have joblib run with its own default."""
        self._context.close()
        self._name = ""


@contextlib.contextmanager
def scikit_learn_settings(pairs: Sequence[Sequence[Any]]) -> Iterator[None]:
    """Run under the client's settings of scikit-learn, and what its numpy does about floating-point errors.

    Raises
    ------
    Unsupported
        If array_api_dispatch is on, and this process was not started for it.
    """
    known = {name: value for name, value in pairs if name in _SETTINGS and name in sklearn.get_config()}
    floating = next((value for name, value in pairs if name == FLOATING), None)
    with contextlib.ExitStack() as stack:
        if floating is not None:
            stack.enter_context(_errstate(floating))
        if known.pop("array_api_dispatch", False):
            # On its own, and first: where scikit-learn refuses it, settings that it took before would stay.
            try:
                stack.enter_context(sklearn.config_context(array_api_dispatch=True))
            except (ImportError, RuntimeError) as error:
                raise Unsupported(
                    "array_api_dispatch is on, and the worker's process is not made for it: start the worker with "
                    f"SCIPY_ARRAY_API=1 in its environment. scikit-learn says there: {error}",
                    "array-api-dispatch",
                ) from None
        if known:
            stack.enter_context(sklearn.config_context(**known))
        yield


def _errstate(words: Any) -> contextlib.AbstractContextManager[None]:
    if type(words) is not list or len(words) != 4 or any(one not in ("ignore", "warn", "raise") for one in words):
        raise RemoteProtocolError("What numpy is to do about floating-point errors is malformed.")
    divide, over, under, invalid = words
    return np.errstate(divide=divide, over=over, under=under, invalid=invalid)


class Warnings:
    """Records what is warned of in a ``with`` block."""

    def __enter__(self) -> Warnings:
        self._context = warnings.catch_warnings(record=True)
        recorded = self._context.__enter__()
        assert recorded is not None
        self._recorded = recorded
        warnings.simplefilter("always")
        self._before = self._filters_version()
        self._changed = False
        return self

    def __exit__(self, *error: object) -> None:
        self._changed = bool(self._recorded) and self._filters_version() != self._before
        self._context.__exit__(*error)  # type: ignore[arg-type]

    def _filters_version(self) -> Any:
        # A change of the filters makes Python forget what it has shown once; only a registry tells of it.
        registry: Any = {}
        warnings.warn_explicit("probe", UserWarning, "", 0, registry=registry)
        self._recorded.pop()
        return registry.get("version")

    def describe(self) -> list[list[Any]]:
        """Return category, text, module and line of each warning.

        The module is empty for a warning that points at the caller of the method: on the client that is the
        user's own line. An empty category says that the filters were changed.
        """
        changed = [["", "", "", 0]] if self._changed else []
        return changed + _describe(self._recorded)


def _describe(recorded: Sequence[warnings.WarningMessage]) -> list[list[Any]]:
    found = []
    for item in recorded:
        category = item.category
        found.append(
            [
                f"{category.__module__}.{category.__qualname__}",
                str(item.message),
                _module_of(item.filename),
                item.lineno,
            ]
        )
    return found


def _module_of(filename: str) -> str:
    if f"{os.sep}wsl_worker{os.sep}" in filename:
        return ""
    for entry in sorted(sys.path, key=len, reverse=True):
        if entry and filename.startswith(entry.rstrip(os.sep) + os.sep):
            relative = filename[len(entry.rstrip(os.sep)) + 1 :]
            return relative.removesuffix(".py").replace(os.sep, ".").removesuffix(".__init__")
    return ""
