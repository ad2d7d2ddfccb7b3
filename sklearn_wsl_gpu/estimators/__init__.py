"""What may be offloaded: a table, one module for each module of scikit-learn. Adding an estimator is one row."""

from __future__ import annotations

from sklearn_wsl_gpu.estimators import (
    cluster,
    covariance,
    decomposition,
    ensemble,
    kernel_ridge,
    linear_model,
    manifold,
    neighbors,
    preprocessing,
    svm,
)
from sklearn_wsl_gpu.estimators.row import METHODS, Method, Row

__all__ = ["METHODS", "ROWS", "Method", "Row"]


def _merge() -> dict[str, Row]:
    merged: dict[str, Row] = {}
    for module in (
        linear_model, svm, cluster, decomposition, ensemble, neighbors, kernel_ridge, manifold, covariance,
        preprocessing,
    ):  # fmt: skip
        for row in module.ROWS:
            if row.name in merged:
                raise ValueError(f"Two rows are about {row.name}.")
            merged[row.name] = row
    return merged


#: Every row by the name of its class.
ROWS: dict[str, Row] = _merge()
