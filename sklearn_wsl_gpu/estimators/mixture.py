"""Rows for `sklearn.mixture`."""

from sklearn_wsl_gpu.estimators.row import Row

ROWS = (
    Row(
        "sklearn.mixture.GaussianMixture",
        "fit fit_predict predict predict_proba score score_samples",
        targetless=True,
    ),
)
