"""Scorers of scikit-learn's own metrics: what each is made of, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sklearn.metrics
from sklearn.metrics._scorer import _MultimetricScorer, _PassthroughScorer, _Scorer

from sklearn_wsl_gpu.errors import RemoteProtocolError, Unsupported

_ENDINGS = ("_score", "_error", "_loss", "_deviance", "_coefficient", "_corrcoef", "_coef", "_variance")
#: The functions that a scorer may call, by name.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(sklearn.metrics, name) for name in sklearn.metrics.__all__ if name.endswith(_ENDINGS)
}
_RESPONSES = ("predict", "predict_proba", "decision_function")


def _take_scorer(scorer: Any) -> Sequence[Any]:
    function = scorer._score_func
    name = getattr(function, "__name__", "")
    if _FUNCTIONS.get(name) is not function:
        raise Unsupported(f"Scores by {name or function!r:.60}, which is none of scikit-learn's metrics, stay local.")
    if "_metadata_request" in vars(scorer):
        raise Unsupported("A scorer that requests metadata stays local.")
    return name, int(scorer._sign), dict(scorer._kwargs), scorer._response_method


def _put_scorer(name: Any, sign: Any, keywords: Any, response: Any) -> Any:
    responses = response if isinstance(response, (list, tuple)) else [response]
    is_known = type(name) is str and name in _FUNCTIONS and sign in (1, -1) and isinstance(keywords, Mapping)
    if not is_known or not responses or not all(one in _RESPONSES for one in responses):
        raise RemoteProtocolError("A scorer is malformed.")
    return _Scorer(_FUNCTIONS[name], sign, keywords, response)


def _take_several(scorer: Any) -> Sequence[Any]:
    return dict(scorer._scorers), bool(scorer._raise_exc)


def _put_several(scorers: Any, raises: Any) -> Any:
    if not isinstance(scorers, dict) or not all(type(one) in KIND_OF for one in scorers.values()):
        raise RemoteProtocolError("A set of scorers is malformed.")
    return _MultimetricScorer(scorers=scorers, raise_exc=bool(raises))


#: Class → name of its kind.
KIND_OF: dict[type[Any], str] = {_Scorer: "scorer", _MultimetricScorer: "scorers", _PassthroughScorer: "score"}
#: Name of a kind → how to take one apart, and how to put it together.
KINDS: dict[str, tuple[Callable[[Any], Sequence[Any]], Callable[..., Any]]] = {
    "scorer": (_take_scorer, _put_scorer),
    "scorers": (_take_several, _put_several),
    "score": (lambda scorer: (), lambda: _PassthroughScorer(None)),
}
