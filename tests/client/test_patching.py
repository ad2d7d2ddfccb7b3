"""Wrapping is invisible: scikit-learn's classes are what they were, but for where their methods run."""

from __future__ import annotations

import inspect
import pickle
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans, MiniBatchKMeans, SpectralClustering
from sklearn.ensemble import BaggingClassifier, ExtraTreesClassifier, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import ElasticNet, Lars, Lasso, MultiTaskLasso, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import KBinsDiscretizer, LabelEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.utils import parallel
from sklearn.utils._available_if import _AvailableIfDescriptor
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from sklearn_wsl_gpu import offload, patching
from sklearn_wsl_gpu.estimators import ROWS
from sklearn_wsl_gpu.reporting import CallRecord

pytestmark = pytest.mark.usefixtures("shared_worker")

X = np.random.default_rng(0).normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)
WRAPPED = [(row.cls, name) for row in ROWS.values() for name in row.method_names if row.cls is not None]


def _everything() -> dict[tuple[Any, str], Any]:
    """Return every attribute that a context might change, as it stands in the class's own dict."""
    classes = {base for row in ROWS.values() if row.cls is not None for base in row.cls.__mro__}
    classes |= {parallel.Parallel, ExtraTreesClassifier, MiniBatchKMeans, MultiTaskLasso}
    return {(cls, name): value for cls in classes for name, value in vars(cls).items()}


def _is_ours(value: Any) -> bool:
    return hasattr(getattr(value, "fn", value), patching._MARK)


# 1: per concrete class, never on the owner


def test_a_method_is_wrapped_on_the_class_itself_also_where_it_is_inherited() -> None:
    assert "fit" not in vars(RandomForestClassifier)
    with offload():
        assert all(_is_ours(vars(cls)[name]) for cls, name in WRAPPED)
        bases = {base for cls, _ in WRAPPED for base in cls.__mro__[1:] if base.__name__ not in ROWS}
        assert not [(base, name) for base in bases for name, value in vars(base).items() if _is_ours(value)]
    assert "fit" not in vars(RandomForestClassifier)


@pytest.mark.parametrize("estimator", [ExtraTreesClassifier(3), MiniBatchKMeans(2), Lars()])
def test_relatives_that_are_in_no_row_are_not_touched(estimator: Any) -> None:
    with offload() as session:
        estimator.fit(X, Y).predict(X)

    assert session.report().calls == []


def test_a_row_that_inherits_from_another_row_is_wrapped_once() -> None:
    with offload():
        raw = getattr(Lasso.fit, patching._MARK)
        assert not hasattr(raw, patching._MARK)
    assert raw is ElasticNet.fit


# 3, 4, 5: plain functions, with the signature and the name of the original


def test_signature_docstring_and_kind_are_kept() -> None:
    def facts(cls: Any, name: str) -> tuple[Any, ...]:
        raw = inspect.getattr_static(cls, name)
        function = getattr(raw, "fn", raw)
        return type(raw), inspect.isfunction(function), inspect.signature(function), function.__doc__, function.__name__

    before = [facts(*one) for one in WRAPPED]
    with offload():
        inside = [facts(*one) for one in WRAPPED]

    assert inside == before


def test_sample_weight_and_metadata_requests_are_still_found() -> None:
    def facts() -> list[Any]:
        found: list[Any] = [has_fit_parameter(cls, "sample_weight") for cls in (SVC, KMeans, KNeighborsClassifier)]
        with sklearn.config_context(enable_metadata_routing=True):
            found += [cls().get_metadata_routing().fit.requests for cls in (SVC, KMeans, StandardScaler)]
            found.append(SVC().set_fit_request(sample_weight=True).get_metadata_routing().fit.requests)
        return found

    before = facts()
    with offload():
        assert facts() == before


@pytest.mark.parametrize(("cls", "name"), [(KMeans, "fit_predict"), (RandomForestClassifier, "fit"), (Ridge, "fit")])
def test_methods_pickle_inside_and_load_as_whatever_is_there_then(cls: Any, name: str) -> None:
    with offload():
        function, bound = pickle.dumps(getattr(cls, name)), pickle.dumps(getattr(cls(), name))
        assert pickle.loads(function) is getattr(cls, name)
        assert getattr(cls, name).__qualname__ == f"{cls.__name__}.{name}"
    assert pickle.loads(function) is getattr(cls, name)
    assert pickle.loads(bound).__func__ is getattr(cls, name)


# 6, 7: conditional methods stay conditional, request methods are left alone


def test_conditional_methods_stay_conditional() -> None:
    def facts() -> list[bool]:
        return [
            hasattr(SVC(), "predict_proba"),
            hasattr(SVC(probability=True), "predict_proba"),
            "predict_proba" in dir(SVC()),
            hasattr(CalibratedClassifierCV(LinearSVC()), "predict_proba"),
            hasattr(VotingClassifier([("svc", SVC())], voting="hard"), "predict_proba"),
            hasattr(BaggingClassifier(KNeighborsClassifier()), "decision_function"),
        ]

    before = facts()
    with offload():
        assert facts() == before
        assert isinstance(inspect.getattr_static(SVC, "predict_proba"), _AvailableIfDescriptor)
        with pytest.raises(AttributeError, match="predict_proba") as caught:
            SVC().predict_proba(X)
    assert "probability=False" in str(caught.value.__cause__)


# 8, 9: restored to the identical object, if still ours, when the last one leaves


def test_every_attribute_is_the_identical_object_afterwards() -> None:
    before = _everything()
    with offload(), offload():
        pass
    after = _everything()

    assert before.keys() == after.keys()
    assert [key for key in before if before[key] is not after[key]] == []


def test_what_somebody_put_on_top_of_a_wrapper_stays() -> None:
    original = vars(Ridge)["fit"]
    try:
        with offload():
            ours = Ridge.fit

            def theirs(self: Ridge, X: Any, y: Any) -> Any:
                return ours(self, X, y)

            Ridge.fit = theirs  # type: ignore[method-assign]
        assert Ridge.fit is theirs
        assert Ridge().fit(X, Y).coef_.shape == (3,)  # our wrapper beneath it does nothing now
    finally:
        Ridge.fit = original  # type: ignore[method-assign]


def test_contexts_may_overlap_in_threads_and_the_last_one_restores() -> None:
    before = _everything()
    ready, leave = threading.Event(), threading.Event()

    def other() -> None:
        with offload():
            ready.set()
            leave.wait(20)

    thread = threading.Thread(target=other)
    with offload():
        thread.start()
        assert ready.wait(20)
    assert patching.is_installed()
    leave.set()
    thread.join()

    assert not patching.is_installed()
    after = _everything()
    assert [key for key in before if before[key] is not after.get(key)] == []


def test_an_exception_in_the_block_restores_as_well() -> None:
    original = Ridge.fit
    with pytest.raises(ZeroDivisionError), offload():
        1 / 0  # noqa: B018

    assert Ridge.fit is original


def test_a_thread_that_starts_inside_begins_without_the_context() -> None:
    with offload() as session:
        thread = threading.Thread(target=lambda: StandardScaler().fit(X))
        thread.start()
        thread.join()

    assert session.report().calls == []


def test_a_bound_method_that_outlives_the_context_runs_here() -> None:
    with offload() as session:
        fit = Ridge().fit
    assert fit(X, Y).coef_.shape == (3,)
    assert session.report().calls == []


# 11: one dispatch for each outermost call


def _records(do: Callable[[], Any]) -> list[CallRecord]:
    with offload() as session:
        do()
    return session.report().calls


@pytest.mark.parametrize(
    ("do", "expected"),
    [
        (lambda: KMeans(2, n_init=1).fit_transform(X), ["KMeans.fit_transform"]),
        (lambda: KMeans(2, n_init=1).fit_predict(X), ["KMeans.fit_predict"]),
        (lambda: SpectralClustering(2).fit(X), ["SpectralClustering.fit"]),
        (lambda: StandardScaler().fit_transform(X), ["StandardScaler.fit_transform"]),
        (
            lambda: RandomForestClassifier(2).fit(X, Y).score(X, Y),
            ["RandomForestClassifier.fit", "RandomForestClassifier.score"],
        ),
        (lambda: SVC().fit(X, Y).predict(X), ["SVC.fit", "SVC.predict"]),
    ],
)
def test_what_a_wrapped_method_calls_is_not_dispatched_again(do: Callable[[], Any], expected: list[str]) -> None:
    assert [f"{call.estimator}.{call.method}" for call in _records(do)] == expected


def test_a_call_that_stays_local_stays_so_entirely() -> None:
    with offload(exclude=["SpectralClustering"]) as session:
        SpectralClustering(2, assign_labels="kmeans").fit(X)

    assert [(call.estimator, call.where) for call in session.report().calls] == [("SpectralClustering", "local")]


@pytest.mark.parametrize(
    ("do", "inner"),
    [
        (lambda: KBinsDiscretizer(3, strategy="kmeans").fit(X), {"KMeans"}),
        (lambda: BaggingClassifier(SVC(), 2).fit(X, Y), {"SVC"}),
        (
            lambda: VotingClassifier([("a", KNeighborsClassifier()), ("b", SVC())]).fit(X, Y),
            {"KNeighborsClassifier", "SVC"},
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_parts_of_other_estimators_are_dispatched_for_themselves(do: Callable[[], Any], inner: set[str]) -> None:
    assert inner <= {call.estimator for call in _records(do) if call.where == "worker"}


# 18 to 21, 33: nothing of ours on objects, nothing changed about them


def test_nothing_is_put_on_instances() -> None:
    local = StandardScaler().fit(X)
    with offload(fallback="raise"):
        remote = StandardScaler().fit(X)
        after_fit = dict(vars(remote))
        remote.transform(X)

        assert vars(remote).keys() == vars(local).keys()
        assert all(vars(remote)[name] is value for name, value in after_fit.items())
        check_is_fitted(remote)


def test_an_unfitted_estimator_is_told_so_by_scikit_learn() -> None:
    def words() -> str:
        with pytest.raises(sklearn.exceptions.NotFittedError) as caught:
            check_is_fitted(Ridge())
        return str(caught.value)

    before = words()
    with offload():
        assert words() == before


def test_identity_clone_tags_parameters_and_repr_are_untouched() -> None:
    def facts() -> list[Any]:
        model = SVC(C=2.0)
        return [
            type(model) is SVC,
            isinstance(clone(model), SVC),
            model.get_params(),
            repr(model),
            re.sub(r"container-id-[0-9]+", "container", model._repr_html_())[:100],  # each repr has its own number
            repr(model.__sklearn_tags__()),
            SVC.__mro__,
            sorted(dir(model)),
        ]

    before = facts()
    with offload():
        inside = facts()

    assert inside[:-1] == before[:-1]
    assert inside[-1] == before[-1]


def test_settings_of_scikit_learn_are_unchanged() -> None:
    before = sklearn.get_config()
    with offload():
        assert sklearn.get_config() == before
        LabelEncoder().fit(Y)
        assert sklearn.get_config() == before
