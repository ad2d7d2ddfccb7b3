"""The private functions of scikit-learn that this package calls, in one place, for every supported version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sklearn
from sklearn.base import clone
from sklearn.model_selection._search import BaseSearchCV
from sklearn.model_selection._validation import _fit_and_predict, _fit_and_score
from sklearn.utils._available_if import _AvailableIfDescriptor
from sklearn.utils._set_output import _get_output_config, _wrap_data_with_container
from sklearn.utils.validation import _check_feature_names, _get_feature_names

try:
    from sklearn.callback import ProgressBar
    from sklearn.callback._callback_support import callback_management_context
except ImportError:  # before scikit-learn 1.9
    ProgressBar = callback_management_context = None

try:
    from sklearn._loss.loss import HalfPoissonLoss, HalfPoissonLossArrayAPI
    from sklearn.utils._array_api import get_namespace_and_device, move_to
except ImportError:  # before scikit-learn 1.9
    HalfPoissonLoss = HalfPoissonLossArrayAPI = get_namespace_and_device = move_to = None

__all__ = [
    "SETTINGS",
    "AvailableIf",
    "BaseSearchCV",
    "HalfPoissonLoss",
    "HalfPoissonLossArrayAPI",
    "ProgressBar",
    "callback_management_context",
    "changed_settings",
    "check_feature_names",
    "clone",
    "config_context",
    "feature_names",
    "fit_and_predict",
    "fit_and_score",
    "get_namespace_and_device",
    "has_container",
    "has_valid_parameters",
    "is_output_configured",
    "is_output_wrapped",
    "merged_context",
    "move_to",
    "validates_like",
    "wrap_output",
]

AvailableIf: Any = _AvailableIfDescriptor
fit_and_score: Callable[..., Any] = _fit_and_score
fit_and_predict: Callable[..., Any] = _fit_and_predict
feature_names: Callable[[Any], Any] = _get_feature_names
check_feature_names: Callable[..., None] = _check_feature_names
wrap_output: Callable[..., Any] = _wrap_data_with_container
config_context: Callable[..., Any] = sklearn.config_context

#: Names of the settings that this scikit-learn has.
SETTINGS = frozenset(sklearn.get_config())

#: Settings about output and display, which are served on this side.
_LOCAL_SETTINGS = frozenset({"transform_output", "display", "print_changed_only"})
_DEFAULTS = {
    "assume_finite": False,
    "working_memory": 1024,
    "pairwise_dist_chunk_size": 256,
    "enable_cython_pairwise_dist": True,
    "skip_parameter_validation": False,
    "sparse_interface": "spmatrix",
    "array_api_dispatch": False,
    "enable_metadata_routing": False,
}


def merged_context(leaf: Any, estimator: Any, **task: Any) -> Any:
    """Return the context of a part's own fit, which takes the place of the task of its whole, as scikit-learn does it.

    Parameters
    ----------
    leaf : CallbackContext
        Of the task of the whole.
    estimator : estimator
        The part.
    **task
        Name and kind of the part's task.
    """
    estimator._skl_callbacks, estimator._parent_callback_ctx = leaf._callbacks, leaf
    return type(leaf)._from_estimator(estimator, task_id=0, **task)


def changed_settings() -> list[list[Any]]:
    """Return scikit-learn's settings that a worker must know, where they are not the defaults."""
    settings = sklearn.get_config()
    return [
        [name, value]
        for name, value in settings.items()
        if name not in _LOCAL_SETTINGS and value != _DEFAULTS.get(name, value)
    ]


def is_output_configured() -> bool:
    """Tell whether transformers give something else than what scikit-learn computes, by its settings."""
    return bool(sklearn.get_config().get("transform_output", "default") != "default")


def has_container(estimator: Any) -> bool:
    """Tell whether `set_output`, or scikit-learn's settings, ask for the output of a transformer in a container."""
    return bool(_get_output_config("transform", estimator)["dense"] != "default")


def is_output_wrapped(function: Any) -> bool:
    """Tell whether `set_output` acts on a method, by the wrapper that scikit-learn put around it."""
    while function is not None:
        if getattr(function, "__code__", None) is not None and "_set_output" in function.__code__.co_filename:
            return True
        function = getattr(function, "__wrapped__", None)
    return False


def has_valid_parameters(estimator: Any) -> bool:
    """Tell whether an estimator's parameters are as its class wants them."""
    try:
        estimator._validate_params()
    except Exception:  # of a user's subclass: scikit-learn tells what it is, here
        return False
    return True


def validates_like(cls: Any, estimator: Any, *, target: bool) -> bool:
    """Tell whether the tags of an estimator of a subclass have its data, and its target, validated as a class does."""
    if type(estimator).__sklearn_tags__ is cls.__sklearn_tags__:
        return True
    own, inherited = estimator.__sklearn_tags__(), cls.__sklearn_tags__(estimator)
    names = ("input_tags", "no_validation", *(("target_tags",) if target else ()))
    return all(getattr(own, name) == getattr(inherited, name) for name in names)
