"""SVC for any number of classes, of binary ones, one for each pair of classes, in libsvm's layout.

cuML fits binary classifiers, and gives their coefficients with the second class as the positive one. libsvm keeps all
pairs in one matrix, with the first class as the positive one: support vectors are grouped by class, and the row of a
coefficient is the other class of its pair, counted without its own.

References
----------
Chang, Lin: LIBSVM, a library for support vector machines, sections 4.1 and 7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import _ovr_decision_function

from sklearn_wsl_gpu.errors import Unsupported

Array = np.ndarray[Any, Any]


class Binary(NamedTuple):
    """What a binary classifier found; its support vectors by their rows in the whole data."""

    support: Array
    coef: Array
    intercept: float
    iterations: int


def pairs(classes: int) -> list[tuple[int, int]]:
    """Return all pairs of classes in libsvm's order."""
    return [(i, j) for i in range(classes) for j in range(i + 1, classes)]


def assemble(found: Sequence[Binary], codes: Array, classes: int) -> dict[str, Array]:
    """Return what the binary classifiers found in libsvm's layout, by scikit-learn's names.

    Parameters
    ----------
    found : sequence of Binary
        One for each of `pairs`.
    codes : array of shape (n_samples,)
        The number of each sample's class.
    classes : int
    """
    support = np.unique(np.concatenate([one.support for one in found])).astype(np.int64)
    support = support[np.argsort(codes[support], kind="stable")]
    column = np.full(len(codes), -1)
    column[support] = np.arange(len(support))
    coef = np.zeros((classes - 1, len(support)))
    for (i, j), one in zip(pairs(classes), found, strict=True):
        row = np.where(codes[one.support] == i, j - 1, i)
        coef[row, column[one.support]] = -one.coef
    iterations = np.array([one.iterations for one in found], dtype=np.int32)
    return {
        "support_": support.astype(np.int32),
        "_n_support": np.bincount(codes[support], minlength=classes).astype(np.int32),
        "_dual_coef_": coef,
        "_intercept_": -np.array([one.intercept for one in found], dtype=np.float64),
        "_num_iter": iterations,
        "n_iter_": iterations.copy(),
    }


def split(coef: Array, intercept: Array, per_class: Array) -> Iterator[tuple[Array, Array, float]]:
    """Yield for each pair the columns of its support vectors, their coefficients and its intercept.

    The reverse of `assemble`, with the second class as the positive one.
    """
    owner = np.repeat(np.arange(len(per_class)), per_class)
    for number, (i, j) in enumerate(pairs(len(per_class))):
        row = np.where(owner == i, j - 1, i)
        own = coef[row, np.arange(len(owner))]
        columns = np.flatnonzero(((owner == i) | (owner == j)) & (own != 0))
        yield columns, -own[columns], -float(intercept[number])


def votes(decisions: Array, classes: int) -> Array:
    """Return the number of the class that wins most pairs, the first of those that are even."""
    won = np.zeros((len(decisions), classes))
    for number, (i, j) in enumerate(pairs(classes)):
        is_first = decisions[:, number] > 0
        won[:, i] += is_first
        won[:, j] += ~is_first
    return np.asarray(won.argmax(axis=1))


def gamma(X: Any, setting: Any, kernel: str) -> Any:
    """Return the kernel's coefficient for data and a setting, as scikit-learn computes it."""
    if kernel == "precomputed":
        return 0.0
    if setting == "auto":
        return 1.0 / X.shape[1]
    if setting != "scale":
        return setting
    is_sparse = scipy.sparse.issparse(X)
    variance = X.multiply(X).mean() - X.mean() ** 2 if is_sparse else X.astype(np.float64, copy=False).var()
    return 1.0 / (X.shape[1] * variance) if variance else 1.0


class PairwiseSVC:
    """Looks like a model of cuML, and holds one for each pair of classes.

    Parameters
    ----------
    make : callable
        Returns a new binary classifier of cuML, given parameters that differ from the user's.
    parameters : mapping of str to object
        The user's.
    """

    def __init__(self, make: Callable[..., Any], parameters: Mapping[str, Any]) -> None:
        self._make = make
        self._parameters = parameters
        self._binary: list[Any] = []
        self._classes = np.empty(0)
        self.fitted: dict[str, Any] = {}

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> PairwiseSVC:
        """Fit one classifier for each pair of classes, on its samples."""
        self._classes, codes = np.unique(np.ravel(y), return_inverse=True)
        count = len(self._classes)
        if count > 2 and self._parameters["kernel"] == "precomputed":
            words = "SVC by cuml: more than two classes are not taken with a precomputed kernel."
            raise Unsupported(words, "unsupported-by-engine")
        X = X.tocsr() if scipy.sparse.issparse(X) else np.asarray(X)
        per_class = compute_class_weight(self._parameters["class_weight"], classes=self._classes, y=np.ravel(y))
        weights = per_class[codes] if sample_weight is None else per_class[codes] * np.asarray(sample_weight)
        coefficient = gamma(X, self._parameters["gamma"], self._parameters["kernel"])
        self._binary, found, states = [], [], []
        for i, j in pairs(count):
            rows = np.flatnonzero((codes == i) | (codes == j))
            part = X if count == 2 else X[rows]
            binary = self._make(gamma=coefficient or "scale", class_weight=None)
            binary.fit(part, (codes[rows] == j).astype(np.int32), sample_weight=weights[rows])
            self._binary.append(binary)
            states.append(_state_of(binary))
            found.append(_as_binary(states[-1], rows))
        self.fitted = {
            **assemble(found, codes, count),
            "classes_": self._classes,
            "class_weight_": per_class.astype(np.float64),
            "fit_status_": max((int(state["fit_status_"]) for state in states), default=0),
            "shape_fit_": X.shape,
            "n_features_in_": X.shape[1],
            "_gamma": coefficient,
        }
        self._complete(X)
        return self

    def load(self, attributes: Mapping[str, Any]) -> None:
        """Take over what a classifier of scikit-learn has found."""
        if self._parameters["kernel"] == "precomputed":
            # scikit-learn keeps no support vectors then, which cuML counts.
            raise Unsupported(
                "SVC by cuml: a model fitted on a precomputed kernel is not taken over.", "unsupported-by-engine"
            )
        self.fitted = dict(attributes)
        self._classes = attributes["classes_"]
        vectors, coef = attributes["support_vectors_"], attributes["_dual_coef_"]
        coef = coef.toarray() if scipy.sparse.issparse(coef) else coef
        self._binary = []
        for columns, own, intercept in split(coef, attributes["_intercept_"], attributes["_n_support"]):
            dual = own[np.newaxis]
            part = SimpleNamespace(
                **{name: attributes[name] for name in ("shape_fit_", "n_features_in_", "fit_status_", "_gamma")},
                _sparse=attributes["_sparse"],
                dual_coef_=scipy.sparse.csr_matrix(dual) if attributes["_sparse"] else dual,
                support_vectors_=vectors[columns],
                support_=attributes["support_"][columns],
                intercept_=np.array([intercept]),
                n_iter_=attributes["n_iter_"],
                classes_=np.arange(2),
                class_weight_=np.ones(2),
            )
            binary = self._make(class_weight=None)
            binary._sync_attrs_from_cpu(part)
            self._binary.append(binary)

    def decision_function(self, X: Any) -> Array:
        """Return the distances to the planes between classes."""
        decisions = self._decisions(X)
        if len(self._classes) == 2:
            return -decisions[:, 0]
        if self._parameters["decision_function_shape"] == "ovo":
            return decisions
        return np.asarray(_ovr_decision_function(decisions < 0, -decisions, len(self._classes)))

    def predict(self, X: Any) -> Array:
        """Return the class that wins most pairs."""
        count = len(self._classes)
        by_distance = self._parameters["break_ties"] and self._parameters["decision_function_shape"] == "ovr"
        if by_distance and count > 2:
            return np.asarray(self._classes[self.decision_function(X).argmax(axis=1)])
        return np.asarray(self._classes[votes(self._decisions(X), count)])

    def _decisions(self, X: Any) -> Array:
        columns = [-np.asarray(binary.decision_function(X), dtype=np.float64).ravel() for binary in self._binary]
        return np.stack(columns, axis=1)

    def _complete(self, X: Any) -> None:
        state, support = self.fitted, self.fitted["support_"]
        state["_sparse"] = scipy.sparse.issparse(X)
        vectors = X[support].astype(np.float64)
        sign = -1 if len(self._classes) == 2 else 1
        coef = state["_dual_coef_"]
        if state["_sparse"]:
            columns = np.tile(np.arange(coef.shape[1]), len(coef))
            pointers = np.arange(len(coef) + 1) * coef.shape[1]
            state["_dual_coef_"] = scipy.sparse.csr_matrix((coef.ravel(), columns, pointers), coef.shape)
        state["support_vectors_"] = np.empty((0, 0)) if self._parameters["kernel"] == "precomputed" else vectors
        state["dual_coef_"] = sign * state["_dual_coef_"]
        state["intercept_"] = sign * state["_intercept_"]
        state["_probA"] = state["_probB"] = np.empty(0)
        state["_effective_probability"] = False


def _state_of(binary: Any) -> dict[str, Any]:
    state = SimpleNamespace()
    binary._sync_attrs_to_cpu(state)
    return vars(state)


def _as_binary(state: Mapping[str, Any], rows: Array) -> Binary:
    coef = state["dual_coef_"]
    coef = coef.toarray() if scipy.sparse.issparse(coef) else coef
    iterations = int(np.ravel(state["n_iter_"])[0])
    return Binary(rows[state["support_"]], np.ravel(coef), float(np.ravel(state["intercept_"])[0]), iterations)
