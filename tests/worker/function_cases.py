"""Calls of every function of the table, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

_random = np.random.default_rng(3)
_COUNT = 40
TWO, FOUND_TWO = _random.integers(0, 2, (2, _COUNT))
THREE, FOUND_THREE = _random.integers(0, 3, (2, _COUNT))
MANY, FOUND_MANY = _random.integers(0, 2, (2, _COUNT, 3))
ONE, OTHER = _random.uniform(0.5, 2, (2, _COUNT))
PAIR, OTHER_PAIR = _random.uniform(0.5, 2, (2, _COUNT, 2))
CHANCE = _random.uniform(0.01, 0.99, _COUNT)
CHANCES = _random.dirichlet(np.ones(3), _COUNT)
WEIGHT = _random.uniform(0.5, 2, _COUNT)
ROWS, OTHERS = _random.uniform(0.1, 2, (20, 4)), _random.uniform(0.1, 2, (15, 4))
GROUPS = np.arange(20) % 3

Call = tuple[tuple[Any, ...], dict[str, Any]]

_CLASSES: list[Call] = [
    ((TWO, FOUND_TWO), {}), ((THREE, FOUND_THREE), {}), ((TWO, FOUND_TWO), {"sample_weight": WEIGHT}),
]  # fmt: skip
_LABELS: list[Call] = [*_CLASSES, ((MANY, FOUND_MANY), {})]
_AVERAGES: list[Call] = [
    ((TWO, FOUND_TWO), {}),
    ((TWO, FOUND_TWO), {"sample_weight": WEIGHT}),
    *[((THREE, FOUND_THREE), {"average": how}) for how in ("micro", "macro", "weighted", None)],
]
_NUMBERS: list[Call] = [((ONE, OTHER), {}), ((ONE, OTHER), {"sample_weight": WEIGHT})]
_OUTPUTS: list[Call] = [*_NUMBERS, ((PAIR, OTHER_PAIR), {}), ((PAIR, OTHER_PAIR), {"multioutput": "raw_values"})]
_RANKS: list[Call] = [((TWO, CHANCE), {}), ((TWO, CHANCE), {"sample_weight": WEIGHT})]
_CHANCES: list[Call] = [*_RANKS, ((THREE, CHANCES), {})]
_MATRICES: list[Call] = [((ROWS,), {}), ((ROWS, OTHERS), {}), ((ROWS.astype("f4"), OTHERS.astype("f4")), {})]
_PAIRED: list[Call] = [((ROWS, ROWS[::-1].copy()), {})]


def _each(names: str, calls: list[Call], group: str = "metrics") -> dict[str, list[Call]]:
    return {f"{group}.{name}": calls for name in names.split()}


CALLS: dict[str, list[Call]] = {
    **_each("balanced_accuracy_score cohen_kappa_score confusion_matrix", _CLASSES),
    **_each("accuracy_score hamming_loss multilabel_confusion_matrix zero_one_loss", _LABELS),
    **_each("f1_score jaccard_score precision_recall_fscore_support precision_score recall_score", _AVERAGES),
    "metrics.fbeta_score": [(args, {**keywords, "beta": 2.0}) for args, keywords in _AVERAGES],
    **_each("d2_tweedie_score mean_gamma_deviance mean_poisson_deviance mean_tweedie_deviance", _NUMBERS),
    "metrics.max_error": _NUMBERS[:1],
    **_each(
        "d2_absolute_error_score d2_pinball_score explained_variance_score mean_absolute_error "
        "mean_absolute_percentage_error mean_pinball_loss mean_squared_error mean_squared_log_error "
        "median_absolute_error r2_score root_mean_squared_error root_mean_squared_log_error",
        _OUTPUTS,
    ),
    **_each("average_precision_score det_curve precision_recall_curve", _RANKS),
    "metrics.roc_curve": [(args, {**keywords, "drop_intermediate": False}) for args, keywords in _RANKS],
    **_each("brier_score_loss d2_brier_score d2_log_loss_score log_loss", _CHANCES),
    **_each("calinski_harabasz_score davies_bouldin_score", [((ROWS, GROUPS), {})]),
    "metrics.cluster.entropy": [((THREE,), {})],
    **_each(
        "additive_chi2_kernel chi2_kernel cosine_distances cosine_similarity euclidean_distances laplacian_kernel "
        "linear_kernel manhattan_distances polynomial_kernel rbf_kernel sigmoid_kernel",
        _MATRICES,
        "metrics.pairwise",
    ),
    **_each(
        "paired_cosine_distances paired_euclidean_distances paired_manhattan_distances", _PAIRED, "metrics.pairwise"
    ),
    "metrics.pairwise_distances": [
        *_MATRICES, *[((ROWS, OTHERS), {"metric": how}) for how in ("cosine", "manhattan", "l1", "cityblock", "l2")],
    ],
    "metrics.pairwise_distances_argmin": [
        ((ROWS, OTHERS), {}), *[((ROWS, OTHERS), {"metric": how}) for how in ("cosine", "manhattan", "l1", "l2")],
    ],
    "metrics.pairwise.pairwise_kernels": [
        *_MATRICES,
        *[
            ((ROWS, OTHERS), {"metric": how})
            for how in ("rbf", "laplacian", "poly", "polynomial", "sigmoid", "cosine", "chi2", "additive_chi2")
        ],
    ],
}  # fmt: skip
