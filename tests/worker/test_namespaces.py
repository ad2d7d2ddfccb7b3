"""Arrays of other libraries than numpy: what goes in is what comes out, with and without array_api_dispatch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import offload
from sklearn_wsl_gpu.testing import assert_same
from tests.integration.tools import run_python

_NEW = pytest.mark.skipif(
    tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 9), reason="the engine needs scikit-learn 1.9"
)
_random = np.random.default_rng(5)
X = _random.normal(size=(90, 5)).astype("f4") + np.repeat([[0.0], [3.0], [9.0]], 30, axis=0).astype("f4")
Y = np.repeat([0, 1, 2], 30)


@pytest.mark.usefixtures("shared_worker")
@pytest.mark.parametrize("library", ["torch", "array_api_strict"])
@pytest.mark.parametrize("make", [StandardScaler, Ridge, NearestNeighbors])
def test_without_dispatch_arrays_are_taken_as_scikit_learn_takes_them(library: str, make: Any) -> None:
    namespace = pytest.importorskip(library)
    data, target = namespace.asarray(X), namespace.asarray(Y)
    local = make().fit(data, target)
    with offload(fallback="raise"):
        remote = make().fit(data, target)

    assert_same(remote, local)


#: (estimator, methods to compare afterwards)
_CASES = """
import sys, warnings
import numpy as np, sklearn, torch
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge, RidgeCV, RidgeClassifier
from sklearn.mixture import GaussianMixture
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import LabelEncoder, MinMaxScaler, Normalizer, PolynomialFeatures, StandardScaler
import sklearn_wsl_gpu
from tests.worker.test_namespaces import X, Y

warnings.simplefilter("ignore")
X, Y = torch.asarray(X), torch.asarray(Y)

def difference(found, wanted):
    if isinstance(wanted, torch.Tensor):
        if type(found) is not type(wanted) or (found.dtype, found.shape, found.device) != (
            wanted.dtype, wanted.shape, wanted.device
        ):
            return f"{type(found)} {getattr(found, 'dtype', '')}, not {wanted.dtype} {wanted.shape}"
        return None if torch.allclose(found, wanted, rtol=1e-3, atol=1e-4) else f"{found} != {wanted}"
    return None if type(found) is type(wanted) else f"{type(found)}, not {type(wanted)}"

def run(make, methods):
    model = make()
    y_only = isinstance(model, LabelEncoder)
    found = {"fit": model.fit(Y) if y_only else model.fit(X, Y)}
    for method in methods.split():
        found[method] = getattr(model, method)(*([Y] if y_only else [X, Y] if method == "score" else [X]))
    if hasattr(model, "partial_fit"):
        model.partial_fit(X, Y)
    return found | {name: value for name, value in vars(model).items() if name[-1] == "_"}

def after(model, methods):
    # What was fitted on the worker goes on here, and the other way round.
    return {"after": getattr(model, methods.split()[0])(Y if isinstance(model, LabelEncoder) else X)}

CASES = [
    (lambda: StandardScaler(), "transform inverse_transform"), (lambda: MinMaxScaler(), "transform"),
    (lambda: Normalizer(), "transform"), (lambda: PolynomialFeatures(), "transform"),
    (lambda: PCA(2, svd_solver="full"), "transform score"),
    (lambda: LogisticRegression(), "predict predict_proba decision_function score"),
    (lambda: Ridge(solver="svd"), "predict score"), (lambda: RidgeCV(), "predict"),
    (lambda: RidgeClassifier(solver="svd"), "predict"),
    (lambda: GaussianNB(), "predict predict_proba"), (lambda: LinearDiscriminantAnalysis(), "predict"),
    (lambda: GaussianMixture(2, init_params="random_from_data", random_state=0), "predict score"),
    (lambda: Nystroem(n_components=4, random_state=0), "transform"), (lambda: LabelEncoder(), "transform"),
    (lambda: PoissonRegressor(), "predict"),
]
with sklearn.config_context(array_api_dispatch=True):
    for make, methods in CASES:
        local = run(make, methods)
        local |= after(local["fit"], methods)
        with sklearn_wsl_gpu.offload(engine="array_api", device="cpu", fallback="raise"):
            remote = run(make, methods) | {"here": after(local["fit"], methods)["after"]}
        local["here"] = local["after"]
        remote |= after(remote["fit"], methods)
        print(type(make()).__name__, {
            name: words for name in local.keys() | remote.keys()
            if (words := difference(remote.get(name), local.get(name))) and name != "fit"
        })
"""


@_NEW
def test_with_dispatch_results_and_fitted_attributes_are_of_the_datas_library() -> None:
    pytest.importorskip("torch", reason="on the CPU the engine computes by PyTorch")
    ran = run_python(_CASES, SCIPY_ARRAY_API="1", OMP_NUM_THREADS="1")

    lines = ran.stdout.splitlines()
    assert len(lines) == 15, ran.stderr
    assert [line for line in lines if not line.endswith(" {}")] == []


_STAYS = """
import numpy as np, sklearn, torch
from sklearn.cluster import KMeans
from sklearn.linear_model import Ridge
from sklearn_wsl_gpu import offload
from tests.worker.test_namespaces import X, Y

X, Y = torch.asarray(X), torch.asarray(Y)
def error(do):
    try:
        do()
    except Exception as error:
        return type(error).__name__, str(error)[:60]

with sklearn.config_context(array_api_dispatch=True):
    fitted = Ridge(solver="svd").fit(X, Y)
    wanted = error(lambda: fitted.predict(X.numpy()))
    for engine, device in (("array_api", "cpu"), ("cpu", "cpu")):
        with offload(engine=engine, device=device, fallback="quiet") as session:
            print(wanted is not None and error(lambda: fitted.predict(X.numpy())) == wanted)
            print(type(fitted.predict(X)).__name__)
            print(error(lambda: Ridge(solver="sag").fit(X, Y)) == error(lambda: sklearn.base.clone(fitted).set_params(
                solver="sag").fit(X, Y)))
        print([(call.where, call.reason and call.reason.code) for call in session.report().calls])
"""


@_NEW
def test_what_scikit_learn_does_not_compute_in_the_library_is_left_to_it() -> None:
    pytest.importorskip("torch", reason="on the CPU the engine computes by PyTorch")
    ran = run_python(_STAYS, SCIPY_ARRAY_API="1", OMP_NUM_THREADS="1")

    assert ran.stderr == ""
    by_array_api, by_cpu = ran.stdout.splitlines()[3::4]
    assert [line for line in ran.stdout.splitlines() if line[0] != "["] == ["True", "Tensor", "True"] * 2
    assert eval(by_array_api)[:2] == [("local", "array-api-input"), ("worker", None)]
    assert {code for _, code in eval(by_cpu)} == {"array-api-input"}
