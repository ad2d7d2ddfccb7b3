"""What one engine computes of one estimator: the parts that its table is made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from sklearn_wsl_gpu.support.request import Request

#: Kinds of dtypes that are text or objects.
TEXT = "OUSMmV"


class Limit(NamedTuple):
    """A condition that a call has to fulfil.

    Attributes
    ----------
    words : str
        The condition as the documentation says it.
    objection : callable
        Given a request, returns in words why it does not fulfil the condition, or None.
    """

    words: str
    objection: Callable[[Request], str | None]


class CallLimit(NamedTuple):
    """A condition on what a call is given, that is known only where the arrays are: the worker checks it.

    Attributes
    ----------
    words : str
        The condition as the documentation says it.
    objection : callable
        Given the method and its arguments by name, returns in words why they do not fulfil the condition, or None.
    """

    words: str
    objection: Callable[[str, Mapping[str, Any]], str | None]


class Release(NamedTuple):
    """A release of a package that an entry holds for.

    Attributes
    ----------
    package : str
    number : tuple of int
        The first two numbers of its version.
    alone : bool
        Whether later ones are not taken.
    """

    package: str
    number: tuple[int, int]
    alone: bool = False

    @property
    def words(self) -> str:
        """The condition as the documentation says it."""
        text = f"{self.package} {'.'.join(map(str, self.number))}"
        return text if self.alone else f"{text} or later"

    def objection(self, version: str) -> str | None:
        """Return in words why a version that is installed does not fulfil the condition, or None."""
        found = tuple(int(number) for number in re.findall(r"[0-9]+", version)[:2])
        if found == self.number or (found > self.number and not self.alone):
            return None
        return f"it needs {self.words}, and this is {version}."


class Entry(NamedTuple):
    """An estimator that an engine computes.

    Attributes
    ----------
    limits : tuple of Limit
        What has to be so, the first that is not is the reason.
    without : str
        Methods, separated by spaces, that the engine does not have.
    sparse : bool
        Whether X may be sparse.
    text : str
        Arguments, separated by spaces, that may be text or objects.
    dtypes : frozenset of str or None
        Names of the dtypes that numbers may have; None for all.
    call_limits : tuple of CallLimit
        What has to be so of the arguments themselves.
    lost : str
        Attributes, separated by spaces, that a fit there cannot leave.
    single : bool
        Whether it computes in single precision, whatever the precision of X is.
    releases : tuple of Release
        Of the packages on the worker's side.
    """

    limits: tuple[Limit, ...] = ()
    without: str = ""
    sparse: bool = False
    text: str = ""
    dtypes: frozenset[str] | None = None
    call_limits: tuple[CallLimit, ...] = ()
    lost: str = ""
    single: bool = False
    releases: tuple[Release, ...] = ()

    def objection_to_versions(self, versions: Mapping[str, str]) -> str | None:
        """Return in words why it cannot be computed with these versions of packages, by name, or None."""
        found = (release.objection(versions[release.package]) for release in self.releases)
        return next((words for words in found if words is not None), None)

    def objection(self, request: Request) -> str | None:
        """Return in words why a call cannot be computed, or None."""
        if request.method in self.without.split():
            return f"{request.method} is not computed there"
        for name, fact in request.facts.items():
            if fact.kind == "sparse" and not (self.sparse and name == "X"):
                return f"sparse {name} is not taken"
            if fact.dtype[1] in TEXT:
                if name not in self.text.split():
                    return f"{name} that is text or objects is not taken"
            elif self.dtypes is not None and (dtype := np.dtype(fact.dtype).name) not in self.dtypes:
                return f"{name} of dtype {dtype} is not taken"
        return next((words for limit in self.limits if (words := limit.objection(request)) is not None), None)

    def objection_to_call(self, method: str, given: Mapping[str, Any]) -> str | None:
        """Return in words why a call cannot be computed with these very arguments, or None."""
        found = (limit.objection(method, given) for limit in self.call_limits)
        return next((words for words in found if words is not None), None)


def only(**allowed: Any) -> Limit:
    """Limit parameters to some values each."""

    def objection(request: Request) -> str | None:
        for name, values in allowed.items():
            value = request.parameters.get(name, values[0])
            if not any(value is one or (type(value) is type(one) and value == one) for one in values):
                return f"{name}={value!r:.60} is not supported"
        return None

    words = [
        f"{name}={values[0]!r}" if len(values) == 1 else f"{name} in {', '.join(map(repr, values))}"
        for name, values in allowed.items()
    ]
    return Limit("; ".join(words), objection)
