"""Limits of one parameter each, for the tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn_wsl_gpu.support.entry import Limit
from sklearn_wsl_gpu.support.request import Request


def value(name: str, words: str, fits: Callable[[Any], bool]) -> Limit:
    """Limit a parameter by a function of its value; an older scikit-learn may lack the parameter."""

    def objection(request: Request) -> str | None:
        is_fit = name not in request.parameters or fits(request.parameters[name])
        return None if is_fit else f"{name}={request.parameters[name]!r:.60} is not supported"

    return Limit(words, objection)


def off(name: str) -> Limit:
    """Limit a parameter to what is false."""
    return value(name, f"{name} not set", lambda given: not given)


def equal(name: str, wanted: Any) -> Limit:
    """Limit a parameter to one value."""
    return value(name, f"{name}={wanted!r}", lambda given: not getattr(given, "shape", ()) and given == wanted)


def none_of(name: str, *others: Any) -> Limit:
    """Limit a parameter to other values than these."""
    words = f"{name} not {', '.join(map(repr, others))}"
    return value(name, words, lambda given: not any(type(given) is type(other) and given == other for other in others))


def named(name: str, *allowed: str) -> Limit:
    """Limit a parameter to some names."""
    words = f"{name}={allowed[0]!r}" if len(allowed) == 1 else f"{name} in {', '.join(map(repr, allowed))}"
    return value(name, words, lambda given: isinstance(given, str) and given in allowed)


def no_function(name: str) -> Limit:
    """Limit a parameter to what is no function."""
    return value(name, f"{name} not a function", lambda given: not callable(given))


def start(*names: str) -> Limit:
    """Limit the parameter ``init`` to some names, and arrays."""

    def fits(given: Any) -> bool:
        return given in names if isinstance(given, str) else not callable(given)

    return value("init", f"init {', '.join(map(repr, names))} or an array", fits)
