"""Parts of estimators are computed by engines, each by the first that takes it, and data stay on the device between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection._validation import _fit_and_score
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.validation import check_is_fitted

from sklearn_wsl_gpu.errors import EngineError, Reason, Unsupported
from sklearn_wsl_gpu.estimators import GRAPHS, METHODS, Row
from sklearn_wsl_gpu.state import Encoder, objects
from sklearn_wsl_gpu.state.splits import Rows
from sklearn_wsl_gpu.support import Request
from tests.parity.cases import CLASSES, NUMBERS, X
from wsl_worker.binding import Binding, unabandoned
from wsl_worker.engines.base import DeviceLost
from wsl_worker.engines.cpu import CpuEngine
from wsl_worker.fits import Fits
from wsl_worker.resident import Resident, give_back


class _Native:
    """An array on a made-up device: numpy cannot see into it."""

    __array_ufunc__ = None

    def __init__(self, values: Any) -> None:
        self.values = values
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, key: Any) -> _Native:
        return _Native(self.values[key])

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError("it is on a device")

    def __dlpack__(self) -> None:
        """Only that it is there is looked at."""


class _Engine(CpuEngine):
    """Plain scikit-learn that says it computes on a device, and counts what goes there and back."""

    name = "made-up"

    def __init__(self, *estimators: str, refuses: str = "", name: str = "made-up") -> None:
        self.name = name
        self._names = estimators
        self._refuses = refuses
        self.moves: Counter[str] = Counter()
        self.computed: list[str] = []

    @property
    def arrays(self) -> str:
        return "made-up"

    @property
    def estimators(self) -> frozenset[str]:
        return frozenset(self._names) or super().estimators

    def support(self, request: Request) -> Reason | None:
        return None

    def put(self, array: Any) -> Any:
        if array.ndim == 2 and array.dtype.kind == "f":
            self.moves["put"] += 1
        return _Native(array)

    def get(self, array: Any) -> Any:
        if not isinstance(array, _Native):
            return array
        self.moves["get"] += 1
        return array.values

    def take(self, array: Any, index: Any, axis: int) -> Any:
        return _Native(array.values[:, index] if axis else array.values[index])

    def side_by_side(self, arrays: Sequence[Any]) -> Any:
        return _Native(np.hstack([array.values for array in arrays]))

    def compute(self, model: Any, method: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        value = self.call(model, method, arguments, keywords)
        return _Native(value) if isinstance(value, np.ndarray) else value

    def call(self, model: Any, method: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        assert not any(isinstance(value, Resident) for value in [*arguments, *keywords.values()])
        if self._refuses == type(model).__name__:
            raise Unsupported("NaN is not taken.", "unsupported-by-engine")
        self.computed.append(f"{type(model).__name__}.{method}")
        given = [value.values if isinstance(value, _Native) else value for value in arguments]
        named = {name: value.values if isinstance(value, _Native) else value for name, value in keywords.items()}
        return super().call(model, method, given, named)


GRAPHS_HERE: dict[str, Any] = {
    "pipeline": lambda: make_pipeline(StandardScaler(), PCA(3), LogisticRegression()),
    "union": lambda: make_pipeline(make_union(PCA(2), MinMaxScaler()), LogisticRegression()),
    "columns": lambda: make_pipeline(
        make_column_transformer((StandardScaler(), [0, 1]), ("passthrough", [2]), remainder=PCA(1)),
        LogisticRegression(),
    ),
    "calibrated": lambda: CalibratedClassifierCV(make_pipeline(StandardScaler(), LogisticRegression()), cv=3),
    "calibrated as a whole": lambda: CalibratedClassifierCV(LogisticRegression(), cv=3, ensemble=False),
    "in itself": lambda: make_pipeline(make_pipeline(StandardScaler(), PCA(2)), LogisticRegression()),
}


def _load(binding: Binding, graph: Any) -> Any:
    return binding.load(GRAPHS[type(graph).__name__], objects.carried_attributes(graph))


@pytest.mark.parametrize("name", GRAPHS_HERE)
def test_a_graph_is_fitted_as_scikit_learn_fits_it_and_data_cross_once_each_way(name: str) -> None:
    engine = _Engine()
    binding = Binding([engine])
    local = GRAPHS_HERE[name]().fit(X, CLASSES)

    model = _load(binding, GRAPHS_HERE[name]())
    fitted = binding.call(model, "fit", [X, CLASSES], {})
    found = binding.call(model, "predict", [X], {})

    assert fitted is model
    assert engine.moves == {"put": 2}, "X at the fit and at the prediction, and nothing between"
    np.testing.assert_array_equal(found, local.predict(X))
    assert _encoded(model) == _encoded(local)
    check_is_fitted(model)


def _encoded(estimator: Any) -> Any:
    encoder = Encoder()
    node = encoder.encode(estimator)
    return node, [array.tolist() for array in encoder.arrays]


def test_each_part_is_computed_by_the_first_engine_that_takes_it() -> None:
    first, second = _Engine("LogisticRegression", "PCA", name="first"), _Engine(name="second", refuses="PCA")
    binding = Binding([first, second])

    model = _load(binding, GRAPHS_HERE["pipeline"]())
    binding.call(model, "fit", [X, CLASSES], {})

    assert first.computed == ["PCA.fit_transform", "LogisticRegression.fit"]
    assert second.computed == ["StandardScaler.fit_transform"]
    assert first.moves + second.moves == {"put": 1}, "engines of one kind share their arrays"


def test_a_part_that_an_engine_refuses_when_it_sees_the_data_is_computed_by_the_next() -> None:
    first, second = _Engine(name="first", refuses="PCA"), _Engine(name="second")
    model = _load(binding := Binding([first, second]), GRAPHS_HERE["pipeline"]())

    binding.call(model, "fit", [X, CLASSES], {})
    binding.call(model, "predict", [X], {})

    assert second.computed == ["PCA.fit_transform", "PCA.transform"]
    assert "LogisticRegression.predict" in first.computed


def test_a_part_that_no_engine_takes_abandons_the_whole_also_where_scikit_learn_would_call_it_a_failed_fit() -> None:
    binding = Binding([_Engine(refuses="Ridge")])
    model = binding.bind(make_pipeline(StandardScaler(), Ridge()))

    with pytest.raises(Unsupported, match="NaN is not taken"):
        unabandoned(
            lambda: _fit_and_score(
                model, X, NUMBERS, scorer=lambda *args: 0.0, train=np.arange(30), test=np.arange(30, 60), verbose=0,
                parameters=None, fit_params=None, score_params=None, error_score=np.nan,
            )
        )  # fmt: skip


def test_an_error_of_an_engine_ends_the_whole_for_scikit_learn_may_have_none() -> None:
    binding = Binding([_Engine()])
    model = _load(binding, make_pipeline(StandardScaler(), Ridge(alpha=-1.0)))

    with pytest.raises(EngineError, match=r"Ridge.fit failed by made-up: .*'alpha' parameter of Ridge"):
        binding.call(model, "fit", [X, NUMBERS], {})


def test_an_error_of_plain_scikit_learn_is_what_it_takes_it_for() -> None:
    binding = Binding([_Engine("StandardScaler"), CpuEngine()])
    model = _load(binding, make_pipeline(StandardScaler(), Ridge(alpha=-1.0)))

    with pytest.raises(ValueError, match=r"^The 'alpha' parameter of Ridge"):
        binding.call(model, "fit", [X, NUMBERS], {})


@pytest.mark.parametrize(("is_usable", "wanted"), [(True, MemoryError), (False, DeviceLost)])
def test_an_error_of_a_device_is_what_it_means(
    is_usable: bool, wanted: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _Engine()
    binding = Binding([engine])
    model = _load(binding, make_pipeline(StandardScaler(), Ridge()))

    def fail(*_: Any) -> None:
        raise RuntimeError("cudaErrorMemoryAllocation")

    monkeypatch.setattr(engine, "call", fail)
    monkeypatch.setattr(engine, "is_usable", lambda: is_usable)
    with pytest.raises(wanted, match="cudaErrorMemoryAllocation"):
        binding.call(model, "fit", [X, NUMBERS], {})


def test_classes_are_made_once_for_the_same_engines() -> None:
    engine = _Engine()
    before = len(objects.ESTIMATOR_NAMES)
    for _ in range(3):
        _load(Binding([engine]), make_pipeline(StandardScaler(), Ridge()))

    assert len(objects.ESTIMATOR_NAMES) == before + 2


def test_all_fits_of_a_search_share_the_data_on_the_device() -> None:
    engine = _Engine()
    binding = Binding([engine])
    estimator = make_pipeline(StandardScaler(), Ridge())
    halves = Rows(np.arange(0, 60, 2), 60), Rows(np.arange(1, 60, 2), 60)
    candidates: list[Any] = [{"ridge__alpha": 0.1}, {"ridge": Ridge(alpha=2.0)}]
    asked = [(0, candidate, 0, {}) for candidate in range(2)]
    common = {
        "scorer": None, "verbose": 0, "fit_params": None, "score_params": None, "return_estimator": True,
        "error_score": "raise",
    }  # fmt: skip
    common["scorer"] = _score
    fits = Fits("fit_and_score", [X, NUMBERS, [clone(estimator)], candidates, [halves], asked], common)
    assert [binding.support(request) for request in fits.requests({})] == [None, None]
    fits.bind(binding)

    results = unabandoned(lambda: fits.run(None))

    assert engine.moves["put"] == 1
    for result, candidate in zip(results, candidates, strict=True):
        local = clone(estimator).set_params(**clone(candidate, safe=False)).fit(X[::2], NUMBERS[::2])
        assert _encoded(result["estimator"]) == _encoded(local)
        assert result["test_scores"] == local.score(X[1::2], NUMBERS[1::2])
    assert "Ridge.fit" in engine.computed


def _score(estimator: Any, data: Any, target: Any) -> Any:
    return estimator.score(data, target)


def test_methods_that_no_engine_has_are_scikit_learns_own_on_what_engines_have_fitted() -> None:
    class WithoutScore(_Engine):
        def methods(self, row: Row) -> frozenset[str]:
            return super().methods(row) - {"score"}

    engine = WithoutScore()
    model = Binding([engine]).bind(Pipeline([("scale", StandardScaler()), ("fit", KMeans(2, random_state=0))]))
    local = clone(Pipeline([("scale", StandardScaler()), ("fit", KMeans(2, random_state=0))])).fit(X)
    model.fit(X)

    assert model.score(X) == local.score(X)
    assert "KMeans.score" not in engine.computed
    assert list(model[:1].get_feature_names_out()) == list(local[:1].get_feature_names_out())


@pytest.mark.parametrize(
    "take",
    [
        lambda data: data[np.array([3, 1])],
        lambda data: data[np.array([3, 1]), ...],
        lambda data: data[[True] + [False] * 59],
        lambda data: data[:, [0, 2]],
        lambda data: data[:, 1:3],
        lambda data: data[:, 1],
        lambda data: data[:, [-1, 0]],
        lambda data: data[3:9:2],
        lambda data: data[np.ix_([1, 2], [0, 3])],
        lambda data: np.hstack([data, data[:, :1]]),
        lambda data: np.hstack([data, np.ones((60, 1))]),
        lambda data: np.concatenate([data, data], axis=1),
        lambda data: np.concatenate([data, data]),
        lambda data: np.asarray(data, dtype="f4"),
        lambda data: np.mean(data, axis=0),
    ],
)
def test_a_resident_array_gives_what_numpy_gives(take: Any) -> None:
    engine = _Engine()
    found = take(Resident(engine, engine.put(X)))

    np.testing.assert_array_equal(give_back(found), take(X))


def test_methods_of_bound_estimators_are_those_of_the_table_and_look_like_scikit_learns() -> None:
    model = Binding([_Engine()]).bind(Ridge())

    assert isinstance(model, Ridge)
    assert repr(model) == "Ridge()"
    assert type(clone(model)) is type(model)
    assert {name for name in METHODS if name in vars(type(model))} == {"fit", "predict", "score"}


class _Kept:
    """Keeps data on the device under the object that they came as."""

    def __init__(self) -> None:
        self.found: dict[int, Any] = {}

    def get(self, engine: Any, data: Any) -> Any:
        return self.found.get(id(data))

    def keep(self, engine: Any, data: Any, resident: Any) -> None:
        self.found[id(data)] = resident


def test_data_that_are_on_the_device_already_do_not_go_there_again() -> None:
    engine, kept = _Engine(), _Kept()
    for _ in range(2):
        model = _load(binding := Binding([engine], kept), GRAPHS_HERE["pipeline"]())
        binding.call(model, "fit", [X, CLASSES], {})

    assert engine.moves == {"put": 1}
