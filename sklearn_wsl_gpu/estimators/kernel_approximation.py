"""Rows for `sklearn.kernel_approximation`."""

from sklearn_wsl_gpu.estimators.row import Row

ROWS = (Row("sklearn.kernel_approximation.Nystroem", "fit transform fit_transform", targetless=True),)
