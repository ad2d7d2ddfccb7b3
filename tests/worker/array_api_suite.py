"""The array-API engine under one namespace, against local scikit-learn.

It is no test module by its name: `test_array_api` runs it in processes of their own, because scipy has to be imported
with SCIPY_ARRAY_API=1, which the other tests are not.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import get_scorer
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline

from sklearn_wsl_gpu.errors import Unsupported
from sklearn_wsl_gpu.estimators import GRAPHS, METHODS, ROWS
from sklearn_wsl_gpu.estimators.functions import FUNCTIONS
from sklearn_wsl_gpu.state import objects
from sklearn_wsl_gpu.state.splits import Rows
from sklearn_wsl_gpu.support import Request, facts_of
from sklearn_wsl_gpu.support.array_api import TABLE
from sklearn_wsl_gpu.testing import assert_same
from tests.parity.cases import CLASSES, PARAMETERS, X, arguments, data_for, demanded, do, make, takes_labels
from tests.parity.test_variants import VARIANTS, Variant, _name
from tests.worker.function_cases import CALLS
from tests.worker.test_binding import GRAPHS_HERE
from wsl_worker.binding import Binding, unabandoned
from wsl_worker.engines.array_api import ArrayApiEngine
from wsl_worker.engines.base import Engine
from wsl_worker.fits import Fits
from wsl_worker.testing import EngineSuite

pytestmark = pytest.mark.filterwarnings("ignore")


class StrictEngine(ArrayApiEngine):
    """On a device of array-api-strict that no array leaves unasked: what a GPU would refuse is refused."""

    def __init__(self, device: str = "auto") -> None:
        self._namespace = import_module("array_api_strict")
        self._device = self._namespace.Device("device1")


def make_engine() -> Engine:
    return ArrayApiEngine("cpu") if os.environ["NAMESPACE"] == "torch" else StrictEngine()


class TestArrayApiEngine(EngineSuite):
    rtol = 1e-6

    def make_engine(self) -> Engine:
        return make_engine()


#: These say truthfully what another path of scikit-learn did.
_DIFFERS = {"solver_"}
#: Numerically of lower rank than asked for, so that what is below the noise is divided by itself.
_SINGULAR = {"Nystroem": {"n_components": 60}}


def _cases() -> Iterator[Variant]:
    for name in TABLE:
        data, target = (CLASSES, None) if takes_labels(name) else data_for(name)
        yield name, PARAMETERS.get(name, {}), data, target
        if name in ("GaussianMixture", "Ridge", "RidgeClassifier"):
            more = {"init_params": "random_from_data"} if name == "GaussianMixture" else {"solver": "svd"}
            yield name, PARAMETERS.get(name, {}) | more, data, target
    for variant in VARIANTS:
        if variant[0] in TABLE and not _SINGULAR.get(variant[0], {"": 0}).items() <= variant[1].items():
            yield variant


CASES = list(_cases())


def _signless(name: str, key: str, value: Any) -> Any:
    # Singular vectors are unique but for their signs.
    return np.abs(value) if name == "LinearDiscriminantAnalysis" and key in ("scalings_", "transform") else value


def _compare(name: str, key: str, found: Any, wanted: Any) -> None:
    found, wanted = (_signless(name, key.removeprefix("fit_"), value) for value in (found, wanted))
    if isinstance(wanted, np.ndarray):  # the memory order is the namespace's
        found, wanted = np.ascontiguousarray(found), np.ascontiguousarray(wanted)
    assert_same(found, wanted, rtol=1e-6, atol=1e-7)


def _difference(engine: Engine, method: str, variant: Variant) -> str | None:
    """Return what is different when the engine computes a case that it says it supports."""
    name, parameters, data, target = variant
    row = ROWS[name]
    try:
        wanted, local = do(name, method, copy.copy(data), copy.copy(target), parameters=parameters)
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return None  # scikit-learn does not do it either
    estimator = make(name, **parameters)
    if not METHODS[method].fits:
        estimator.fit(*arguments(name, "fit", data, target, None))
    given, keywords = arguments(name, method, data, target, estimator), demanded(name, method)
    request = Request(row, method, estimator.get_params(deep=False), facts_of(row, method, given, keywords))
    if engine.support(request) is not None or _has_text_classes(estimator, name):
        return None
    try:
        model = engine.load(row, objects.carried_attributes(estimator))
        found = engine.call(model, method, given, keywords)
        if not isinstance(wanted, str):
            _compare(name, method, found, wanted)
        state, fitted = engine.state(model), objects.carried_attributes(local)
        assert state.keys() == fitted.keys()
        for key in fitted.keys() - _DIFFERS:
            _compare(name, key, state[key], fitted[key])
    except Exception as error:  # the other cases shall still be looked at
        return f"{type(error).__name__}: {str(error)[:300]}"
    return None


def _has_text_classes(estimator: Any, name: str) -> bool:
    classes = getattr(estimator, "classes_", np.empty(0))
    return classes.dtype.kind in "OU" and not TABLE[name].text


@pytest.mark.parametrize("name", TABLE)
def test_what_the_table_takes_is_computed_as_here(name: str) -> None:
    engine = make_engine()
    found = {
        f"{method} of {_name(variant)}": _difference(engine, method, variant)
        for variant in CASES
        if variant[0] == name
        for method in ROWS[name].method_names
    }

    assert {case: words for case, words in found.items() if words} == {}


@pytest.mark.parametrize("name", TABLE)
def test_every_estimator_of_the_table_is_taken_with_some_parameters(name: str) -> None:
    engine, taken = make_engine(), set()
    for _, parameters, data, target in (variant for variant in CASES if variant[0] == name):
        given = arguments(name, "fit", data, target, None)
        request = Request(
            ROWS[name], "fit", make(name, **parameters).get_params(), facts_of(ROWS[name], "fit", given, {})
        )
        taken.add(engine.support(request) is None)

    assert True in taken


@pytest.mark.parametrize("name", GRAPHS_HERE)
@pytest.mark.parametrize("labels", [CLASSES, np.array(["red", "green", "blue"])[CLASSES]], ids=["numbers", "text"])
def test_a_graph_stays_on_the_device_and_gives_what_it_gives_here(name: str, labels: Any) -> None:
    binding = Binding([make_engine()])
    local = GRAPHS_HERE[name]().fit(X, labels)

    model = binding.load(GRAPHS[type(local).__name__], objects.carried_attributes(GRAPHS_HERE[name]()))
    binding.call(model, "fit", [X, labels], {})

    assert_same(binding.call(model, "predict", [X], {}), local.predict(X))
    np.testing.assert_allclose(binding.call(model, "predict_proba", [X], {}), local.predict_proba(X), rtol=1e-5)
    assert binding.call(model, "score", [X, labels], {}) == local.score(X, labels)
    if isinstance(local, Pipeline):
        np.testing.assert_allclose(model[-1].coef_, local[-1].coef_, rtol=1e-4, atol=1e-8)


CLASSIFIERS = [LogisticRegression(), GaussianNB(), LinearDiscriminantAnalysis(), RidgeClassifier()]


@pytest.mark.parametrize("ensemble", [True, False])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("classifier", CLASSIFIERS, ids=repr)
def test_a_temperature_is_found_as_here_by_a_classifier_on_the_device(
    classifier: Any, count: int, ensemble: bool
) -> None:
    binding, labels = Binding([make_engine()]), np.minimum(CLASSES, count - 1)
    template = CalibratedClassifierCV(classifier, method="temperature", cv=3, ensemble=ensemble)
    local = clone(template).fit(X, labels)
    row, facts = GRAPHS["CalibratedClassifierCV"], facts_of(GRAPHS["CalibratedClassifierCV"], "fit", [X, labels], {})
    assert binding.support(Request(row, "fit", template.get_params(deep=False), facts)) is None

    model = binding.load(row, objects.carried_attributes(clone(template)))
    binding.call(model, "fit", [X, labels], {})

    np.testing.assert_allclose(binding.call(model, "predict_proba", [X], {}), local.predict_proba(X), rtol=1e-5)
    assert_same(binding.call(model, "predict", [X], {}), local.predict(X))
    for one, other in zip(model.calibrated_classifiers_, local.calibrated_classifiers_, strict=True):
        assert type(one.calibrators[0].beta_) is type(other.calibrators[0].beta_)
        np.testing.assert_allclose(one.calibrators[0].beta_, other.calibrators[0].beta_, rtol=1e-5)
        assert type(vars(one.estimator)["classes_"]) is np.ndarray


@pytest.mark.parametrize("function", ["fit_and_score", "fit_and_predict"])
def test_fits_of_a_cross_validation_stay_on_the_device_and_give_what_they_give_here(function: str) -> None:
    binding = Binding([make_engine()])
    template = GRAPHS_HERE["pipeline"]()
    test = np.arange(0, 60, 3)
    train = np.setdiff1d(np.arange(60), test)
    common = {"fit_params": None, "method": "predict_proba"}
    if function == "fit_and_score":
        common = {
            "fit_params": None, "scorer": get_scorer("roc_auc_ovr"), "verbose": 0, "score_params": None,
            "error_score": "raise", "return_train_score": True,
        }  # fmt: skip
    parameters = [{"pca__n_components": 2}, {"logisticregression__C": 0.1}]
    asked = [(0, candidate, 0, {}) for candidate in range(2)]
    fits = Fits(function, [X, CLASSES, [template], parameters, [(Rows(train, 60), Rows(test, 60))], asked], common)
    assert [binding.support(request) for request in fits.requests({})] == [None, None]
    fits.bind(binding)

    results = unabandoned(lambda: fits.run(None))

    for result, candidate in zip(results, parameters, strict=True):
        if function == "fit_and_predict":
            local = GRAPHS_HERE["pipeline"]().fit(X[train], CLASSES[train])
            np.testing.assert_allclose(result, local.predict_proba(X[test]), rtol=1e-5)
        else:
            local = GRAPHS_HERE["pipeline"]().set_params(**candidate).fit(X[train], CLASSES[train])
            assert result["test_scores"] == pytest.approx(get_scorer("roc_auc_ovr")(local, X[test], CLASSES[test]))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_gives_what_it_gives_here(name: str) -> None:
    engine = make_engine()
    for arguments_, keywords in CALLS[name]:
        local = FUNCTIONS[name].function(*arguments_, **keywords)
        found = engine.call_function(name, arguments_, keywords)
        for one, other in zip(_parts(found), _parts(local), strict=True):
            assert type(one) is type(other)
            assert getattr(one, "dtype", None) == getattr(other, "dtype", None)
            if other is not None:
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def _parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def test_every_function_has_cases() -> None:
    assert CALLS.keys() == FUNCTIONS.keys()
    assert not [name for name, function in FUNCTIONS.items() if function.function is None]


def test_a_metric_that_it_does_not_compute_is_refused() -> None:
    with pytest.raises(Unsupported, match="metric='hamming' is not supported"):
        make_engine().call_function("metrics.pairwise_distances", [X, X], {"metric": "hamming"})
