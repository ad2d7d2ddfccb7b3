"""Scores that look at predictions only: of predictions in numpy, by scikit-learn itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.neighbors import KNeighborsClassifier

#: A score, and the one that it is of predictions: some only look whether there are data.
_SCORES = {
    ClassifierMixin.score: ClassifierMixin.score,
    RegressorMixin.score: RegressorMixin.score,
    KNeighborsClassifier.score: ClassifierMixin.score,
}


class _Predicted:
    """Stands in for an estimator whose predictions are known."""

    def __init__(self, predicted: Any) -> None:
        self._predicted = predicted

    def predict(self, X: Any) -> Any:
        return self._predicted


def is_of_predictions(cls: Any) -> bool:
    """Tell whether the score of a class is one of its predictions."""
    return getattr(cls, "score", None) in _SCORES


def score(cls: Any, predict: Callable[[Any], Any], arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """Return the score of a class, given how its estimator predicts and the arguments of the call."""
    X = arguments[0] if arguments else keywords["X"]
    return _SCORES[cls.score](_Predicted(predict(X)), *arguments, **keywords)
