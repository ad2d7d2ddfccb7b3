"""Rows for estimators that are made of others."""

from sklearn_wsl_gpu.estimators.row import Graph

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
)
