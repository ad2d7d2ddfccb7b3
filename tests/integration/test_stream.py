"""Arrays over a socket: results are those of local scikit-learn, whatever happens on the way, and nothing is left."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, Normalizer, StandardScaler

import sklearn_wsl_gpu
from sklearn_wsl_gpu import offload, sessions
from sklearn_wsl_gpu.estimators import METHODS, ROWS
from sklearn_wsl_gpu.pool.thresholds import Thresholds
from sklearn_wsl_gpu.testing import first_difference
from tests.parity.cases import CLASSES, data_for, do, takes_labels

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="a worker runs on Linux"),
    pytest.mark.timeout(180),
]

LARGE = np.random.default_rng(0).normal(size=(60_000, 10))
SCALED = StandardScaler().fit_transform(LARGE)


@pytest.fixture
def all_arrays_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small arrays take the way of the large ones."""
    monkeypatch.setattr("sklearn_wsl_gpu.pool.thresholds.decide", lambda costs: Thresholds(0, 1))


def _streams() -> Any:
    return offload(carrier="stream", fallback="raise", engine="cpu")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("all_arrays_travel")
def test_every_estimator_gives_the_same_as_here() -> None:
    found = {}
    with _streams() as session:
        StandardScaler().fit(LARGE)
        for one in sessions.live():
            one.room.ready.wait()
        for name, row in ROWS.items():
            data, target = (CLASSES, None) if takes_labels(name) else data_for(name)
            methods = [method for method in row.method_names if METHODS[method].fits][:1]
            methods += [method for method in ("predict", "transform") if method in row.method_names]
            for method in methods:
                found[name, method] = do(name, method, data, target)
        assert session.report().local == 0
    for (name, method), remote in found.items():
        data, target = (CLASSES, None) if takes_labels(name) else data_for(name)
        local = do(name, method, data, target)
        assert first_difference(local[0], remote[0], "result") is None, (name, method)
        assert first_difference(local[1], remote[1], name) is None, (name, method)


def _shapes() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    base = rng.normal(size=(3000, 40))
    return {
        "one number": rng.normal(size=(1, 1)),
        "a few": rng.normal(size=(7, 3)),
        "Fortran": np.asfortranarray(base),
        "every other row": base[::2],
        "every other column": base[:, ::2],
        "backwards": base[::-1, ::-1],
        "transposed": rng.normal(size=(40, 3000)).T,
        "one column of many": base[:, 3:4],
        "single precision": base.astype("f4"),
        "integers": (base * 10).astype("i8"),
        "read only": _read_only(base),
        "at an odd address": _odd(base),
        "sparse": scipy.sparse.random(2000, 50, 0.05, "csr", random_state=0),
        "hundred megabytes": rng.normal(size=(640_000, 20)),
    }


def _read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _odd(array: np.ndarray) -> np.ndarray:
    memory = np.empty(array.nbytes + 8, np.uint8)[8:]
    copy = memory.view(array.dtype).reshape(array.shape)
    copy[:] = array
    return copy


@pytest.mark.usefixtures("all_arrays_travel")
def test_arrays_of_every_form_arrive_as_they_are() -> None:
    shapes = _shapes()
    expected = {name: MaxAbsScaler().fit_transform(X) for name, X in shapes.items()}
    with _streams() as session:
        for name, X in shapes.items():
            assert first_difference(expected[name], MaxAbsScaler().fit_transform(X), name) is None
    assert session.report().offloaded == len(shapes)


def test_a_search_and_a_pipeline_find_what_they_find_here() -> None:
    X, y = LARGE[:3000], LARGE[:3000, 0]

    def work() -> list[Any]:
        search = GridSearchCV(make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": [0.1, 1.0]}, cv=3).fit(X, y)
        return [
            search.best_estimator_.predict(X),
            cross_val_predict(Ridge(), X, y, cv=3),
            make_pipeline(StandardScaler(), PCA(3, random_state=0)).fit_transform(X),
        ]

    expected = work()
    with _streams() as session:
        found = work()
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert session.report().local == 0


def test_what_lies_in_the_pool_is_brought_there_as_it_is_at_the_time_of_the_call() -> None:
    tripled = StandardScaler().fit(LARGE * 3).mean_
    expected = MinMaxScaler().fit_transform((SCALED + 1)[100:30_000])
    with _streams() as session:
        made = sklearn_wsl_gpu.empty(LARGE.shape)
        made[:] = LARGE
        np.testing.assert_array_equal(StandardScaler().fit_transform(made), SCALED)
        made *= 3
        np.testing.assert_array_equal(StandardScaler().fit(made).mean_, tripled)
        kept = StandardScaler().fit_transform(LARGE)  # a view on its span
        kept += 1
        part = kept[100:30_000]
        np.testing.assert_array_equal(MinMaxScaler().fit_transform(part), expected)
        np.testing.assert_array_equal(kept, SCALED + 1)
        del made, kept, part
        gc.collect()
    assert session.report().offloaded == 4


@pytest.mark.parametrize("carrier", ["stream", "file"])
def test_what_lies_in_the_pool_is_not_sent_again_while_it_is_what_it_was(
    carrier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sklearn_wsl_gpu.carriers.unchanged._WORTH", float("inf"))  # however fast the way is
    expected, tripled = MinMaxScaler().fit_transform(LARGE), MinMaxScaler().fit_transform(LARGE * 3)
    with offload(carrier=carrier, pool_dir=tmp_path, fallback="raise", engine="cpu") as session:
        made = sklearn_wsl_gpu.asarray(LARGE)
        for _ in range(4):
            np.testing.assert_array_equal(MinMaxScaler().fit_transform(made), expected)
        made *= 3
        np.testing.assert_array_equal(MinMaxScaler().fit_transform(made), tripled)
        np.testing.assert_array_equal(StandardScaler().fit_transform(made), StandardScaler().fit_transform(LARGE * 3))
        sent = [call.bytes_sent >= LARGE.nbytes for call in session.report().calls]
        assert sent == [True, True, False, False, True, False, True]  # the last one's is an array of its own
        assert all(call.bytes_sent < 2000 or call.bytes_sent >= LARGE.nbytes for call in session.report().calls)
        del made
        gc.collect()


def test_a_result_that_is_computed_where_its_input_was_sent_leaves_the_users_array_as_it_is() -> None:
    X = LARGE.copy()
    with _streams():
        for estimator in (StandardScaler(), MinMaxScaler(), MaxAbsScaler(), Normalizer()):
            expected = type(estimator)().fit(LARGE)
            found = type(estimator)().fit(X).transform(X)
            np.testing.assert_array_equal(found, expected.transform(LARGE))
            np.testing.assert_array_equal(X, LARGE)


def _memory_of(pool: Any) -> int:
    return sum(os.fstat(segment.descriptor).st_blocks * 512 for segment in pool.segments.values())


def test_a_large_array_that_is_sent_takes_no_memory_of_this_sides_pool() -> None:
    large, strided = np.tile(LARGE, (10, 1)), np.tile(LARGE, (1, 20))[:, ::2]
    scaled, mean = StandardScaler().fit_transform(large), StandardScaler().fit(strided).mean_
    with _streams() as session:
        StandardScaler().fit(LARGE)
        pool = sessions.obtain(session.settings).pool
        before = _memory_of(pool)
        StandardScaler().fit(large)
        assert _memory_of(pool) - before < large.nbytes / 4
        # What is not contiguous is put together there.
        np.testing.assert_array_equal(StandardScaler().fit(strided).mean_, mean)
        assert _memory_of(pool) - before > strided.nbytes * 0.9
        # A result that is computed where its input was sent comes back to there.
        np.testing.assert_array_equal(StandardScaler().fit_transform(large), scaled)


def _memory_of_worker(number: int) -> int:
    found = {}
    for path in Path(f"/proc/{number}/fd").iterdir():
        if "memfd:sklearn_wsl_gpu" in os.readlink(path):
            about = path.stat()
            found[about.st_ino] = about.st_blocks * 512
    return sum(found.values())


def test_a_worker_gives_the_memory_back_that_nothing_lies_in() -> None:
    large = np.tile(LARGE, (10, 1))
    scaled = StandardScaler().fit_transform(large)
    with offload(carrier="stream", fallback="raise", engine="cpu", prefault=0) as session:
        kept = StandardScaler().fit_transform(large)
        worker = int(str(session.status()["pid"]))
        assert _memory_of_worker(worker) > large.nbytes
        session.shrink_pool()
        assert _memory_of_worker(worker) > large.nbytes, "what is kept was not to be leased anew meanwhile"
        np.testing.assert_array_equal(kept, scaled)

        del kept
        gc.collect()
        session.shrink_pool()

        assert _memory_of_worker(worker) < large.nbytes / 4
        for _ in range(2):
            np.testing.assert_array_equal(StandardScaler().fit_transform(large), scaled)
            session.shrink_pool()


def test_segments_are_added_while_calls_run_and_given_back() -> None:
    settings: dict[str, Any] = {"slot_bytes": 2**21, "slots": (1, 1, 1), "pool_limit": 2**27}
    with offload(carrier="stream", fallback="raise", engine="cpu", **settings) as session:
        kept = [StandardScaler().fit_transform(LARGE) for _ in range(6)]
        assert len(sessions.obtain(session.settings).pool.segments) > 3
        for one in kept:
            np.testing.assert_array_equal(one, SCALED)
        del kept, one
        gc.collect()
        session.shrink_pool()
        assert len(sessions.obtain(session.settings).pool.segments) == 1
        np.testing.assert_array_equal(StandardScaler().fit_transform(LARGE), SCALED)


def test_many_threads_get_their_own_results() -> None:
    data = [np.random.default_rng(seed).normal(size=(20_000 + seed, 8)) for seed in range(6)]
    expected = [StandardScaler().fit_transform(X) for X in data]
    wrong: list[Any] = []

    def work(number: int) -> None:
        try:
            with offload(carrier="stream", fallback="raise", engine="cpu", slot_bytes=2**22, slots=(2, 2, 2)):
                for _ in range(10):
                    if not np.array_equal(StandardScaler().fit_transform(data[number]), expected[number]):
                        wrong.append(number)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(data))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
