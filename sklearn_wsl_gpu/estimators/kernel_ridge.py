"""Rows for `sklearn.kernel_ridge`."""

from sklearn_wsl_gpu.estimators.row import Row

ROWS = (Row("sklearn.kernel_ridge.KernelRidge", "fit predict score", keeps_input=True),)
