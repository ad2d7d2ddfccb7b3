"""`EngineSuite`: what every engine promises, as tests to inherit.

::

    from wsl_worker.testing import EngineSuite

    class TestMyEngine(EngineSuite):
        def make_engine(self):
            return MyEngine()
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import is_classifier

from sklearn_wsl_gpu.errors import Reason, Unsupported
from sklearn_wsl_gpu.estimators import METHODS, ROWS, Row, third_party
from sklearn_wsl_gpu.state import objects
from sklearn_wsl_gpu.support import Request, facts_of
from wsl_worker.engines.base import Engine

Array = NDArray[Any]

_random = np.random.default_rng(0)
_X: Array = _random.normal(size=(60, 4)) + np.repeat([[0.0], [4.0], [8.0]], 20, axis=0)
_CATEGORIES: Array = _random.integers(0, 3, size=(60, 2)).astype("f8")
_CLASSES: Array = np.repeat([0, 1, 2], 20)
_NUMBERS: Array = _X @ np.array([1.0, -2.0, 3.0, 0.5])

#: What is not fitted on points.
_X_OF: dict[str, Array] = {"OneHotEncoder": _CATEGORIES, "TargetEncoder": _CATEGORIES, "KernelCenterer": _X @ _X.T}
#: Parameters with which small data can be fitted.
_PARAMETERS: dict[str, dict[str, Any]] = {
    "TSNE": {"perplexity": 5, "max_iter": 250, "method": "exact"},
    "IncrementalPCA": {"n_components": 2},
    "KMeans": {"n_clusters": 3, "n_init": 1},
    "SpectralClustering": {"n_clusters": 3},
    "HDBSCAN": {"copy": True},
    "GaussianMixture": {"n_components": 2},
    "Nystroem": {"n_components": 20},
}
_FITS = [name for name, row in ROWS.items() if row.cls is not None]
_PREDICTS = [
    (name, method)
    for name in _FITS
    for method in ROWS[name].method_names
    if not METHODS[method].fits and method not in ("inverse_transform", "error_norm")
]


class EngineSuite:
    """What every engine promises. Inherit it, and say how to make yours.

    Rows that the engine does not name, or has a reason not to take, are skipped.

    Attributes
    ----------
    rtol : float
        Relative tolerance of results, compared with scikit-learn's; 0 says: to the last bit.
    lost : mapping of str to str
        Attributes, separated by spaces, that a fit cannot leave, or leaves in another form, by estimator.
    """

    rtol: ClassVar[float] = 0.0
    lost: ClassVar[Mapping[str, str]] = {}

    def make_engine(self) -> Engine:
        """Return a new engine."""
        raise NotImplementedError("Override make_engine().")

    @pytest.fixture
    def engine(self) -> Engine:
        """Return the engine under test."""
        return self.make_engine()

    def test_it_has_a_name_of_its_own(self, engine: Engine) -> None:
        """Its name is an identifier, and none that a setting uses for something else."""
        assert isinstance(engine, Engine)
        assert engine.name.isidentifier()
        assert engine.name != "auto"

    def test_it_names_rows_of_the_table_only(self, engine: Engine) -> None:
        """Its estimators are a frozenset of names of rows, not empty, and always the same."""
        assert isinstance(engine.estimators, frozenset)
        assert engine.estimators
        assert engine.estimators <= ROWS.keys() | third_party.names()
        assert engine.estimators == self.make_engine().estimators

    @pytest.mark.parametrize("name", _FITS)
    def test_it_answers_before_it_has_seen_any_data(self, engine: Engine, name: str) -> None:
        """`support` answers None or a Reason with a code and words, the same each time, from facts alone."""
        for method in ROWS[name].method_names:
            request = _request(ROWS[name], method, _make(name))
            answer = engine.support(request)
            assert answer is None or (isinstance(answer, Reason) and answer.code and answer.words)
            assert engine.support(request) == answer

    @pytest.mark.parametrize("name", _FITS)
    def test_a_fit_leaves_the_attributes_that_scikit_learn_leaves(self, engine: Engine, name: str) -> None:
        """`state` has every attribute of a local fit, of the same types, dtypes and shapes; nothing of a device."""
        local = _fit_here(name)
        state = self._fitted_state(engine, name)

        kept = {key: value for key, value in vars(local).items() if key not in self.lost.get(name, "").split()}
        assert kept.keys() <= state.keys()
        for key, value in kept.items():
            assert type(state[key]) is type(value), key
            if isinstance(value, np.ndarray) and value.dtype != object:
                assert (state[key].dtype, state[key].ndim) == (value.dtype, value.ndim), key
        assert not [key for key in state if callable(getattr(type(local), key, None))]

    @pytest.mark.parametrize("name", _FITS)
    def test_parameters_come_back_as_they_were(self, engine: Engine, name: str) -> None:
        """A fit changes no hyper-parameter of the model."""
        state = self._fitted_state(engine, name)

        for key, value in _make(name).get_params(deep=False).items():
            assert state[key] is value or state[key] == value, key

    @pytest.mark.parametrize(("name", "method"), _PREDICTS)
    def test_a_model_made_of_a_fitted_state_predicts_what_scikit_learn_does(
        self, engine: Engine, name: str, method: str
    ) -> None:
        """`load` takes the attributes of any fitted estimator and goes on from there, or says why it does not."""
        local = _fit_here(name)
        if not hasattr(local, method):
            pytest.skip("not available with these parameters")
        self._skip_unless_supported(engine, name, method)
        given = _arguments(name, method, score=method == "score")
        expected = getattr(local, method)(*given)

        try:
            model = engine.load(ROWS[name], objects.carried_attributes(local))
        except Unsupported as error:
            pytest.skip(str(error))
        self.check_equal(engine.call(model, method, _locked(given), {}), expected)

    @pytest.mark.parametrize("name", _FITS)
    def test_a_fit_returns_the_model_and_writes_to_no_argument(self, engine: Engine, name: str) -> None:
        """Arguments may be memory of the client: they are read-only, and are left as they are."""
        self._skip_unless_supported(engine, name, "fit")
        given = _arguments(name, "fit", score=True)
        before = [array.copy() for array in given]
        model = engine.load(ROWS[name], objects.carried_attributes(_make(name)))

        assert engine.call(model, "fit", _locked(given), {}) is model
        for array, copy in zip(given, before, strict=True):
            np.testing.assert_array_equal(array, copy)

    def test_two_models_do_not_share_state(self, engine: Engine) -> None:
        """A fit of one model leaves the state of another alone."""
        name = sorted(engine.estimators)[0]
        first = self._fitted_state(engine, name)
        again = dict(first)
        self._fitted_state(engine, name)

        assert first.keys() == again.keys()
        assert all(first[key] is again[key] for key in first)

    def check_equal(self, found: Any, expected: Any) -> None:
        """Compare a result with scikit-learn's, within `rtol`; override for other tolerances."""
        if isinstance(expected, tuple):
            assert len(found) == len(expected)
            for one, other in zip(found, expected, strict=True):
                self.check_equal(one, other)
        elif hasattr(expected, "toarray"):
            assert type(found) is type(expected)
            self.check_equal(found.toarray(), expected.toarray())
        elif isinstance(expected, np.ndarray) and expected.dtype == object:
            assert found.shape == expected.shape
            for one, other in zip(found.flat, expected.flat, strict=True):
                self.check_equal(one, other)
        else:
            assert type(found) is type(expected)
            np.testing.assert_allclose(found, expected, rtol=self.rtol, atol=0 if not self.rtol else 1e-6)

    def _fitted_state(self, engine: Engine, name: str) -> Mapping[str, Any]:
        self._skip_unless_supported(engine, name, "fit")
        model = engine.load(ROWS[name], objects.carried_attributes(_make(name)))
        engine.call(model, "fit", _locked(_arguments(name, "fit", score=True)), {})
        return engine.state(model)

    def _skip_unless_supported(self, engine: Engine, name: str, method: str) -> None:
        if name not in engine.estimators:
            pytest.skip(f"{engine.name} does not compute {name}")
        reason = engine.support(_request(ROWS[name], method, _make(name)))
        if reason is not None:
            pytest.skip(str(reason))


def _make(name: str) -> Any:
    row = ROWS[name]
    assert row.cls is not None
    seed = {"random_state": 0} if "random_state" in row.parameters else {}
    return row.cls(**{**seed, **_PARAMETERS.get(name, {})})


def _arguments(name: str, method: str, *, score: bool) -> list[Array]:
    if not ROWS[name].named:
        return [_CLASSES]
    X = _X_OF.get(name, _X)
    y = _CLASSES if is_classifier(_make(name)) else np.abs(_NUMBERS) if name == "PoissonRegressor" else _NUMBERS
    return [X, y] if score or METHODS[method].fits else [X]


def _locked(arrays: list[Array]) -> list[Array]:
    views = [array.view() for array in arrays]
    for view in views:
        view.flags.writeable = False
    return views


def _fit_here(name: str) -> Any:
    return _make(name).fit(*_arguments(name, "fit", score=True))


def _request(row: Row, method: str, estimator: Any) -> Request:
    arrays = _arguments(row.name, method, score=method == "score")
    return Request(row, method, estimator.get_params(deep=False), facts_of(row, method, arrays, {}))
