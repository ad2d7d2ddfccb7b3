"""Rows for `sklearn.ensemble`."""

from sklearn_wsl_gpu.estimators.row import Row

ROWS = (
    Row(
        "sklearn.ensemble.RandomForestClassifier",
        "fit predict predict_proba predict_log_proba apply decision_path score",
    ),
    Row("sklearn.ensemble.RandomForestRegressor", "fit predict apply decision_path score"),
    Row("sklearn.ensemble.IsolationForest", "fit predict fit_predict decision_function score_samples", targetless=True),
)
