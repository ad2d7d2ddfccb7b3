"""A worker computes with the class of the table: what a subclass, or the object itself, changes must not matter."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import lru_cache, partial, partialmethod
from types import CodeType
from typing import Any

from sklearn_wsl_gpu.estimators import Row

#: What a class may define without changing what its parent's methods compute. Whether its parameters are valid, and
#: its tags the same, is found out on this side.
_HARMLESS = frozenset(
    {
        "__abstractmethods__", "__annotate__", "__annotate_func__", "__annotations__", "__annotations_cache__",
        "__class_getitem__", "__dict__", "__doc__", "__firstlineno__", "__init__", "__init_subclass__", "__module__",
        "__orig_bases__", "__parameters__", "__qualname__", "__repr__", "__sklearn_tags__", "__static_attributes__",
        "__str__", "__type_params__", "__weakref__", "_abc_impl", "_parameter_constraints",
        "_sklearn_auto_wrap_output_keys",
    }
)  # fmt: skip


def find_override(cls: type[Any], row: Row, method: str) -> str | None:
    """Return what a subclass defines that may change what an inherited method computes; None if there is nothing.

    Parameters
    ----------
    cls : type
        The subclass of the row's class.
    row : Row
    method : str
        The method of the row that is called.

    Returns
    -------
    str or None
        The first such name. A private name always counts, whoever may use it; a public one does if the method
        can reach it.
    """
    base: Any = row.cls
    known, reached = _names(base), _reached(base, method)
    for parent in cls.__mro__:
        if parent in base.__mro__:
            continue
        for name, value in vars(parent).items():
            if name in _HARMLESS:
                continue
            if name in known and (name[0] == "_" or name in reached):
                return name
            if name in row.initial_names or (inspect.isdatadescriptor(value) and "_" in (name[0], name[-1])):
                return name  # stands where the estimator has an attribute
    return None


def find_own(estimator: Any, row: Row) -> str | None:
    """Return the name of something that was set on an estimator in place of what its class has; None for nothing."""
    base: Any = row.cls
    return next(iter(vars(estimator).keys() & _names(base)), None)


@lru_cache
def _names(cls: Any) -> frozenset[str]:
    return frozenset(dir(cls))


@lru_cache(maxsize=1024)
def _reached(cls: Any, method: str) -> frozenset[str]:
    """Return the names of the class that a method can come to use: those its code names, and the code of these."""
    names, waiting = {method}, [method]
    while waiting:
        name = waiting.pop()
        values = [vars(parent)[name] for parent in cls.__mro__ if name in vars(parent)]
        used = {word for value in values for code in _codes(value) for word in code.co_names}
        new = (used & _names(cls)) - names
        names |= new
        waiting += new
    return frozenset(names)


def _codes(value: Any) -> Iterator[CodeType]:
    waiting: list[Any] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, CodeType):
            yield item
            waiting += [constant for constant in item.co_consts if isinstance(constant, CodeType)]
        elif isinstance(item, property):
            waiting += [item.fget, item.fset, item.fdel]
        elif isinstance(item, (partial, partialmethod)):
            waiting.append(item.func)
        elif item is not None:
            function: Callable[..., Any] | None = getattr(item, "__func__", None) or getattr(item, "fn", None)
            waiting += [getattr(item, "__wrapped__", None), function, getattr(item, "__code__", None)]
