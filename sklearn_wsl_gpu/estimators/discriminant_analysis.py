"""Rows for `sklearn.discriminant_analysis`."""

from sklearn_wsl_gpu.estimators.row import Row

ROWS = (
    Row(
        "sklearn.discriminant_analysis.LinearDiscriminantAnalysis",
        "fit transform fit_transform predict predict_proba predict_log_proba decision_function score",
    ),
)
