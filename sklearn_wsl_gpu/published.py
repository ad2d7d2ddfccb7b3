"""How much faster a GPU was published to be than scikit-learn, by method: what a cost table begins with.

End-to-end seconds of scikit-learn on 32 cores ÷ those of cuml.accel 26.10 on an RTX PRO 6000, of NumPy arrays in
float32 that are copied to the device and back, for five workloads (small.balanced, medium.thin, medium.balanced,
medium.wide, large; for PCA by number of components, too): docs/source/cuml-accel/benchmarks.rst of
https://github.com/NVIDIA/cuml at 276338d584fd0d87d0e2d104a2959f98d18dbdef. Where scikit-learn was stopped, the bound.
"""

from __future__ import annotations

import functools
import statistics
from typing import NamedTuple

SPEEDUPS: dict[str, tuple[float, ...]] = {
    "ElasticNet.fit": (1.51, 4.55, 1.23, 1.08, 1.15),
    "ElasticNet.predict": (0.73, 0.70, 0.73, 0.64, 0.59),
    "Lasso.fit": (1.35, 2.79, 1.23, 1.07, 1.17),
    "Lasso.predict": (0.67, 0.71, 0.69, 0.62, 0.58),
    "LinearRegression.fit": (7.50, 13.1, 17.4, 44.2, 10.2),
    "LinearRegression.predict": (1.01, 0.72, 0.73, 0.63, 0.59),
    "LogisticRegression.fit": (4.64, 38.0, 12.5, 5.52, 12.5),
    "LogisticRegression.predict": (0.59, 0.96, 0.75, 0.80, 0.62),
    "Ridge.fit": (3.86, 5.75, 4.44, 4.15, 3.15),
    "Ridge.predict": (0.67, 0.71, 0.70, 0.62, 0.61),
    "DBSCAN.fit_predict": (5.00, 35.1, 10.3, 19.9, 12.2),
    "HDBSCAN.fit_predict": (5.46, 10.3, 19.9, 325.0, 31.7),
    "KMeans.fit_predict": (2.77, 6.02, 3.67, 14.2, 10.4),
    "KMeans.predict": (0.59, 1.40, 0.70, 0.52, 0.63),
    "TSNE.fit_transform": (4.07, 19.0, 15.0, 15.1, 48.9),
    "umap.UMAP.fit_transform": (21.7, 48.4, 22.2, 19.3, 53.0),
    "umap.UMAP.transform": (529.0, 57.0, 138.0, 154.0, 160.0),
    "KNeighborsClassifier.predict": (14.3, 26.9, 20.5, 21.6, 21.9),
    "KNeighborsRegressor.predict": (18.4, 54.0, 22.1, 21.5, 21.0),
    "KernelDensity.score_samples": (599.0, 4372.0, 4942.0, 9426.0, 12969.0),
    "NearestNeighbors.kneighbors": (22.2, 42.4, 17.9, 21.7, 21.0),
    "PCA.fit_transform": (3.04, 0.45, 1.31, 0.48, 0.74, 1.12, 2.62, 0.83),
    "PCA.transform": (0.10, 0.10, 0.04, 0.08, 0.04),
    "RandomForestClassifier.fit": (3.13, 10.0, 7.90, 10.0, 25.6),
    "RandomForestClassifier.predict": (2.37, 12.0, 2.38, 0.90, 2.70),
    "RandomForestRegressor.fit": (4.12, 12.2, 9.80, 9.59, 27.4),
    "RandomForestRegressor.predict": (3.23, 15.5, 3.30, 0.98, 4.36),
    "StandardScaler.fit_transform": (1.87, 1.85, 2.16, 3.39, 2.20),
    "StandardScaler.transform": (1.25, 1.70, 1.34, 1.29, 1.34),
    "TargetEncoder.fit_transform": (0.10, 1.18, 0.43, 0.14, 3.15),
    "TargetEncoder.transform": (1.70, 6.41, 3.31, 0.82, 4.06),
    "SVC.fit": (2.37, 6.75, 15.7, 56.6, 112.0),
    "SVC.predict": (87.0, 188.0, 268.0, 338.0, 399.0),
}
#: Methods that do the work of another.
_SAME = {"fit": ("fit_predict", "fit_transform"), "fit_predict": ("fit",), "fit_transform": ("fit",)}
#: Plain scikit-learn, and what is not known. All other engines are taken to compute on a device.
_NO_DEVICE = frozenset({"cpu", ""})


class Outlook(NamedTuple):
    """How many times faster an engine is expected to be than scikit-learn here, before it is measured."""

    worst: float
    likely: float
    best: float


#: A fit that is not named: around the median of all training cases of the same source. Anything else that is not.
_FIT, _UNKNOWN = Outlook(1.0, 5.8, 30.0), Outlook(0.3, 1.0, 3.0)
_TWIN = Outlook(1.0, 1.0, 1.0)


@functools.lru_cache(1024)
def outlook(kind: str, engine: str, *, child: bool) -> Outlook:
    """Return what is expected of an engine.

    Parameters
    ----------
    kind : str
        Estimator and method, such as ``"KMeans.predict"``; what follows a space is not looked at.
    engine : str
        Name of an engine, or several with commas between; empty if that is not known.
    child : bool
        Whether the worker is started by this process, and so computes on its cores in the same way.
    """
    names = set(engine.split(","))
    if names <= _NO_DEVICE:
        return _TWIN if child and names == {"cpu"} else _UNKNOWN
    estimator, _, method = kind.partition(" ")[0].rpartition(".")
    for same in (method, *_SAME.get(method, ())):
        found = SPEEDUPS.get(f"{estimator}.{same}")
        if found is not None:
            return Outlook(min(found), statistics.median(found), max(found))
    return _FIT if method.startswith("fit") else _UNKNOWN
