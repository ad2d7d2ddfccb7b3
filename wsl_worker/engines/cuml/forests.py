"""Forests of scikit-learn, made of what cuML's trees tell: impurities from the leaves upwards.

cuML writes into a tree how many samples each node has, and values into the leaves only. The value of an inner node is
the mean of its children, weighted by their samples, and the impurity follows from the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import xlogy
from sklearn.tree._tree import Tree

Array = np.ndarray[Any, Any]


def complete(forest: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fitted attributes of a forest with its trees completed.

    Parameters
    ----------
    forest : mapping of str to object
        As cuML's hook gives them, of a forest with one output.
    parameters : mapping of str to object
        The user's.
    """
    own = {name: parameters[name] for name in parameters if name in vars(forest["estimators_"][0])}
    own.pop("random_state", None)
    for estimator in forest["estimators_"]:
        vars(estimator).update(
            own,
            n_features_in_=forest["n_features_in_"],
            n_outputs_=1,
            max_features_=max_features(parameters["max_features"], forest["n_features_in_"]),
            tree_=complete_tree(estimator.tree_, parameters["criterion"]),
        )
        vars(estimator).pop("is_categorical_", None)
        if "n_classes_" in forest:
            vars(estimator)["n_classes_"] = np.int64(forest["n_classes_"])
    completed = dict(forest)
    if "n_classes_" in forest:
        completed["n_classes_"] = int(forest["n_classes_"])
    if parameters["bootstrap"]:
        # Which samples a tree drew is not known. With this attribute scikit-learn would draw others.
        del completed["_n_samples_bootstrap"]
    else:
        completed["_sample_weight"] = None
    return completed


def with_samples(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a fitted forest's attributes with one that cuML asks for, and `complete` leaves out."""
    return {"_n_samples_bootstrap": attributes["_n_samples"], **attributes}


def max_features(setting: Any, columns: int) -> int:
    """Return how many columns a split looks at."""
    if setting is None:
        return columns
    if isinstance(setting, str):
        return max(1, int(np.sqrt(columns) if setting == "sqrt" else np.log2(columns)))
    return int(setting) if isinstance(setting, (int, np.integer)) else max(1, int(setting * columns))


def complete_tree(tree: Any, criterion: str) -> Any:
    """Return a tree with values, impurities and weighted counts at every node."""
    state = tree.__getstate__()
    nodes, values = state["nodes"].copy(), state["values"].copy()
    counts = nodes["n_node_samples"].astype(np.float64)
    spread = fill_values(nodes["left_child"], nodes["right_child"], counts, values, criterion)
    nodes["weighted_n_node_samples"] = counts
    nodes["impurity"] = impurities(values, spread, criterion)
    _, (n_features, n_classes, n_outputs), _ = tree.__reduce__()
    filled = Tree(n_features, n_classes, n_outputs)
    filled.__setstate__({**state, "nodes": nodes, "values": values})
    return filled


def fill_values(left: Array, right: Array, counts: Array, values: Array, criterion: str) -> Array:
    """Set the values of inner nodes to the weighted mean of their children, in place.

    Returns
    -------
    spread : array of shape (n_nodes,)
        How far the leaves below a node are from its value; 0 for a leaf.
    """
    spread = np.zeros(len(counts))
    for nodes in reversed(_levels(left, right)):
        pair = np.stack([left[nodes], right[nodes]])
        parts = counts[pair] / counts[pair].sum(axis=0)
        values[nodes] = (parts[:, :, None, None] * values[pair]).sum(axis=0)
        between = _distance(values[pair], values[nodes], criterion).sum(axis=(2, 3))
        spread[nodes] = (parts * (spread[pair] + between)).sum(axis=0)
    return spread


def impurities(values: Array, spread: Array, criterion: str) -> Array:
    """Return each node's impurity.

    For regression only its decreases are right, and importances are made of them: how much the samples of one leaf
    differ is not known, and taken as nothing.
    """
    shares = values[:, 0, :]
    if criterion == "gini":
        return np.asarray(1 - (shares**2).sum(axis=1))
    if criterion == "entropy":
        return np.asarray(-xlogy(shares, shares).sum(axis=1) / np.log(2))
    return spread


def _levels(left: Array, right: Array) -> list[Array]:
    """Return the inner nodes of each depth, the root's first."""
    found = []
    nodes = np.array([0])
    while (nodes := nodes[left[nodes] >= 0]).size:
        found.append(nodes)
        nodes = np.concatenate([left[nodes], right[nodes]])
    return found


def _distance(values: Array, mean: Array, criterion: str) -> Array:
    if criterion == "poisson":
        return np.asarray(xlogy(values, np.divide(values, mean, where=mean > 0, out=np.ones_like(values))))
    return np.asarray((values - mean) ** 2)
