"""What surrounds a call is as it is here: warnings, output, random state, scikit-learn's settings, meta-estimators."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, IncrementalPCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, Ridge
from sklearn.manifold import TSNE
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, OneHotEncoder, StandardScaler, TargetEncoder
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.validation import has_fit_parameter

from sklearn_wsl_gpu import offload
from sklearn_wsl_gpu.testing import first_difference
from tests.parity.cases import CATEGORIES, CLASSES, NUMBERS, WEIGHTS, X, on_the_worker

pytestmark = pytest.mark.usefixtures("shared_worker")

FRAME = pd.DataFrame(X, columns=list("abcdef"))


def _warned(do: Callable[[], Any]) -> list[tuple[type[Warning], str, str, int]]:
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        do()
    return [(item.category, str(item.message), item.filename, item.lineno) for item in recorded]


#: Each version of scikit-learn deprecates something else.
DEPRECATED = {"multi_class": "ovr"} if hasattr(LogisticRegression(), "multi_class") else {"penalty": "l2"}
WARNERS: dict[str, tuple[type[Warning], Callable[[], Any]]] = {
    "lbfgs": (ConvergenceWarning, lambda: LogisticRegression(max_iter=2).fit(X, CLASSES)),
    "saga": (ConvergenceWarning, lambda: LogisticRegression(max_iter=1, solver="saga", random_state=0).fit(X, CLASSES)),
    "coordinate descent": (ConvergenceWarning, lambda: Lasso(alpha=1e-9, max_iter=1).fit(X, NUMBERS)),
    "liblinear": (ConvergenceWarning, lambda: LinearSVC(max_iter=1, random_state=0).fit(X, CLASSES)),
    "libsvm": (ConvergenceWarning, lambda: SVC(max_iter=1).fit(X, CLASSES)),
    "k-means": (ConvergenceWarning, lambda: KMeans(5, random_state=0).fit(np.repeat(X[:2], 20, axis=0))),
    "column vector": (DataConversionWarning, lambda: RandomForestClassifier(2).fit(X, CLASSES[:, None])),
    "column vector, neighbors": (DataConversionWarning, lambda: KNeighborsClassifier().fit(X, CLASSES[:, None])),
    "parameter": (FutureWarning, lambda: LogisticRegression(**DEPRECATED).fit(X, CLASSES)),
    "unknown category": (
        UserWarning,
        lambda: OneHotEncoder(handle_unknown="ignore", drop="first").fit(CATEGORIES).transform(CATEGORIES + 2),
    ),
    "names at predict": (UserWarning, lambda: Ridge().fit(X, NUMBERS).predict(FRAME)),
    "no names at predict": (UserWarning, lambda: Ridge().fit(FRAME, NUMBERS).predict(X)),
    "no names at transform": (UserWarning, lambda: StandardScaler().fit(FRAME).transform(X)),
}


@pytest.mark.parametrize("warner", WARNERS)
def test_warnings_are_the_same_in_category_text_place_and_order(warner: str) -> None:
    category, do = WARNERS[warner]
    local = _warned(do)
    with on_the_worker():
        remote = _warned(do)

    assert [kind for kind, *_ in local if issubclass(kind, category)]
    assert remote == local


def test_a_filter_that_ignores_a_warning_ignores_it_from_the_worker() -> None:
    with on_the_worker(), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        LogisticRegression(max_iter=2).fit(X, CLASSES)


def test_a_repeated_warning_is_shown_as_often_as_here() -> None:
    counts = []
    for context in (contextlib.nullcontext, on_the_worker):
        with context(), warnings.catch_warnings(record=True) as recorded:
            warnings.simplefilter("default")
            for _ in range(3):
                Lasso(alpha=1e-9, max_iter=1).fit(X, NUMBERS)
        counts.append(len(recorded))

    assert counts[0] == counts[1]


@pytest.mark.parametrize("seed", [None, 3])
def test_a_warning_that_is_an_error_leaves_the_estimator_untouched(seed: int | None) -> None:
    generator = np.random.RandomState(5)
    estimator = LogisticRegression(max_iter=1, solver="saga", random_state=generator if seed is None else seed)
    before = dict(vars(estimator))

    with offload(fallback="raise"), warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        with pytest.raises(ConvergenceWarning, match="max_iter was reached"):
            estimator.fit(X, CLASSES)

    assert first_difference(before, vars(estimator)) is None


def test_a_fitted_estimator_keeps_its_state_when_a_refit_fails() -> None:
    estimator = LogisticRegression(max_iter=300).fit(X, CLASSES > 0)
    before = dict(vars(estimator.set_params(max_iter=1)))

    with offload(fallback="raise"), warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        with pytest.raises(ConvergenceWarning):
            estimator.fit(X[::2], CLASSES[::2])

    assert first_difference(before, vars(estimator)) is None


VERBOSE: dict[str, Callable[[], Any]] = {
    "KMeans": lambda: KMeans(3, verbose=1, n_init=2, random_state=0).fit(X),
    "LogisticRegression, liblinear": lambda: LogisticRegression(solver="liblinear", verbose=1).fit(X, CLASSES > 0),
    "LogisticRegression, newton": lambda: LogisticRegression(solver="newton-cg", verbose=3).fit(X / 10, CLASSES),
    "SVC": lambda: SVC(verbose=True).fit(X, CLASSES),
    "LinearSVC": lambda: LinearSVC(verbose=2, random_state=0).fit(X / 10, CLASSES),
    "TSNE": lambda: TSNE(verbose=2, perplexity=5, max_iter=300, random_state=0).fit(X),
    "RandomForestClassifier": lambda: RandomForestClassifier(5, verbose=2, random_state=0).fit(X, CLASSES).predict(X),
    "IsolationForest": lambda: IsolationForest(n_estimators=5, verbose=2, random_state=0).fit(X),
}


_TIMES = re.compile(r"[0-9.]+ ?(s|ms|min|sec)\b|time:? +[0-9.]+|[0-9.]+e-[0-9]+s")
_NAMES = re.compile(r"\[Lib(?:SVM|Linear)\]")


@pytest.mark.parametrize("name", VERBOSE)
def test_what_is_printed_here_is_printed_here(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    def text() -> list[tuple[str, int]]:
        # Where a name without an end of line lands among what C code prints depends on what is buffered how.
        parts = [_TIMES.sub("TIME", part) for part in capfd.readouterr()]
        return [(_NAMES.sub("", part), len(_NAMES.findall(part))) for part in parts]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        VERBOSE[name]()
        local = text()
        with on_the_worker():
            VERBOSE[name]()
        remote = text()

    assert local != [("", 0), ("", 0)]
    assert remote == local


def test_print_goes_to_a_replaced_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with on_the_worker():
        KMeans(3, verbose=1, n_init=1, random_state=0).fit(X)

    assert "Initialization complete" in capsys.readouterr().out


SEEDED: dict[str, Callable[[Any], BaseEstimator]] = {
    "KMeans": lambda seed: KMeans(3, random_state=seed),
    "forest": lambda seed: RandomForestClassifier(3, random_state=seed),
    "IsolationForest": lambda seed: IsolationForest(n_estimators=3, random_state=seed),
    "PCA": lambda seed: PCA(2, svd_solver="randomized", random_state=seed),
    "saga": lambda seed: LogisticRegression(solver="saga", max_iter=5, random_state=seed),
    "Lasso": lambda seed: Lasso(selection="random", random_state=seed),
    "LinearSVC": lambda seed: LinearSVC(random_state=seed),
    "SVC": lambda seed: SVC(probability=True, random_state=seed),
    "TSNE": lambda seed: TSNE(init="random", method="exact", perplexity=5, max_iter=250, random_state=seed),
    "TargetEncoder": lambda seed: TargetEncoder(random_state=seed),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SEEDED)
@pytest.mark.parametrize("kind", ["number", "instance", "global"])
def test_random_state_is_used_and_advanced_as_here(name: str, kind: str) -> None:
    def run() -> tuple[Any, ...]:
        np.random.seed(11)
        instance = np.random.RandomState(7)
        estimator = SEEDED[name]({"number": 5, "instance": instance, "global": None}[kind])
        method = "fit_transform" if hasattr(estimator, "fit_transform") else "fit"
        first, second = getattr(estimator, method)(X, CLASSES), getattr(clone(estimator), method)(X, CLASSES)
        assert estimator.random_state is {"number": 5, "instance": instance, "global": None}[kind]
        return first, second, instance, np.random.mtrand._rand

    local = run()
    with on_the_worker():
        remote = run()

    assert first_difference(local, remote) is None


def test_a_random_state_that_is_left_out_is_numpys_global_one_whatever_its_default_is_called() -> None:
    def run() -> Any:
        np.random.seed(3)
        return TargetEncoder().fit_transform(X[:, :2], CLASSES), np.random.mtrand._rand

    local = run()
    with on_the_worker():
        remote = run()

    assert first_difference(local, remote) is None


def test_two_estimators_that_share_a_generator_take_turns() -> None:
    def run() -> Any:
        shared = np.random.RandomState(0)
        models = [RandomForestClassifier(2, random_state=shared), KMeans(2, random_state=shared, n_init=2)]
        return [model.fit(X, CLASSES) for model in models * 2], shared.uniform()

    local = run()
    with on_the_worker():
        remote = run()

    assert first_difference(local, remote) is None


@pytest.mark.parametrize("data", [X, FRAME], ids=["array", "frame"])
@pytest.mark.parametrize("how", ["set_output", "config", "default"])
@pytest.mark.parametrize(
    "estimator",
    [StandardScaler(), PCA(2), KMeans(3, random_state=0, n_init=1), OneHotEncoder(sparse_output=False)],
    ids=lambda estimator: type(estimator).__name__,
)
def test_transformers_give_the_container_that_was_asked_for(estimator: Any, how: str, data: Any) -> None:
    def run() -> Any:
        mine = clone(estimator)
        if how == "set_output":
            mine.set_output(transform="pandas")
        with sklearn.config_context(transform_output="pandas" if how == "config" else None):
            outputs = [mine.fit_transform(data), mine.fit(data).transform(data)]
            if hasattr(mine, "inverse_transform"):
                outputs.append(mine.inverse_transform(np.asarray(outputs[0])))
            return outputs, mine

    local = run()
    with on_the_worker():
        remote = run()

    assert first_difference(local, remote) is None


@pytest.mark.falls_back
@pytest.mark.parametrize("model", [PCA(2), IncrementalPCA(2)], ids=repr)
def test_components_are_turned_back_into_what_they_are_here(model: Any) -> None:
    # Before scikit-learn 1.8 a DataFrame comes back, with the index of the one that went in.
    model.fit(X)
    components = pd.DataFrame(model.transform(X), index=np.arange(60) * 10)
    local = model.inverse_transform(components)
    with offload(fallback="quiet"):
        remote = model.inverse_transform(components)

    assert first_difference(local, remote) is None


def test_a_frame_keeps_its_index() -> None:
    data = FRAME.set_index(np.arange(60) * 10)
    with on_the_worker():
        output = StandardScaler().set_output(transform="pandas").fit_transform(data)

    assert list(output.index) == list(data.index)
    assert list(output.columns) == list("abcdef")


@pytest.mark.falls_back
@pytest.mark.parametrize(
    ("do", "kind"),
    [
        (lambda: Ridge().fit(X * np.nan, NUMBERS), ValueError),
        (lambda: Ridge().fit(X, NUMBERS[:-1]), ValueError),
        (lambda: Ridge(alpha="much").fit(X, NUMBERS), ValueError),
        (lambda: Ridge().fit(X, NUMBERS).predict(X[:, 1:]), ValueError),
        (lambda: Ridge().fit(FRAME, NUMBERS).predict(FRAME.rename(columns={"a": "z"})), ValueError),
        (lambda: Ridge().predict(X), NotFittedError),
        (lambda: SVC().fit(X, np.zeros(60)), ValueError),
        (lambda: Ridge().fit(), TypeError),
        (lambda: KMeans().fit(X, sample_weights=1), TypeError),
        (lambda: SVC().predict_proba(X), AttributeError),
        (lambda: OneHotEncoder().set_output(transform="pandas").fit_transform(X[:, :2]), ValueError),
        (lambda: Normalizer().set_output(transform="pandas").fit_transform(csr_matrix(X)), ValueError),
    ],
)
def test_errors_are_scikit_learns_own(do: Callable[[], Any], kind: type[Exception]) -> None:
    def error() -> tuple[type[BaseException], str]:
        with pytest.raises(kind) as caught:
            do()
        return type(caught.value), str(caught.value)

    local = error()
    for fallback in ("local", "raise"):
        with offload(fallback=fallback):
            assert error() == local


METAS: dict[str, Callable[[], Any]] = {
    "bagging, weighted": lambda: BaggingClassifier(SVC(), 3, random_state=0).fit(X, CLASSES, sample_weight=WEIGHTS),
    "boosting": lambda: AdaBoostClassifier(SVC(), n_estimators=3, random_state=0).fit(
        X, CLASSES, sample_weight=WEIGHTS
    ),
    "calibration": lambda: CalibratedClassifierCV(SVC(), cv=3).fit(X, CLASSES),
    "search": lambda: GridSearchCV(SVC(), {"C": [0.5, 2.0]}, cv=3).fit(X, CLASSES).best_estimator_,
    "pipeline": lambda: make_pipeline(StandardScaler(), PCA(2), KNeighborsClassifier()).fit(FRAME, CLASSES),
    "stacking": lambda: StackingClassifier([("knn", KNeighborsClassifier())], LogisticRegression(), cv=3).fit(
        X, CLASSES
    ),
    "several outputs": lambda: MultiOutputRegressor(ElasticNet()).fit(X, np.column_stack([NUMBERS, NUMBERS])),
    "cross-validation": lambda: cross_val_predict(LogisticRegression(max_iter=20), X, CLASSES, method="predict_proba"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", METAS)
def test_meta_estimators_work_as_here_and_their_parts_are_offloaded(name: str) -> None:
    local = METAS[name]()
    with on_the_worker():
        remote = METAS[name]()

    assert first_difference(local, remote) is None


def test_meta_estimators_see_the_same_signatures_and_methods() -> None:
    def facts() -> list[bool]:
        return [
            *[has_fit_parameter(cls(), "sample_weight") for cls in (SVC, KMeans, PCA, Ridge, KNeighborsClassifier)],
            hasattr(SVC(), "predict_proba"),
            hasattr(SVC(probability=True), "predict_proba"),
            hasattr(CalibratedClassifierCV(SVC()), "predict_proba"),
            hasattr(BaggingClassifier(SVC()), "decision_function"),
            hasattr(SVC(), "transform"),
        ]

    local = facts()
    with offload():
        inside = facts()

    assert inside == local
