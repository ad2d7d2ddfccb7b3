"""The row for umap-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sklearn_wsl_gpu.estimators.row import Row

#: From so many rows on, umap-learn searches approximately.
_SMALL = 4096


def _declined(method: str, parameters: Mapping[str, Any], shapes: Sequence[tuple[int, ...]]) -> str | None:
    is_large = any(len(shape) > 1 and shape[0] >= _SMALL for shape in shapes)
    if "fit" in method and (is_large or parameters.get("force_approximation_algorithm")):
        return f"a UMAP fitted approximately, as from {_SMALL} rows on, holds a search index that does not travel"
    return None


UMAP = Row(
    "umap.UMAP",
    "fit fit_transform transform inverse_transform",
    keeps_input=True,
    rewrites="n_jobs tqdm_kwds",
    named=False,
    functions="umap.distances umap.sparse",
    declined=_declined,
)
