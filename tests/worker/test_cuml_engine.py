"""The engine around cuML, with scikit-learn in the place of cuML and numpy in that of CuPy.

What is tested is what the engine does before and after cuML: arguments by name, dtypes, what it fills in, refusals.
The stand-in loses what cuML loses. Nothing is said here of what cuML computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import Lasso, LinearRegression
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import SVC

from sklearn_wsl_gpu.errors import ConfigurationError, Unsupported
from sklearn_wsl_gpu.estimators import ROWS
from sklearn_wsl_gpu.state import objects
from sklearn_wsl_gpu.support.cuml import TABLE
from sklearn_wsl_gpu.testing import assert_same
from tests.worker import cuml_stand_in
from tests.worker import test_cuml_gpu as on_a_gpu
from tests.worker.cuml_stand_in import LOST, StandIn
from wsl_worker.engines.base import DeviceLost, Engine
from wsl_worker.engines.cuml import CumlEngine, as_scikit_learn, fills, memory
from wsl_worker.testing import EngineSuite

pytestmark = pytest.mark.filterwarnings("ignore")

random = np.random.default_rng(2)
X = random.normal(size=(60, 4))
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    cuml_stand_in.install(monkeypatch)


class TestAroundCuml(EngineSuite):
    rtol: ClassVar[float] = 1e-6
    lost: ClassVar[Mapping[str, str]] = {
        "RandomForestClassifier": "_sample_weight _n_samples_bootstrap",
        "RandomForestRegressor": "_sample_weight _n_samples_bootstrap",
        "IsolationForest": "_seeds",
    }

    def make_engine(self) -> Engine:
        return CumlEngine()


@pytest.mark.parametrize("case", on_a_gpu.CASES, ids=lambda case: str(case[0])[:60])
def test_what_is_compared_on_a_gpu_can_be_compared(case: Any) -> None:
    on_a_gpu.test_a_fit_there_is_worth_a_fit_here(CumlEngine(), *case, on_a_gpu.SIZES[0])


def test_every_row_of_the_table_is_compared_on_a_gpu() -> None:
    on_a_gpu.test_every_row_of_the_table_is_compared()


def _load(name: str, estimator: Any) -> tuple[CumlEngine, Any]:
    engine = CumlEngine()
    return engine, engine.load(ROWS[name], objects.carried_attributes(estimator))


def test_what_cuml_loses_is_filled_in_after_a_fit() -> None:
    for name, local, y in [
        ("KMeans", KMeans(3, random_state=0, n_init=1), None),
        ("LinearRegression", LinearRegression(), X[:, 0]),
        ("Lasso", Lasso(0.1), X[:, 0]),
    ]:
        engine, model = _load(name, local)
        engine.call(model, "fit", [X, y], {})
        local.fit(X, y)
        state = engine.state(model)

        for key in LOST & vars(local).keys():
            assert_same(state[key], vars(local)[key], rtol=1e-9, atol=1e-12)


def test_a_forest_comes_back_with_its_importances() -> None:
    engine, model = _load("RandomForestClassifier", RandomForestClassifier(5, random_state=0, bootstrap=False))
    engine.call(model, "fit", [X, Y], {})
    remote = objects.build_estimator(RandomForestClassifier, engine.state(model))
    local = RandomForestClassifier(5, random_state=0, bootstrap=False).fit(X, Y)

    assert_same(remote.feature_importances_, local.feature_importances_, rtol=1e-10)
    assert_same(remote.estimators_samples_, local.estimators_samples_)


def test_neighbors_are_kept_in_the_precision_that_they_came_in() -> None:
    engine, model = _load("KNeighborsClassifier", KNeighborsClassifier())
    engine.call(model, "fit", [X.astype("f4")], {"y": Y})

    assert_same(engine.state(model)["_fit_X"], X.astype("f4"))


@pytest.mark.parametrize(
    ("name", "method", "value", "data", "dtype"),
    [
        ("PCA", "transform", "f4", "f8", "f8"),
        ("PCA", "transform", "f8", "f4", "f4"),
        ("PCA", "transform", "f4", "i8", "f8"),
        ("SVC", "decision_function", "f4", "f4", "f8"),
        ("TSNE", "fit_transform", "f4", "f8", "f4"),
        ("KMeans", "predict", "i8", "f8", "i4"),
        ("DBSCAN", "fit_predict", "i4", "f8", "i8"),
        ("LabelEncoder", "transform", "u1", "i8", "i8"),
        ("LabelBinarizer", "transform", "i4", "i8", "i8"),
        ("OneHotEncoder", "transform", "f4", "f8", "f4"),
        ("LogisticRegression", "predict", "i4", "f8", "i4"),
    ],
)
def test_results_have_the_dtype_that_scikit_learn_gives_them(
    name: str, method: str, value: str, data: str, dtype: str
) -> None:
    found = as_scikit_learn(ROWS[name], method, np.ones(3, dtype=value), np.ones((3, 1), dtype=data))

    assert found.dtype == dtype


def test_categories_of_text_stay_text() -> None:
    words = np.array([["ab", "c"], ["d", "c"]])
    local = OneHotEncoder().fit(words)
    engine, model = _load("OneHotEncoder", OneHotEncoder())
    engine.call(model, "fit", [words], {})
    back = as_scikit_learn(ROWS["OneHotEncoder"], "inverse_transform", words.astype(object), words)
    found = {"categories_": [one.astype(object) for one in local.categories_]}

    assert_same(engine.state(model)["categories_"], local.categories_)
    assert_same(fills.fill("OneHotEncoder", local.get_params(), {"X": words}, found)["categories_"], local.categories_)
    assert_same(back, words)


def test_of_neighbors_distances_and_indices_are_each_what_scikit_learn_gives() -> None:
    pair = (np.ones(3, dtype="f4"), np.ones(3, dtype="i4"))
    distances, indices = as_scikit_learn(ROWS["NearestNeighbors"], "kneighbors", pair, X)

    assert (distances.dtype, indices.dtype) == (np.float64, np.int64)


def test_arguments_go_to_cuml_by_name_and_data_may_be_left_out() -> None:
    local = NearestNeighbors(n_neighbors=4).fit(X)
    engine, model = _load("NearestNeighbors", local)

    assert_same(engine.call(model, "kneighbors", [], {"n_neighbors": 2}), local.kneighbors(n_neighbors=2))
    assert_same(engine.call(model, "kneighbors", [X, 3, False], {}), local.kneighbors(X, 3, False))
    assert_same(
        engine.call(model, "kneighbors", [], {"return_distance": False, "X": X[:5]}), local.kneighbors(X[:5])[1]
    )


@pytest.mark.parametrize("argument", ["ensure_all_finite", "force_all_finite"])
def test_umap_takes_only_data_that_are_all_finite(argument: str) -> None:
    limit = TABLE["umap.UMAP"]

    assert limit.objection_to_call("fit", {"X": X, argument: True}) is None
    assert limit.objection_to_call("fit", {"X": X, argument: "allow-nan"}) == f"{argument}='allow-nan' is not supported"


@pytest.mark.parametrize(
    ("name", "method", "arguments", "keywords", "words"),
    [
        ("RandomForestClassifier", "fit", [np.where(X > 1, np.nan, X), Y], {}, "X holds NaN"),
        ("RandomForestClassifier", "predict", [np.where(X > 1, np.nan, X)], {}, "X holds NaN"),
        ("IsolationForest", "fit", [np.where(X > 1, np.inf, X)], {}, "X holds NaN or infinity"),
        ("HDBSCAN", "fit_predict", [np.where(X > 1, np.nan, X)], {}, "X holds NaN or infinity"),
        ("NearestNeighbors", "radius_neighbors_graph", [X], {"mode": "distance"}, "only an unsorted graph"),
        ("NearestNeighbors", "radius_neighbors_graph", [X, 1.0, "distance"], {}, "only an unsorted graph"),
        ("TargetEncoder", "fit", [X, Y], {}, "y with more than two classes is not taken"),
    ],
)
def test_data_that_are_not_taken_are_refused_before_anything_is_computed(
    name: str, method: str, arguments: list[Any], keywords: dict[str, Any], words: str
) -> None:
    row = ROWS[name]
    assert row.cls is not None
    engine, model = _load(name, row.cls())
    StandIn.failure = AssertionError("it was computed")

    with pytest.raises(Unsupported, match=words) as caught:
        engine.call(model, method, arguments, keywords)
    assert caught.value.code == "unsupported-by-engine"


def test_three_classes_of_a_precomputed_kernel_are_refused() -> None:
    engine, model = _load("SVC", SVC(kernel="precomputed"))

    with pytest.raises(Unsupported, match="more than two classes are not taken with a precomputed kernel"):
        engine.call(model, "fit", [X @ X.T, Y], {})


def test_a_model_that_cuml_cannot_take_over_is_refused_in_its_words() -> None:
    local = IsolationForest(n_estimators=2).fit(X)

    with pytest.raises(Unsupported, match=r"IsolationForest by cuml: Conversion is not supported\."):
        CumlEngine().load(ROWS["IsolationForest"], objects.carried_attributes(local))


@pytest.mark.parametrize("failure", [RuntimeError("cudaErrorMemoryAllocation"), MemoryError("std::bad_alloc")])
def test_a_full_device_is_a_memory_error(failure: Exception) -> None:
    engine, model = _load("KMeans", KMeans(2))
    StandIn.failure = failure

    with pytest.raises(type(failure)) as raised:
        engine.call(model, "fit", [X], {})
    assert isinstance(engine.meaning(raised.value), MemoryError)


def test_an_error_after_which_the_device_does_not_answer_is_a_lost_device(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, model = _load("KMeans", KMeans(2))
    StandIn.failure = RuntimeError("cudaErrorIllegalAddress")
    monkeypatch.setattr(memory, "is_usable", lambda: False)

    with pytest.raises(RuntimeError) as raised:
        engine.call(model, "fit", [X], {})
    meaning = engine.meaning(raised.value)
    assert isinstance(meaning, DeviceLost)
    assert str(meaning) == "The device no longer answers: cudaErrorIllegalAddress"


def test_an_error_about_the_data_stays_what_it_is() -> None:
    engine, model = _load("KMeans", KMeans(2))
    StandIn.failure = ValueError("n_clusters")

    with pytest.raises(ValueError, match="n_clusters") as raised:
        engine.call(model, "fit", [X], {})
    assert engine.meaning(raised.value) is raised.value


def test_an_engine_that_cannot_run_says_why_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CumlEngine, "unavailable", classmethod(lambda cls, device: f"there is no {device}."))

    with pytest.raises(ConfigurationError, match=r"cuml cannot run: there is no cuda:3\."):
        CumlEngine("cuda:3")
