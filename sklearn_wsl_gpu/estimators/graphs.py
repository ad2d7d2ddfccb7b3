"""Rows for estimators that are made of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sklearn_wsl_gpu.estimators.row import Graph


def _decline_calibration(method: str, parameters: Mapping[str, Any], shapes: Sequence[tuple[int, ...]]) -> str | None:
    if parameters.get("method") == "isotonic":
        return "what an isotonic calibration has found does not travel"
    if not isinstance(parameters.get("cv"), (int, type(None))):
        return "it is split here by the cv that it was given"
    return None


ROWS = (
    Graph(
        "sklearn.pipeline.Pipeline",
        "fit fit_transform fit_predict predict predict_proba predict_log_proba decision_function score_samples "
        "transform inverse_transform score",
        parts="steps",
        fits_parts=True,
        relists_parts=True,
    ),
    Graph(
        "sklearn.pipeline.FeatureUnion",
        "fit fit_transform transform",
        parts="transformer_list",
        fits_parts=True,
        unfit="passthrough",
    ),
    Graph(
        "sklearn.compose.ColumnTransformer",
        "fit fit_transform transform",
        parts="transformers",
        rest="remainder",
    ),
    Graph(
        "sklearn.calibration.CalibratedClassifierCV",
        "fit predict predict_proba",
        rest="estimator",
        declined=_decline_calibration,
    ),
)
