"""Other people's estimators: a subclass that leaves the computing to its parent is offloaded, any other is not."""

from __future__ import annotations

import pickle
from typing import Any, ClassVar

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.covariance import OAS, EllipticEnvelope
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier, IsolationForest, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import Lasso, LogisticRegression, LogisticRegressionCV, MultiTaskLasso, Ridge
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError

from sklearn_wsl_gpu import OffloadSession, offload
from sklearn_wsl_gpu.testing import assert_same

pytestmark = pytest.mark.usefixtures("shared_worker")

X = np.random.default_rng(0).normal(size=(60, 4))
Y = np.arange(60) % 3


class Plain(KMeans):
    """Changes nothing."""


class WithParameter(KMeans):
    """Has a parameter and a method more, and other defaults."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {**KMeans._parameter_constraints, "unit": [str]}

    def __init__(self, n_clusters: int = 3, *, unit: str = "m", random_state: Any = None) -> None:
        super().__init__(n_clusters, random_state=random_state, n_init=2)
        self.unit = unit

    def describe(self) -> str:
        return f"{self.inertia_:.1f} {self.unit}"


class OtherPredict(LogisticRegression):
    """Fits as its parent does."""

    def predict(self, X: Any) -> Any:
        return super().predict(X) * 10


class OtherHook(RandomForestClassifier):
    """Takes part in its parent's fit."""

    def _set_oob_score_and_attributes(self, *args: Any, **kwargs: Any) -> None:
        self.own_ = True


class Mixin:
    """Comes after the class of the table in the order of methods, and still changes one."""

    def score_samples(self, X: Any) -> Any:
        return np.zeros(len(X))


class Mixed(Mixin, IsolationForest):
    pass


class TolerantScaler(StandardScaler):
    """Says of itself that missing values are no matter."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = not tags.input_tags.allow_nan
        return tags


class NamedScaler(StandardScaler):
    """Overrides its tags, and changes nothing in them that matters."""

    def __sklearn_tags__(self) -> Any:
        return super().__sklearn_tags__()


class Computed(Ridge):
    """Has a property where its parent has a parameter."""

    @property
    def alpha(self) -> float:
        return 2.0

    @alpha.setter
    def alpha(self, value: float) -> None:
        pass


def _where(session: OffloadSession) -> list[tuple[str, str, str]]:
    return [(call.estimator, call.method, call.where) for call in session.report().calls]


@pytest.mark.parametrize(
    ("make", "methods"),
    [
        (lambda: Plain(3, n_init=2, random_state=0), ["fit", "predict", "transform", "score"]),
        (lambda: WithParameter(random_state=0), ["fit", "predict", "fit_predict"]),
        (NamedScaler, ["fit", "transform", "fit_transform"]),
        (lambda: PCAWithName(2), ["fit", "transform", "score"]),
    ],
)
def test_a_subclass_that_changes_nothing_of_the_computation_is_offloaded(make: Any, methods: list[str]) -> None:
    local = make()
    here = [getattr(local, name)(X) for name in methods]
    remote = make()
    with offload(fallback="raise") as session:
        there = [getattr(remote, name)(X) for name in methods]

    assert _where(session) == [(type(remote).__name__, name, "worker") for name in methods]
    for one, other in zip(here, there, strict=True):
        assert_same(other, one)
    assert type(there[0]) is type(remote)
    assert_same(pickle.loads(pickle.dumps(remote)), local)
    assert_same(clone(remote), clone(local))


class PCAWithName(PCA):
    """Keeps something of its own beside the parameters."""

    def __init__(self, n_components: Any = None) -> None:
        super().__init__(n_components, svd_solver="full")


def test_a_method_that_a_subclass_overrides_stays_here_and_the_others_go() -> None:
    with offload(fallback="raise") as session:
        model = OtherPredict().fit(X, Y)
        predicted = model.predict(X)
        model.predict_proba(X)

    assert _where(session) == [
        ("OtherPredict", "fit", "worker"),
        ("OtherPredict", "predict", "local"),
        ("OtherPredict", "predict_proba", "worker"),
    ]
    assert_same(predicted, OtherPredict().fit(X, Y).predict(X))


def test_what_uses_an_overridden_method_stays_here_too() -> None:
    with offload(fallback="raise") as session:
        score = OtherPredict().fit(X, Y).score(X, Y * 10)

    assert [call.where for call in session.report().calls] == ["worker", "local"]
    assert score == OtherPredict().fit(X, Y).score(X, Y * 10)


@pytest.mark.parametrize(
    ("make", "method", "name"),
    [
        (lambda: OtherHook(3, oob_score=True), "fit", "_set_oob_score_and_attributes"),
        (lambda: Mixed(n_estimators=3, random_state=0), "predict", "score_samples"),
        (TolerantScaler, "fit", "__sklearn_tags__"),
        (Computed, "fit", "alpha"),
    ],
)
def test_a_subclass_that_takes_part_in_the_computation_stays_here_and_the_report_says_by_what(
    make: Any, method: str, name: str
) -> None:
    model = make() if method == "fit" else make().fit(X)
    with offload(fallback="raise") as session:
        getattr(model, method)(X, Y) if method == "fit" else getattr(model, method)(X)

    [call] = session.report().calls
    assert call.where == "local"
    assert call.reason is not None
    assert call.reason.code == "overridden"
    assert f" {name} " in call.reason.words


def test_wrong_parameters_of_a_subclass_are_refused_in_scikit_learns_words() -> None:
    with pytest.raises(InvalidParameterError) as local:
        WithParameter(unit=3).fit(X)
    with offload(fallback="raise"), pytest.raises(InvalidParameterError) as remote:
        WithParameter(unit=3).fit(X)

    assert str(remote.value) == str(local.value)


@pytest.mark.parametrize(
    ("make", "target", "offloaded"),
    [
        pytest.param(
            lambda: MultiTaskLasso(0.01),
            np.column_stack([Y, Y]),
            ["predict", "score"],
            marks=pytest.mark.skipif(
                MultiTaskLasso().__sklearn_tags__().input_tags != Lasso().__sklearn_tags__().input_tags,
                reason="in this scikit-learn it takes other data than Lasso does",
            ),
        ),
        (lambda: LogisticRegressionCV(Cs=2, cv=2), Y, ["predict", "predict_proba"]),
        (OAS, None, ["score", "mahalanobis"]),
        (lambda: EllipticEnvelope(random_state=0), None, ["mahalanobis"]),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_scikit_learns_own_subclasses_are_no_exception(make: Any, target: Any, offloaded: list[str]) -> None:
    def use(model: Any) -> list[Any]:
        return [getattr(model, name)(X, target) if name == "score" else getattr(model, name)(X) for name in offloaded]

    local = use(make().fit(X, target))
    with offload(fallback="raise") as session:
        model = make().fit(X, target)
        remote = use(model)

    assert [call.where for call in session.report().calls if call.method in offloaded][-len(offloaded) :] == [
        "worker"
    ] * len(offloaded)
    for one, other in zip(local, remote, strict=True):
        assert_same(other, one)


def test_estimators_that_contain_scikit_learns_work_as_before() -> None:
    ensemble = VotingClassifier([("own", OtherPredict()), ("bag", BaggingClassifier(Tagged(), 2, random_state=0))])
    local = ensemble.fit(X, Y).predict_proba if hasattr(ensemble, "predict_proba") else ensemble.fit(X, Y).predict(X)
    with offload(fallback="raise") as session:
        remote = clone(ensemble).fit(X, Y).predict(X)

    assert_same(remote, local)
    assert ("Tagged", "fit", "worker") in _where(session)


class Tagged(LogisticRegression):
    """Is offloaded inside of other estimators."""


def test_a_row_that_inherits_from_another_is_that_row() -> None:
    with offload(fallback="raise") as session:
        Lasso().fit(X, Y)

    assert _where(session) == [("Lasso", "fit", "worker")]


def test_what_is_set_on_the_object_in_place_of_its_classs_own_is_heeded() -> None:
    def embed() -> Any:
        model = TSNE(init="random", perplexity=5, max_iter=250, random_state=0, verbose=2, method="exact")
        model._N_ITER_CHECK = 25  # how often it prints
        return model.fit_transform(X)

    local = embed()
    with offload(fallback="raise") as session:
        assert_same(embed(), local)

    [call] = session.report().calls
    assert (call.where, call.reason and call.reason.code) == ("local", "overridden")


@pytest.mark.falls_back
def test_a_search_that_was_fitted_on_another_is_offloaded() -> None:
    first = NearestNeighbors().fit(X)
    local = NearestNeighbors().fit(first)
    with offload(fallback="raise"):
        remote = NearestNeighbors().fit(first)
        found = remote.kneighbors(X[:4])

    assert_same(remote, local)
    assert_same(found, local.kneighbors(X[:4]))
    with offload(), pytest.raises(ValueError, match="dimension"):
        remote.kneighbors(X[:, :2])
