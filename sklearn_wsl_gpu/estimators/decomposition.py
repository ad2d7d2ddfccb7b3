"""Rows for `sklearn.decomposition`."""

from sklearn_wsl_gpu.estimators.row import Row

ROWS = (
    Row(
        "sklearn.decomposition.PCA",
        "fit transform fit_transform inverse_transform score score_samples",
        in_place="copy",
        unchecked="inverse_transform<1.8",
        targetless=True,
    ),
    Row(
        "sklearn.decomposition.IncrementalPCA",
        "fit partial_fit transform fit_transform inverse_transform",
        refits=True,
        in_place="copy",
        unchecked="inverse_transform<1.8",
        targetless=True,
    ),
    Row("sklearn.decomposition.TruncatedSVD", "fit transform fit_transform inverse_transform", targetless=True),
)
