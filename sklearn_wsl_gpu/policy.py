"""Whether a call that could be offloaded should be: a pure function of facts."""

from __future__ import annotations

from typing import NamedTuple

from sklearn_wsl_gpu.config import Settings
from sklearn_wsl_gpu.errors import Reason
from sklearn_wsl_gpu.predictions import Prediction


class Facts(NamedTuple):
    """What is known of a call before anything is converted or sent.

    Attributes
    ----------
    estimator : str
        Name of the row.
    override : str or None
        What the object, or a subclass of the row's class, has of its own that may change what is computed.
    elements : int or None
        Number of elements of the first argument; None if it has none to count.
    in_place : bool
        Whether the caller allows the method to overwrite its array.
    has_callbacks : bool
        Whether callbacks of scikit-learn watch a fit that need more of it than a worker tells.
    """

    estimator: str
    override: str | None
    elements: int | None
    in_place: bool
    has_callbacks: bool


#: Codes of the reasons that are as they should be, because the user chose so or because a class is none of the
#: table: they give no warning, and are no error.
CHOSEN = frozenset({"excluded", "not-included", "below-min-elements", "overridden", "stays-cheaper"})


def reason_to_stay(settings: Settings, facts: Facts) -> Reason | None:
    """Return why a call stays local, or None if it may go."""
    name = facts.estimator
    if settings.exclude is not None and name in settings.exclude:
        return Reason("excluded", f"{name} is in exclude.")
    if settings.include is not None and name not in settings.include:
        return Reason("not-included", f"{name} is not in include.")
    if facts.override is not None:
        words = f"This {name} has a {facts.override} of its own, by its class or by itself, that no worker knows."
        return Reason("overridden", words)
    if facts.elements is not None and facts.elements < settings.min_elements:
        return Reason("below-min-elements", f"Fewer than min_elements={settings.min_elements} elements.")
    if facts.in_place:
        return Reason("in-place", f"{name} with these parameters may overwrite the caller's own array.")
    if facts.has_callbacks:
        return Reason("callbacks", f"{name} has callbacks that look at more than its progress; they run here.")
    return None


def cheaper_here(prediction: Prediction | None) -> Reason | None:
    """Return why a call stays that may go: because that is not expected to pay; None if it is, or nobody asks."""
    if prediction is None or not prediction.stays:
        return None
    return Reason("stays-cheaper", prediction.words, varies=True)
