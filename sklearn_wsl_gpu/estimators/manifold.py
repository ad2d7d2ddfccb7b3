"""Rows for `sklearn.manifold`."""

from sklearn_wsl_gpu.estimators.row import Row

ROWS = (
    Row("sklearn.manifold.TSNE", "fit fit_transform", in_place="@metric=precomputed&method=exact", targetless=True),
    Row(
        "sklearn.manifold.SpectralEmbedding",
        "fit fit_transform",
        keeps_input=True,
        rewrites="affinity",
        targetless=True,
    ),
)
