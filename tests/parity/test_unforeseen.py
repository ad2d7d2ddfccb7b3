"""What users have around a call, and nobody thinks of: it ends as it ends in local scikit-learn."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.model_selection._validation import _fit_and_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.parallel import Parallel, delayed

from sklearn_wsl_gpu import EngineError, OffloadError, WorkerDied, dispatch, offload, patching, sessions, sockets
from sklearn_wsl_gpu.estimators import third_party
from sklearn_wsl_gpu.protocol import messages
from sklearn_wsl_gpu.sockets import Wire
from tests.parity.cases import CLASSES, X

pytestmark = [pytest.mark.usefixtures("shared_worker"), pytest.mark.falls_back]
LARGE = np.array([[1e200, 1.0], [2e200, 3.0]])


class _Attributes(dict[Any, Any]):
    """A dict whose keys are attributes, as many programs have one."""

    __getattr__ = dict.__getitem__


class _Splits:
    """Splits that are made one after the other, as scikit-learn asks for them."""

    def split(self, *arguments: Any, **keywords: Any) -> Iterator[Any]:
        whole = np.arange(len(X))
        yield whole[:50], whole[50:]
        raise LookupError("there is no second split")

    def get_n_splits(self, *arguments: Any, **keywords: Any) -> int:
        return 2


class _Unhashable:
    def __call__(self, value: int) -> int:
        return value

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


@contextlib.contextmanager
def _another_generator() -> Iterator[None]:
    np.random.set_bit_generator(np.random.PCG64(1))
    try:
        yield
    finally:
        np.random.set_bit_generator(np.random.MT19937(1))


@contextlib.contextmanager
def _without_output() -> Iterator[None]:
    """As in a program without a console on Windows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        yield


@contextlib.contextmanager
def _strict(**floating: Any) -> Iterator[None]:
    with np.errstate(**floating), warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def _with_the_global_generator() -> tuple[float, float]:
    np.random.seed(0)
    whole = np.random.mtrand._rand
    pca = PCA(2, svd_solver="randomized", random_state=whole)
    fitted = Pipeline([("a", pca), ("b", KMeans(3, n_init=1))]).fit(X)
    return fitted[-1].inertia_, np.random.rand()


def _by_keywords() -> list[float]:
    model, half = LogisticRegression(), len(X) // 2
    one = delayed(_fit_and_score)(
        estimator=model, X=X, y=CLASSES, scorer=check_scoring(model), train=np.arange(half),
        test=np.arange(half, len(X)), verbose=0, parameters=None, fit_params=None, score_params=None,
    )  # fmt: skip
    return [found["test_scores"] for found in Parallel()([one, one])]


def _labelled() -> Any:
    labels = pd.Series(CLASSES, index=["columns", *range(1, len(CLASSES))])
    return LogisticRegression().fit(X, labels).coef_.tolist()


def _weighted() -> Any:
    weights = _Attributes({0: 1.0, 1: 2.0, 2: 1.0})
    return LogisticRegression(class_weight=weights).fit(X, CLASSES).coef_.tolist()


def _variances() -> Any:
    return StandardScaler().fit(LARGE).var_.tolist()


CASES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "the global generator as an object": (contextlib.nullcontext, _with_the_global_generator),
    "another bit generator": (
        _another_generator, lambda: GridSearchCV(LogisticRegression(), {"C": [1, 2]}).fit(X, CLASSES).best_score_
    ),
    "no standard output": (_without_output, lambda: KMeans(2, n_init=1, random_state=0, verbose=1).fit(X).inertia_),
    "a dict with attributes": (
        contextlib.nullcontext,
        _weighted,
    ),
    "a label of a Series that is an attribute": (
        contextlib.nullcontext, _labelled
    ),
    "a missing value for data": (contextlib.nullcontext, lambda: StandardScaler().fit(pd.NA)),
    "groups for data": (contextlib.nullcontext, lambda: StandardScaler().fit(pd.DataFrame(X).groupby(0))),
    "floating-point errors that are ignored": (
        lambda: _strict(all="ignore"), _variances
    ),
    "floating-point errors that are raised": (
        lambda: _strict(all="raise"), _variances
    ),
    "floating-point errors that are printed": (
        lambda: _strict(all="print"), _variances
    ),
    "a fit by keywords": (contextlib.nullcontext, _by_keywords),
    "splits that end in an error": (
        contextlib.nullcontext, lambda: cross_val_score(LogisticRegression(), X, CLASSES, cv=_Splits())
    ),
    "a task that cannot be hashed": (
        contextlib.nullcontext, lambda: Parallel()(delayed(_Unhashable())(number) for number in range(2))
    ),
}  # fmt: skip


def _outcome(around: Callable[[], Any], work: Callable[[], Any]) -> str:
    try:
        with around():
            return repr(work())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore::sklearn_wsl_gpu.FallbackWarning", "ignore::FutureWarning")
def test_a_call_ends_as_it_does_here(name: str) -> None:
    around, work = CASES[name]
    expected = _outcome(around, work)
    with offload(fallback="quiet"):
        found = _outcome(around, work)

    assert found == expected


@pytest.mark.filterwarnings("ignore:umap.UMAP is not offloaded")
def test_a_stand_in_for_a_package_keeps_nothing_from_being_offloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", MagicMock())
    third_party.find.cache_clear()
    try:
        with offload(fallback="raise") as session:
            StandardScaler().fit(X)
    finally:
        third_party.find.cache_clear()

    assert session.report().offloaded == 1


def test_an_offload_that_cannot_begin_leaves_the_classes_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(vars(StandardScaler)), patching._patches.users

    wrapped: list[Any] = []

    def fail(cls: Any) -> bool:
        if StandardScaler in wrapped or isinstance(cls, str):  # in the middle, and when a package is told of
            raise UserWarning("as an error")
        wrapped.append(cls)
        return True

    with monkeypatch.context() as patch:
        patch.setattr(patching, "_is_scikit_learns", fail)
        with pytest.raises(UserWarning, match="as an error"):
            offload().__enter__()
    with monkeypatch.context() as patch:
        patch.setattr(patching, "_on_import", fail)
        patch.setattr(patching.follow(), "listen", lambda listener: listener("umap"))
        with pytest.raises(UserWarning, match="as an error"):
            offload().__enter__()

    assert (dict(vars(StandardScaler)), patching._patches.users) == before


@pytest.mark.parametrize("stream", [None, "closed", "without a reader"])
def test_that_nothing_can_be_told_is_no_reason_to_fail(stream: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", buffering=1, closefd=True) as broken, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None if stream is None else broken)
        if stream == "closed":
            broken.close()
        with offload(verbose=1, fallback="raise") as session:
            scaler = StandardScaler().partial_fit(X)
        patch.undo()
        with contextlib.suppress(OSError):
            broken.close()

    assert scaler.n_samples_seen_ == len(X)
    assert session.report().offloaded == 1


@pytest.mark.falls_back("internal-error")
@pytest.mark.parametrize("step", ["_facts", "_ask_in_turn"])
def test_what_fails_by_itself_is_done_here_once_and_told(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise ZeroDivisionError("of this package's own")

    with monkeypatch.context() as patch:
        patch.setattr(dispatch, step, fail)
        with offload() as session, pytest.warns(UserWarning, match="failed by itself .ZeroDivisionError: of this"):
            scaler = StandardScaler().partial_fit(X)
        with offload(fallback="raise"), pytest.raises(OffloadError, match="failed by itself") as raised:
            StandardScaler().fit(X)
    (call,) = session.report().calls

    assert scaler.n_samples_seen_ == len(X)
    assert (call.where, call.reason and call.reason.code) == ("local", "internal-error")
    assert not isinstance(raised.value, EngineError)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_what_fails_after_a_call_is_done_does_not_do_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise OffloadError("too late")

    monkeypatch.setattr(dispatch, "_mark_of_fitted", fail)
    with offload(fallback="quiet") as session:
        scaler = StandardScaler().partial_fit(X)

    assert scaler.n_samples_seen_ == len(X)
    assert session.report().offloaded == 1


@pytest.mark.usefixtures("own_worker")
@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file or directory"), KeyError("no-package")])
def test_what_the_system_refuses_when_a_session_is_opened_is_a_reason_to_compute_here(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def fail(settings: Any) -> None:
        opened.append(settings)
        raise error

    monkeypatch.setattr(sessions, "_open", fail)
    with offload(fallback="quiet") as session:
        StandardScaler().fit(X)
        StandardScaler().fit(X)

    assert [call.reason.code for call in session.report().calls if call.reason] == ["no-session"] * 2
    assert len(opened) == 1, "it is not tried at every call"


@pytest.mark.usefixtures("own_worker")
def test_a_start_that_fails_slowly_is_not_tried_again_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    tried = []

    def fail(settings: Any) -> None:
        tried.append(now[0])
        now[0] += 60.0
        raise OSError("no answer")

    monkeypatch.setattr(sessions, "_open", fail)
    monkeypatch.setattr(sessions.time, "monotonic", lambda: now[0])
    with offload(fallback="quiet") as session:
        settings = session.settings
    for seconds in (0.0, 100.0, 79.0, 2.0):
        now[0] += seconds
        with pytest.raises(OffloadError, match="no answer"):
            sessions.obtain(settings)

    assert tried == [1000.0, 1241.0]


def test_a_connection_that_another_thread_closes_is_a_reason_to_compute_here() -> None:
    with offload(fallback="raise"):
        StandardScaler().fit(X)
    (session,) = sessions.live()
    wire = Wire(session.where.endpoint, session.where.keys, -1, greeted=True)
    wire._socket.close()

    with pytest.raises(WorkerDied, match="was closed during the call"):
        wire.ask(messages.Status(session._welcome.session))


def test_without_threads_for_a_first_socket_no_socket_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(sockets._contexts, "by_pid", {})
    monkeypatch.setattr(threading.Thread, "start", fail)
    keys, _ = sockets.new_keys()

    with pytest.raises(OffloadError, match="cannot open a socket: can't start new thread"):
        Wire("tcp://127.0.0.1:1", keys, -1, greeted=True)
    assert sockets._contexts.by_pid == {}
