"""Rows for `sklearn.covariance`."""

from sklearn_wsl_gpu.estimators.row import Row

ROWS = (
    Row("sklearn.covariance.EmpiricalCovariance", "fit score mahalanobis error_norm", targetless=True),
    Row("sklearn.covariance.LedoitWolf", "fit score mahalanobis error_norm", targetless=True),
)
