"""Plain scikit-learn takes every row, but for what its fitted state could not tell."""

from __future__ import annotations

from sklearn_wsl_gpu.support.request import Request


def objection(request: Request) -> str | None:
    """Return in words why a call cannot be computed, or None."""
    declined = request.row.declined
    return None if declined is None else declined(request.method, request.parameters, request.shapes)
