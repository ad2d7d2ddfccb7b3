"""What may be offloaded: a table, one module for each module of scikit-learn. Adding an estimator is one row.

Estimators of other packages are found by `third_party`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sklearn_wsl_gpu.estimators import (
    cluster,
    covariance,
    decomposition,
    discriminant_analysis,
    ensemble,
    graphs,
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
from sklearn_wsl_gpu.estimators.row import METHODS, MIN_OVERWRITTEN_BYTES, Graph, Method, Row

__all__ = [
    "GRAPHS",
    "METHODS",
    "MIN_OVERWRITTEN_BYTES",
    "ROWS",
    "Graph",
    "Method",
    "Row",
    "find",
    "row_of",
    "third_party",
    "walk",
]


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


#: Every row of an estimator of scikit-learn that is made of others, by the name of its class.
GRAPHS: dict[str, Graph] = {row.name: row for row in graphs.ROWS}


def find(name: str) -> Row | None:
    """Return the row of a name, or None: of scikit-learn, or registered by another package."""
    return ROWS.get(name) or GRAPHS.get(name) or third_party.find(name)


def row_of(cls: Any) -> Row | None:
    """Return the row of a class of scikit-learn, or None; a subclass has none."""
    row = ROWS.get(cls.__name__) or GRAPHS.get(cls.__name__)
    return row if row is not None and row.cls is cls else None


def walk(row: Row, attributes: Mapping[str, Any]) -> Iterator[tuple[Row | None, Any]]:
    """Yield row and estimator of everything that an estimator is made of, parts of parts included.

    A row of None stands for what is none of scikit-learn's table, or for parts that are not what they should be.
    """
    if not isinstance(row, Graph):
        return
    parts = row.parts_of(attributes)
    if parts is None:
        yield None, attributes.get(row.parts or row.rest)
    for part in parts or ():
        own = row_of(type(part))
        yield own, part
        if own is not None:
            yield from walk(own, vars(part))
