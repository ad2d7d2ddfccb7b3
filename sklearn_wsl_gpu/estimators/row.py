"""One row of the table of what may be offloaded."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

#: Below this size a result is not computed where X lies.
MIN_OVERWRITTEN_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Method:
    """Facts about a method, the same for every estimator that has it.

    Attributes
    ----------
    fits : bool
        Whether it changes the fitted state.
    names : str
        Whether it sets, checks or ignores ``feature_names_in_``.
    """

    fits: bool
    names: Literal["set", "check", "ignore"]


METHODS: dict[str, Method] = {
    **dict.fromkeys(("fit", "partial_fit", "fit_predict", "fit_transform"), Method(True, "set")),
    **dict.fromkeys(
        (
            "predict", "predict_proba", "predict_log_proba", "predict_joint_log_proba", "decision_function",
            "transform", "score", "score_samples", "kneighbors", "kneighbors_graph", "radius_neighbors",
            "radius_neighbors_graph", "apply", "decision_path", "mahalanobis",
        ),
        Method(False, "check"),
    ),
    **dict.fromkeys(("inverse_transform", "error_norm"), Method(False, "ignore")),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """An estimator that may be offloaded.

    Attributes
    ----------
    path : str
        Public path of the class, such as ``"sklearn.cluster.KMeans"`` or ``"umap.UMAP"``.
    methods : str
        Its methods that compute on data, separated by spaces; each one is a key of `METHODS`.
    keeps_input : bool
        Whether a fitted estimator holds the very array it was fitted on. The worker then fits on a copy of
        its own, because the span it was sent in is reused.
    refits : bool
        Whether ``fit`` looks at, or removes, attributes of an earlier fit, so that these must travel too.
    rewrites : str
        Parameters and what else the constructor sets, separated by spaces, that the class's own ``fit`` changes.
    named : bool
        Whether it knows the names of X's columns (label encoders do not).
    by_column : bool
        Whether it looks at a DataFrame column by column, and so at the dtype of each.
    widens : bool
        Whether it computes in double precision, and gives back what it has learned in X's own, which a table has not.
    targetless : bool
        Whether y, where a method takes it, is not looked at.
    in_place : str
        Parameters, separated by spaces, that allow the estimator to overwrite the caller's array when False;
        ``copy@metric=precomputed`` says: only if the parameter ``metric`` is ``"precomputed"``, and
        ``@metric=precomputed&method=exact``: always if both are so.
    overwrites : str
        Methods, separated by spaces, that give back the very array they are given, overwritten, if a parameter that
        `in_place` names without a condition is False. What a worker was sent is its own to overwrite.
    unchecked : str
        Methods, separated by spaces, that compute with a DataFrame itself; ``inverse_transform<1.8`` says: before
        version 1.8 of its package, and ``fit@cv``: if the parameter ``cv`` is not None.
    functions : str
        Modules, separated by spaces, whose functions a fitted estimator may hold; they travel by name.
    declined : callable or None
        Given method, parameters and the shapes of the arrays of a call, returns in words why an engine that computes
        with the class itself cannot do it, or None: for what is too well hidden in the fitted state to travel.
    """

    path: str
    methods: str
    keeps_input: bool = False
    refits: bool = False
    rewrites: str = ""
    named: bool = True
    by_column: bool = False
    widens: bool = False
    targetless: bool = False
    in_place: str = ""
    overwrites: str = ""
    unchecked: str = ""
    functions: str = ""
    declined: Callable[[str, Mapping[str, Any], Sequence[tuple[int, ...]]], str | None] | None = None

    def __post_init__(self) -> None:
        unknown = set(self.methods.split()) - set(METHODS)
        if unknown:
            raise ValueError(f"{self.path} names methods that METHODS does not have: {sorted(unknown)}.")

    @cached_property
    def name(self) -> str:
        """What the estimator is called: the name of a class of scikit-learn, the path of any other."""
        return self.path.rpartition(".")[2] if self.package == "sklearn" else self.path

    @cached_property
    def package(self) -> str:
        """The top-level package of the class."""
        return self.path.partition(".")[0]

    def works_in_place(self, estimator: Any) -> bool:
        """Tell whether an estimator's parameters allow it to overwrite the caller's array."""
        for entry in self.in_place.split():
            parameter, _, conditions = entry.partition("@")
            wanted = [condition.partition("=") for condition in conditions.split("&") if condition]
            copies = getattr(estimator, parameter, True) if parameter else False
            may = not copies or copies == "warn"
            if may and all(getattr(estimator, name, None) == value for name, _, value in wanted):
                return True
        return False

    def draws_globally(self, estimator: Any) -> bool:
        """Tell whether an estimator takes random numbers, if any, from numpy's global generator."""
        seed = getattr(estimator, "random_state", 0)
        # A word says that the parameter is deprecated, and means what None meant.
        return seed is None or isinstance(seed, str)

    @cached_property
    def copying(self) -> tuple[str, ...]:
        """Parameters that, being False, allow it to overwrite the caller's array whatever the others are."""
        return tuple(entry for entry in self.in_place.split() if "@" not in entry)

    def checks_input(self, method: str, estimator: Any) -> bool:
        """Tell whether a method makes an array of what it is given, in the version of its package that runs here."""
        for entry in self.unchecked.split():
            condition, _, parameter = entry.partition("@")
            name, _, before = condition.partition("<")
            if name == method and (not parameter or getattr(estimator, parameter, None) is not None):
                here = importlib.import_module(self.package).__version__
                return bool(before) and _major_minor(here) >= _major_minor(before)
        return True

    @cached_property
    def method_names(self) -> tuple[str, ...]:
        """Its methods, in the order of the row."""
        return tuple(self.methods.split())

    @cached_property
    def cls(self) -> type[Any] | None:
        """The class, or None where this version of scikit-learn does not have it."""
        module, _, name = self.path.rpartition(".")
        return getattr(importlib.import_module(module), name, None)

    @cached_property
    def initial_names(self) -> frozenset[str]:
        """Names of the attributes that an estimator has before it is fitted."""
        assert self.cls is not None
        return frozenset(vars(self.cls()))

    @cached_property
    def untouched(self) -> frozenset[str]:
        """Names of the attributes that no fit changes: parameters, and what the constructor leaves beside them."""
        return (self.parameters | self.initial_names) - set(self.rewrites.split())

    @cached_property
    def parameters(self) -> frozenset[str]:
        """Names of the constructor's parameters."""
        assert self.cls is not None
        return frozenset(self.cls._get_param_names())


@dataclass(frozen=True)
class Graph(Row):
    """A row whose estimators are made of others.

    Attributes
    ----------
    parts : str
        Parameter that holds its parts: a list of tuples whose second item is an estimator, or a word such as
        ``"passthrough"``; empty for none.
    rest : str
        Parameter that holds one more part, or the only one; empty for none.
    fits_parts : bool
        Whether ``fit`` fits the very objects that `parts` holds, and not clones of them.
    relists_parts : bool
        Whether such a fit leaves them in a new list.
    unfit : str
        A word in the place of a part with which ``fit`` leaves there what no worker knows; empty for none.
    """

    named: bool = False
    parts: str = ""
    rest: str = ""
    fits_parts: bool = False
    relists_parts: bool = False
    unfit: str = ""

    @cached_property
    def initial_names(self) -> frozenset[str]:
        """Names of the attributes that an estimator has before it is fitted."""
        return self.parameters  # it cannot be made without its parts

    def list_after_fit(self, entries: list[Any]) -> list[Any]:
        """Return the list that holds the parts after a fit of them."""
        return list(entries) if self.relists_parts else entries

    def parts_of(self, attributes: Mapping[str, Any]) -> list[Any] | None:
        """Return the estimators among its parts; None if they are not what a worker can take."""
        if not self.parts:
            only = attributes.get(self.rest)
            return None if only is None else [only]
        entries = attributes.get(self.parts)
        if not isinstance(entries, list) or not all(isinstance(one, tuple) and len(one) > 1 for one in entries):
            return None
        if self.unfit and any(isinstance(one[1], str) and one[1] == self.unfit for one in entries):
            return None
        found = [one[1] for one in entries] + [attributes.get(self.rest)]
        return [part for part in found if part is not None and not isinstance(part, str)]


def _major_minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
