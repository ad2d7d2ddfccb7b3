"""Rows for `sklearn.neighbors`."""

from sklearn_wsl_gpu.estimators.row import Row

ROWS = (
    Row(
        "sklearn.neighbors.NearestNeighbors",
        "fit kneighbors kneighbors_graph radius_neighbors radius_neighbors_graph",
        keeps_input=True,
        targetless=True,
    ),
    Row(
        "sklearn.neighbors.KNeighborsClassifier",
        "fit predict predict_proba kneighbors kneighbors_graph score",
        keeps_input=True,
    ),
    Row("sklearn.neighbors.KNeighborsRegressor", "fit predict kneighbors kneighbors_graph score", keeps_input=True),
    Row("sklearn.neighbors.KernelDensity", "fit score score_samples", keeps_input=True, targetless=True),
)
