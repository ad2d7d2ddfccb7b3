"""Rows for `sklearn.naive_bayes`."""

from sklearn_wsl_gpu.estimators.row import Row

ROWS = (
    Row(
        "sklearn.naive_bayes.GaussianNB",
        "fit partial_fit predict predict_proba predict_log_proba predict_joint_log_proba score",
    ),
)
