"""Functions that may be offloaded: the metrics that scikit-learn computes by the array API.

References
----------
https://scikit-learn.org/1.9/modules/array_api.html
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Function:
    """A function that may be offloaded.

    Attributes
    ----------
    path : str
        Its public path, such as ``"sklearn.metrics.r2_score"``.
    only : mapping of str to tuple
        Parameters that may only have these values.
    doubles : bool
        Whether it computes in double precision, whatever it is given.
    """

    path: str
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    doubles: bool = False

    @property
    def name(self) -> str:
        """What it is called: its path within scikit-learn."""
        return self.path.removeprefix("sklearn.")

    @cached_property
    def function(self) -> Any:
        """The function, or None where this version of scikit-learn does not have it."""
        module, _, name = self.path.rpartition(".")
        return getattr(importlib.import_module(module), name, None)

    def objection(self, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> str | None:
        """Return in words why it is not computed with these arguments, or None."""
        if not self.only:
            return None
        given = inspect.signature(self.function).bind(*arguments, **keywords)
        given.apply_defaults()
        for name, allowed in self.only.items():
            value = given.arguments[name]
            if not isinstance(value, type(allowed[0])) or value not in allowed:
                return f"{name}={value!r:.60} is not supported"
        return None


_DISTANCES = ("euclidean", "l2", "l1", "manhattan", "cityblock", "cosine")
_KERNELS = (
    "linear", "rbf", "laplacian", "poly", "polynomial", "sigmoid", "cosine", "chi2", "additive_chi2",
)  # fmt: skip
_PLAIN = (
    "accuracy_score average_precision_score balanced_accuracy_score brier_score_loss calinski_harabasz_score "
    "cohen_kappa_score confusion_matrix d2_absolute_error_score d2_brier_score d2_log_loss_score d2_pinball_score "
    "d2_tweedie_score davies_bouldin_score det_curve explained_variance_score f1_score fbeta_score hamming_loss "
    "jaccard_score log_loss max_error mean_absolute_error mean_absolute_percentage_error mean_gamma_deviance "
    "mean_pinball_loss mean_poisson_deviance mean_squared_error mean_squared_log_error mean_tweedie_deviance "
    "median_absolute_error multilabel_confusion_matrix precision_recall_curve precision_recall_fscore_support "
    "precision_score r2_score recall_score root_mean_squared_error root_mean_squared_log_error zero_one_loss"
)
_PAIRWISE = (
    "additive_chi2_kernel chi2_kernel cosine_distances cosine_similarity euclidean_distances linear_kernel "
    "paired_cosine_distances paired_euclidean_distances paired_manhattan_distances polynomial_kernel rbf_kernel "
    "sigmoid_kernel"
)

#: Every function by its name.
FUNCTIONS: dict[str, Function] = {
    function.name: function
    for function in (
        *[Function(f"sklearn.metrics.{name}") for name in _PLAIN.split()],
        *[Function(f"sklearn.metrics.pairwise.{name}") for name in _PAIRWISE.split()],
        Function("sklearn.metrics.pairwise.laplacian_kernel", doubles=True),
        Function("sklearn.metrics.pairwise.manhattan_distances", doubles=True),
        # Dropping is by a function that no namespace of the standard has as it is called.
        Function("sklearn.metrics.roc_curve", {"drop_intermediate": (False,)}),
        Function("sklearn.metrics.cluster.entropy"),
        Function("sklearn.metrics.pairwise_distances", {"metric": _DISTANCES}),
        Function("sklearn.metrics.pairwise_distances_argmin", {"metric": _DISTANCES}),
        Function("sklearn.metrics.pairwise.pairwise_kernels", {"metric": _KERNELS}),
    )
}
