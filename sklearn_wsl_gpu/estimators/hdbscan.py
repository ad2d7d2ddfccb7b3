"""The row for hdbscan, the package; scikit-learn has an estimator of the same name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sklearn_wsl_gpu.estimators.row import Row


def _declined(method: str, parameters: Mapping[str, Any], shapes: Sequence[tuple[int, ...]]) -> str | None:
    for name in ("prediction_data", "branch_detection_data"):
        if parameters.get(name):
            return f"what an HDBSCAN keeps with {name}=True does not travel"
    return None


HDBSCAN = Row(
    "hdbscan.HDBSCAN",
    "fit fit_predict",
    keeps_input=True,
    # Its constructor sets them to None, and fit to what it finds.
    rewrites="_branch_detection_data _condensed_tree _finite_index _metric_kwargs _min_spanning_tree _outlier_scores "
    "_prediction_data _raw_data _relative_validity _single_linkage_tree",
    named=False,
    declined=_declined,
)
