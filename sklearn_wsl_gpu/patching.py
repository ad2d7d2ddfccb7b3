"""The only file that assigns to scikit-learn's classes: wraps their methods, and puts the originals back.

Each method is wrapped on the concrete class, also where it is inherited; a descriptor that makes a method
available on a condition is rebuilt around the wrapper. The last one to leave restores every attribute that is
still ours to the identical object, and removes those that were not there.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CellType
from typing import Any

from sklearn.utils import parallel

from sklearn_wsl_gpu import _compat
from sklearn_wsl_gpu._compat import AvailableIf
from sklearn_wsl_gpu.config import active
from sklearn_wsl_gpu.errors import FallbackWarning
from sklearn_wsl_gpu.estimators import GRAPHS, ROWS, Row, third_party
from sklearn_wsl_gpu.estimators.functions import FUNCTIONS, Function
from sklearn_wsl_gpu.following import follow
from sklearn_wsl_gpu.state import objects

_MARK = "__sklearn_wsl_gpu__"
_ABSENT: Any = object()


@dataclass(slots=True)
class _Patches:
    """What is installed: (class, name) → what was in the class's own dict, and what we put there."""

    installed: dict[tuple[Any, str], tuple[Any, Any]] = field(default_factory=dict)
    #: Of functions: where scikit-learn's wrapper holds its function, that function, and ours.
    cells: list[tuple[CellType, Any, Any]] = field(default_factory=list)
    users: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


_patches = _Patches()


def install() -> None:
    """Wrap every method of the table, unless that is done already."""
    with _patches.lock:
        _patches.users += 1
        if _patches.users > 1:
            return
        try:
            _wrap_all()
        except BaseException:  # such as a warning that the user's filters make an error
            _patches.users = 0
            _restore()
            raise
    try:
        follow().listen(_on_import)
    except BaseException:
        uninstall()
        raise


def _wrap_all() -> None:
    for row in (*ROWS.values(), *GRAPHS.values()):
        if row.cls is not None and _is_scikit_learns(row.cls):
            _wrap_class(row)
    _put(parallel.Parallel, "__call__", _carry_settings(parallel.Parallel.__dict__["__call__"]))
    for function in FUNCTIONS.values():
        _wrap_function(function)
    _put(_compat.BaseSearchCV, "fit", _lend_data(_compat.BaseSearchCV.__dict__["fit"]))


def _on_import(package: str) -> None:
    """Wrap the estimators of another package, now that it is there."""
    with _patches.lock:
        for name in third_party.names() if _patches.users else ():
            if name.partition(".")[0] == package:
                row = third_party.find(name)
                if row is not None and (row.cls, row.method_names[0]) not in _patches.installed:
                    objects.register(row)
                    _wrap_class(row)


def uninstall() -> None:
    """Undo one `install`; the last one restores the classes."""
    with _patches.lock:
        _patches.users -= 1
        if not _patches.users:
            _restore()


def _restore() -> None:
    while _patches.cells:
        cell, original, ours = _patches.cells.pop()
        if cell.cell_contents is ours:
            cell.cell_contents = original
    while _patches.installed:
        (cls, name), (original, ours) = _patches.installed.popitem()
        if cls.__dict__.get(name) is not ours:
            continue  # somebody has patched on top of us; without a context our wrapper does nothing
        if original is _ABSENT:
            delattr(cls, name)
        else:
            setattr(cls, name, original)


def is_installed() -> bool:
    """Tell whether the classes are wrapped now."""
    return _patches.users > 0


def after_fork() -> None:
    """Give a forked child a lock of its own."""
    _patches.lock = threading.Lock()


def _is_scikit_learns(cls: type[Any]) -> bool:
    if cls.__module__.startswith("sklearn."):
        return True
    # Another accelerator has put a class of its own in scikit-learn's place: its internals are not ours to send.
    warnings.warn(
        f"{cls.__name__} is not scikit-learn's own class but {cls.__module__}'s; it is not offloaded. Switch off "
        "that package's patching of scikit-learn to have it offloaded.",
        FallbackWarning,
        stacklevel=4,
    )
    return False


def _put(cls: Any, name: str, replacement: Any) -> None:
    _patches.installed[cls, name] = (cls.__dict__.get(name, _ABSENT), replacement)
    setattr(cls, name, replacement)


def _wrap_class(row: Row) -> None:
    for name in row.method_names:
        _wrap_method(row, name)


def _wrap_method(row: Row, name: str) -> None:
    cls = row.cls
    raw = inspect.getattr_static(cls, name, None)  # getattr would ask the descriptor, and be refused
    if isinstance(raw, AvailableIf):
        _put(cls, name, AvailableIf(_wrapper(row, name, _original(raw.fn)), raw.check, raw.attribute_name))
    elif inspect.isfunction(raw):
        _put(cls, name, _wrapper(row, name, _original(raw)))


def _original(function: Callable[..., Any]) -> Callable[..., Any]:
    # A method that is inherited from another row's class is found there already wrapped.
    original: Callable[..., Any] = getattr(function, _MARK, function)
    return original


def _wrapper(row: Row, name: str, raw: Callable[..., Any]) -> Callable[..., Any]:
    from sklearn_wsl_gpu.dispatch import dispatch
    from sklearn_wsl_gpu.invocation import Invocation

    # A plain function with the signature of the original: scikit-learn reads it to find sample_weight, and
    # finds no metadata requests on anything else.
    @functools.wraps(raw)
    def wrapped(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        frame = active()
        if frame is None:
            return raw(self, *args, **kwargs)
        return dispatch(frame, Invocation(row, name, raw, self, args, kwargs))

    assert row.cls is not None
    wrapped.__qualname__ = f"{row.cls.__qualname__}.{name}"  # so that a method pickles by its name
    wrapped.__module__ = row.cls.__module__
    setattr(wrapped, _MARK, raw)
    return wrapped


def _wrap_function(row: Function) -> None:
    # scikit-learn checks the parameters of each in a wrapper. What that calls is changed, and not the name: it is the
    # same function for whoever imported it before.
    inner = getattr(row.function, "__wrapped__", None)
    for cell in getattr(row.function, "__closure__", None) or ():
        if inner is not None and cell.cell_contents is inner:
            ours = _function_wrapper(row, inner)
            _patches.cells.append((cell, inner, ours))
            cell.cell_contents = ours


def _function_wrapper(row: Function, raw: Callable[..., Any]) -> Callable[..., Any]:
    from sklearn_wsl_gpu.functions import call

    @functools.wraps(raw)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        frame = active()
        return raw(*args, **kwargs) if frame is None else call(frame, row, raw, args, kwargs)

    return wrapped


def _carry_settings(raw: Callable[..., Any]) -> Callable[..., Any]:
    from sklearn_wsl_gpu.crossvalidation import take
    from sklearn_wsl_gpu.parallel import carried, uses_processes

    @functools.wraps(raw)
    def call(self: Any, iterable: Any) -> Any:
        frame = active()
        if frame is None:
            return raw(self, iterable)
        taken = take(frame, iterable, draws=not uses_processes(self), jobs=getattr(self, "n_jobs", None))
        results = taken.results
        if results is None:
            with taken.around:
                # Now, not later: the tasks are made in joblib's own threads.
                return raw(self, carried(self, taken.tasks))
        if getattr(self, "verbose", 0) and not uses_processes(self):
            # joblib tells of its tasks: of such as have nothing to do any more.
            return raw(self, (parallel.delayed(_itself)(result) for result in results))
        return results

    return call


def _itself(value: Any) -> Any:
    return value


def _lend_data(raw: Callable[..., Any]) -> Callable[..., Any]:
    from sklearn_wsl_gpu.crossvalidation import runs_foreign_code
    from sklearn_wsl_gpu.lending import lending, stop

    @functools.wraps(raw)
    def fit(self: Any, X: Any, y: Any = None, **params: Any) -> Any:
        if active() is None:
            return raw(self, X, y, **params)
        with lending():
            if runs_foreign_code(self):
                stop()
            return raw(self, X, y, **params)

    return fit


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork)
