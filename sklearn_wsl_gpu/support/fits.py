"""What scikit-learn's functions for one fit of a search or a cross-validation take that travels."""

from __future__ import annotations

#: Arguments that are the same for all fits.
COMMON = frozenset(
    {
        "fit_params", "score_params", "verbose", "return_train_score", "return_parameters", "return_n_test_samples",
        "return_times", "return_estimator", "error_score", "scorer", "method",
    }
)  # fmt: skip
#: Arguments that each fit has of its own, beside its estimator, parameters and rows.
OWN = frozenset({"split_progress", "candidate_progress"})
