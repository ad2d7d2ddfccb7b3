"""Rows for `sklearn.cluster`."""

from sklearn_wsl_gpu.estimators.row import Row

ROWS = (
    Row(
        "sklearn.cluster.KMeans",
        "fit predict transform fit_predict fit_transform score",
        in_place="copy_x",
        targetless=True,
    ),
    Row("sklearn.cluster.DBSCAN", "fit fit_predict", targetless=True),
    Row(
        "sklearn.cluster.HDBSCAN",
        "fit fit_predict",
        keeps_input=True,
        in_place="copy@metric=precomputed",
        targetless=True,
    ),
    Row("sklearn.cluster.SpectralClustering", "fit fit_predict", keeps_input=True, targetless=True),
)
