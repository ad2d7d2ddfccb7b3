"""TargetEncoder on a device. cuML's own smooths ``smooth="auto"`` by a constant, and folds by other random numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.utils.multiclass import type_of_target

from wsl_worker.engines.cuml.parts import to_host

Array = Any


def encode(xp: Any, codes: Array, y: Array, categories: int, smooth: float | str) -> Array:
    """Return the mean target of each category, drawn to the overall mean.

    Parameters
    ----------
    xp : module
        numpy, or a namespace like it.
    codes : array of int
        The category of each sample.
    y : array of float
    categories : int
        How many there are.
    smooth : float or "auto"
        How much weight the overall mean has, in samples; by itself from the variances within and between categories.

    References
    ----------
    Micci-Barreca: A preprocessing scheme for high-cardinality categorical attributes, SIGKDD Explorations 3 (2001).
    """
    overall = xp.mean(y)
    counts = xp.bincount(codes, minlength=categories).astype(np.float64)
    sums = xp.bincount(codes, weights=y, minlength=categories)
    if smooth != "auto":
        weights = counts + smooth
        return xp.where(weights > 0, (sums + smooth * overall) / xp.where(weights > 0, weights, 1), overall)
    filled = xp.maximum(counts, 1)
    means = sums / filled
    within = xp.bincount(codes, weights=(y - means[codes]) ** 2, minlength=categories) / filled
    between = xp.var(y) * counts
    total = between + within
    share = between / xp.where(total > 0, total, 1)
    return xp.where((counts > 0) & (total > 0), share * means + (1 - share) * overall, overall)


class TargetEncoder:
    """Looks like a model of cuML.

    Parameters
    ----------
    xp : module
        numpy, or a namespace like it, of the device.
    parameters : mapping of str to object
        The user's.
    """

    def __init__(self, xp: Any, parameters: Mapping[str, Any]) -> None:
        self._xp = xp
        self._parameters = parameters
        self.fitted: dict[str, Any] = {}

    def fit(self, X: Any, y: Any) -> TargetEncoder:
        """Learn the encoding of each category."""
        self._fit(np.asarray(X), np.asarray(y))
        return self

    def fit_transform(self, X: Any, y: Any) -> Array:
        """Learn the encodings, and encode each fold by those of the other folds."""
        X, y = np.asarray(X), np.asarray(y)
        columns, target = self._fit(X, y)
        encoded = self._xp.empty(X.shape, dtype=np.float64)
        for fold in self._folds().split(X, y):
            train, test = map(self._xp.asarray, fold)
            for number, (codes, count) in enumerate(columns):
                found = encode(self._xp, codes[train], target[train], count, self._parameters["smooth"])
                encoded[test, number] = found[codes[test]]
        return to_host(encoded)

    def transform(self, X: Any) -> Array:
        """Encode; what was not there at the fit becomes the overall mean."""
        X = np.asarray(X)
        encoded = self._xp.empty(X.shape, dtype=np.float64)
        for number, categories in enumerate(self.fitted["categories_"]):
            xp = np if categories.dtype.kind in "OUS" else self._xp
            column, known = xp.asarray(X[:, number]), xp.asarray(categories)
            places = xp.minimum(xp.searchsorted(known, column), len(known) - 1)
            is_known = self._xp.asarray(known[places] == column)
            values = self._xp.asarray(self.fitted["encodings_"][number])[self._xp.asarray(places)]
            encoded[:, number] = self._xp.where(is_known, values, float(self.fitted["target_mean_"]))
        return to_host(encoded)

    def _fit(self, X: Any, y: Any) -> tuple[list[tuple[Array, int]], Array]:
        kind = self._parameters["target_type"]
        kind = type_of_target(y, input_name="y") if kind == "auto" else kind
        classes = None
        if kind == "binary":
            classes, y = np.unique(y, return_inverse=True)
        target = self._xp.asarray(y.astype(np.float64))
        columns, categories, encodings = [], [], []
        for number in range(X.shape[1]):
            xp = np if X.dtype.kind in "OUS" else self._xp
            known, codes = xp.unique(xp.asarray(X[:, number]), return_inverse=True)
            columns.append((self._xp.asarray(codes), len(known)))
            categories.append(to_host(known))
            encodings.append(to_host(encode(self._xp, columns[-1][0], target, len(known), self._parameters["smooth"])))
        self.fitted = {
            "_infrequent_enabled": False,
            "n_features_in_": X.shape[1],
            "categories_": categories,
            "target_type_": kind,
            "classes_": classes,
            "target_mean_": np.float64(to_host(target.mean())),
            "encodings_": encodings,
        }
        return columns, target

    def _folds(self) -> Any:
        splitter = KFold if self.fitted["target_type_"] == "continuous" else StratifiedKFold
        # Since scikit-learn 1.9 both say by default that they are deprecated, and mean what they meant.
        shuffle, seed = self._parameters["shuffle"], self._parameters["random_state"]
        seed = None if isinstance(seed, str) else seed
        return splitter(self._parameters["cv"], shuffle=bool(shuffle), random_state=seed)
