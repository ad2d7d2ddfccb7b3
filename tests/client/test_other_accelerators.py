"""Where another package has put its own class in scikit-learn's place, that class is left alone."""

from __future__ import annotations

from tests.integration.tools import run_python

_CODE = """
import warnings
import numpy as np
import sklearn.cluster

class KMeans(sklearn.cluster.KMeans):
    pass

KMeans.__module__ = "faster.cluster"
sklearn.cluster.KMeans = KMeans

import sklearn_wsl_gpu
from sklearn.preprocessing import StandardScaler

with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    with sklearn_wsl_gpu.offload() as session:
        StandardScaler().fit(np.eye(3))
        KMeans(2, n_init=1, random_state=0).fit(np.eye(3))
print([str(item.message).partition(";")[0] for item in told if item.category is sklearn_wsl_gpu.FallbackWarning])
print([call.estimator for call in session.report().calls], "fit" in vars(KMeans))
"""


def test_a_class_of_another_package_is_told_of_and_not_wrapped() -> None:
    result = run_python(_CODE)

    told, calls = result.stdout.splitlines()
    assert told == "[\"KMeans is not scikit-learn's own class but faster.cluster's\"]", result.stderr
    assert calls == "['StandardScaler'] False"
