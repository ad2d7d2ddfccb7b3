"""The engine around cuML, with scikit-learn in the place of cuML and numpy in that of CuPy.

What is tested is what the engine does before and after cuML: arguments by name, dtypes, what it fills in, refusals.
The stand-in loses what cuML loses. Nothing is said here of what cuML computes.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.sparse
from sklearn.cluster import KMeans
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import Lasso, LinearRegression
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import SVC

from sklearn_wsl_gpu.errors import ConfigurationError, Unsupported
from sklearn_wsl_gpu.estimators import ROWS, Row, find, third_party
from sklearn_wsl_gpu.state import objects
from sklearn_wsl_gpu.support.cuml import TABLE
from sklearn_wsl_gpu.testing import assert_same
from tests.worker import test_cuml_gpu as on_a_gpu
from wsl_worker.engines.base import DeviceLost, Engine
from wsl_worker.engines.cuml import CumlEngine, as_scikit_learn, fills, kinds, memory
from wsl_worker.testing import EngineSuite

pytestmark = pytest.mark.filterwarnings("ignore")

#: What cuML's hooks do not give, by the name of the attribute.
_LOST = {
    "_tol", "_n_init", "_algorithm", "_fit_svd_solver", "rank_", "singular_", "dual_gap_", "affinity_matrix_", "gamma_",
    "_num_iter", "_sample_weight", "_seeds",
}  # fmt: skip

random = np.random.default_rng(2)
X = random.normal(size=(60, 4))
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


class _UnsupportedOnGPU(ValueError):
    pass


class _UnsupportedOnCPU(ValueError):
    pass


class _StandIn:
    """An estimator of scikit-learn with the hooks of cuML's."""

    failure: ClassVar[Exception | None] = None

    def __init__(self, row: Row, parameters: Mapping[str, Any]) -> None:
        assert row.cls is not None
        self._row = row
        names = row.parameters & parameters.keys()
        self._model = row.cls(**{name: parameters[name] for name in names})

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._model, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            if _StandIn.failure is not None:
                raise _StandIn.failure
            value = method(*arguments, **keywords)
            return self if value is self._model else value

        return call

    def _sync_attrs_to_cpu(self, target: Any) -> None:
        own = self._row.initial_names
        found = {name: value for name, value in vars(self._model).items() if name not in {*own, *_LOST}}
        if self._row.name == "IsolationForest":
            del found["_n_samples"]
            found["_sample_weight"] = None
        if self._row.name == "SVR":
            found.update(_n_support=np.array([3, 0]), n_iter_=[self._model.n_iter_])
        vars(target).update(found)

    def _sync_attrs_from_cpu(self, model: Any) -> None:
        if self._row.name == "IsolationForest":
            raise _UnsupportedOnGPU("Conversion is not supported")
        vars(self._model).update(vars(model))
        if self._row.name == "SVC":  # see test_cuml_parts for classifiers that go both ways
            raise _UnsupportedOnGPU("the stand-in takes no classifier")


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def make(row: Row, parameters: Mapping[str, Any], **changes: Any) -> Any:
        return _StandIn(row, {**parameters, **changes})

    interop = types.ModuleType("cuml.internals.interop")
    vars(interop).update(UnsupportedOnGPU=_UnsupportedOnGPU, UnsupportedOnCPU=_UnsupportedOnCPU)
    neighbors = types.ModuleType("cuml.neighbors")
    vars(neighbors).update(NearestNeighbors=lambda output_type, **keywords: NearestNeighbors(**keywords))
    cupyx = types.ModuleType("cupyx")
    sparse = types.ModuleType("cupyx.scipy")
    vars(sparse).update(sparse=scipy.sparse)
    stubs = {
        "cuml": types.ModuleType("cuml"),
        "cuml.internals": types.ModuleType("cuml.internals"),
        "cuml.internals.interop": interop,
        "cuml.neighbors": neighbors,
        "cupy": np,
        "cupyx": cupyx,
        "cupyx.scipy": sparse,
    }
    for name, module in stubs.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(kinds, "make", make)
    monkeypatch.setattr(memory, "use_device", lambda number: None)
    monkeypatch.setattr(memory, "is_usable", lambda: True)
    monkeypatch.setattr(CumlEngine, "unavailable", classmethod(lambda cls, device: None))
    yield
    _StandIn.failure = None


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

        for key in _LOST & vars(local).keys():
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


@pytest.mark.parametrize(("name", "attribute"), [("umap.UMAP", "embedding_"), ("hdbscan.HDBSCAN", "labels_")])
def test_estimators_of_other_packages_keep_their_parameters(name: str, attribute: str) -> None:
    if name not in third_party.installed():
        pytest.skip(f"{name} is not installed")
    row = find(name)
    assert row is not None
    assert row.cls is not None
    objects.register(row)
    local = row.cls(min_cluster_size=8) if name == "hdbscan.HDBSCAN" else row.cls(random_state=0, n_epochs=5)
    engine = CumlEngine()
    model = engine.load(row, objects.carried_attributes(local))
    engine.call(model, "fit", [X], {})
    state = engine.state(model)

    assert {key: state[key] for key in row.parameters} == local.get_params()
    assert getattr(objects.build_estimator(row.cls, state), attribute).shape[0] == 60


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
    _StandIn.failure = AssertionError("it was computed")

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
    _StandIn.failure = failure

    with pytest.raises(MemoryError):
        engine.call(model, "fit", [X], {})


def test_an_error_after_which_the_device_does_not_answer_is_a_lost_device(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, model = _load("KMeans", KMeans(2))
    _StandIn.failure = RuntimeError("cudaErrorIllegalAddress")
    monkeypatch.setattr(memory, "is_usable", lambda: False)

    with pytest.raises(DeviceLost, match="The GPU no longer answers: cudaErrorIllegalAddress"):
        engine.call(model, "fit", [X], {})


def test_an_error_about_the_data_stays_what_it_is() -> None:
    engine, model = _load("KMeans", KMeans(2))
    _StandIn.failure = ValueError("n_clusters")

    with pytest.raises(ValueError, match="n_clusters"):
        engine.call(model, "fit", [X], {})


def test_an_engine_that_cannot_run_says_why_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CumlEngine, "unavailable", classmethod(lambda cls, device: f"there is no {device}."))

    with pytest.raises(ConfigurationError, match=r"cuml cannot run: there is no cuda:3\."):
        CumlEngine("cuda:3")
