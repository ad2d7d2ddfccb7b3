"""What may be offloaded: a table, one module for each module of scikit-learn. Adding an estimator is one row.

Estimators of other packages are found by `third_party`.
"""

from __future__ import annotations

from sklearn_wsl_gpu.estimators import (
    cluster,
    covariance,
    decomposition,
    discriminant_analysis,
    ensemble,
    kernel_approximation,
    kernel_ridge,
    linear_model,
    manifold,
    mixture,
    naive_bayes,
    neighbors,
    preprocessing,
    svm,
    third_party,
)
from sklearn_wsl_gpu.estimators.row import METHODS, Method, Row

__all__ = ["METHODS", "ROWS", "Method", "Row", "find", "third_party"]


def _merge() -> dict[str, Row]:
    merged: dict[str, Row] = {}
    for module in (
        linear_model, svm, cluster, decomposition, ensemble, neighbors, kernel_ridge, kernel_approximation, manifold,
        mixture, naive_bayes, discriminant_analysis, covariance, preprocessing,
    ):  # fmt: skip
        for row in module.ROWS:
            if row.name in merged:
                raise ValueError(f"Two rows are about {row.name}.")
            merged[row.name] = row
    return merged


#: Every row of scikit-learn by the name of its class.
ROWS: dict[str, Row] = _merge()


def find(name: str) -> Row | None:
    """Return the row of a name, or None: of scikit-learn, or registered by another package."""
    return ROWS.get(name) or third_party.find(name)
