"""Sessions over a file, with an ordinary worker: what a user can rely on is what it is over shared memory."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

import sklearn_wsl_gpu
from sklearn_wsl_gpu import offload, sessions
from sklearn_wsl_gpu.keys import create_keys
from tests.integration.tools import standalone_worker, until

pytestmark = pytest.mark.timeout(120)

X = np.random.default_rng(0).normal(size=(60_000, 6))


def test_results_are_identical_to_local_ones_and_the_pool_is_gone_after_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "zwei Wörter 二"
    directory.mkdir()
    monkeypatch.chdir(tmp_path)  # the worker is somewhere else
    with offload(carrier="file", pool_dir=directory.name, fallback="raise") as session:
        scaled = StandardScaler().fit_transform(X)
        model = KMeans(n_clusters=5, n_init=1, random_state=0).fit(scaled)
        labels = model.predict(scaled)
        reduced = PCA(n_components=2, random_state=0).fit_transform(np.asfortranarray(X))
        lent = sklearn_wsl_gpu.asarray(X)
        again = StandardScaler().fit_transform(lent)

        assert session.report().carriers == {"file": ["in use"]}
        assert "file" in str(session.status()["carriers"])
        assert len(list(directory.iterdir())) >= 1
    kept = scaled.copy()
    sessions.shutdown()

    assert list(directory.iterdir()) == []
    np.testing.assert_array_equal(scaled, kept)
    np.testing.assert_array_equal(scaled, StandardScaler().fit_transform(X))
    np.testing.assert_array_equal(again, scaled)
    np.testing.assert_array_equal(labels, KMeans(n_clusters=5, n_init=1, random_state=0).fit(scaled).predict(scaled))
    np.testing.assert_array_equal(reduced, PCA(n_components=2, random_state=0).fit_transform(np.asfortranarray(X)))


def test_a_worker_lets_go_of_the_files_of_a_session_that_is_over(tmp_path: Path) -> None:
    create_keys(tmp_path / "keys")
    with standalone_worker(tmp_path / "keys") as (endpoint, process):
        with offload(
            endpoint=endpoint, keys=tmp_path / "keys", carrier="file", pool_dir=tmp_path, fallback="raise",
            slots=(2, 2, 0), slot_bytes=2**22,
        ) as session:  # fmt: skip
            StandardScaler().fit(X)
            session.grow_pool(2**24)
            assert len(_held(process.pid)) >= 2
            session.shrink_pool()
            until(lambda: len({name for name in _held(process.pid)}) == 1)
        sessions.shutdown()

        until(lambda: not _held(process.pid))


def _held(number: int) -> list[str]:
    """Return the clients' pool files that a process holds open."""
    found = []
    for link in Path(f"/proc/{number}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(link))
    return [name for name in found if "sklearn_wsl_gpu-pool-" in name]


def test_a_directory_that_the_worker_does_not_see_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn_wsl_gpu.carriers import file

    # As from another machine: the path means something else there.
    monkeypatch.setattr(file, "offer", lambda segment: ["file", f"/elsewhere{segment.path}"])

    with (
        pytest.raises(sklearn_wsl_gpu.WorkerUnavailable, match="cannot open the pool's file"),
        offload(carrier="file", pool_dir=tmp_path, fallback="raise"),
    ):
        StandardScaler().fit(X)
