"""What people see of a running pool: whose leases it holds, who waits for room, and how long that takes."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import OffloadSession, empty, offload, sessions, shutdown
from sklearn_wsl_gpu.errors import DeadlineExceeded
from sklearn_wsl_gpu.pool import counters
from sklearn_wsl_gpu.pool.layout import DATA_OFFSET
from sklearn_wsl_gpu.pool.thresholds import MAX_INLINE_BYTES
from sklearn_wsl_gpu.session import Session
from sklearn_wsl_gpu.standing import look
from tests.integration.tools import POINTS, long_fit, standalone_worker, until

MIB = 2**20
#: Too large to travel in a message.
X = np.random.default_rng(0).normal(size=(2 * MAX_INLINE_BYTES // 64, 8))
FIXED_POOL: dict[str, Any] = {"slots": (1, 1, 0), "slot_bytes": 4 * MIB, "pool_limit": 0}

pytestmark = [pytest.mark.timeout(90), pytest.mark.skipif(os.name == "nt", reason="a worker runs on Linux")]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Start one; give the settings with which it is used."""
    keys = tmp_path_factory.mktemp("worker") / "keys"
    with standalone_worker(keys) as (endpoint, _):
        yield {"endpoint": endpoint, "keys": keys, "fallback": "raise"}


def _session(session: OffloadSession) -> Session:
    return sessions.obtain(session.settings)


def _pools(worker: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the worker tells of the pools of its sessions."""
    found: list[dict[str, Any]] = look(worker["endpoint"], worker["keys"])["sessions"]
    return found


def test_those_who_wait_for_room_are_seen_by_the_worker_and_their_waits_counted_afterwards(
    worker: dict[str, Any],
) -> None:
    with offload(**worker, **FIXED_POOL) as session:
        pool = _session(session).pool
        everything = pool.lease_input(4 * MIB)

        def call(priority: str) -> None:
            with offload(**worker, **FIXED_POOL, priority=priority):
                StandardScaler().fit(X)

        threads = [threading.Thread(target=call, args=(priority,)) for priority in ("low", "high", "low")]
        for thread in threads:
            thread.start()
        until(lambda: _pools(worker)[0]["counters"]["waiting"] == {"high": 1, "normal": 0, "low": 2})
        assert session.status()["pool_counters"]["waiting"]["low"] == 2  # type: ignore[index]
        assert [(slot["state"], slot["owner"]) for slot in _pools(worker)[0]["slots"]] == [("input", ""), ("free", "")]
        everything.release()
        for thread in threads:
            thread.join()

        told = _pools(worker)[0]["counters"]
        assert told == session.status()["pool_counters"] == counters.describe(pool.counters.as_list())
        assert told["waiting"] == {"high": 0, "normal": 0, "low": 0}
        assert told["waits"]["total"] == 3
        assert told["waits"]["seconds"] > 0
        assert told["leased_bytes"] >= 4 * MIB + 3 * X.nbytes
        assert told["peak_bytes"] == 4 * MIB


def test_an_array_of_the_user_is_told_apart_from_results_and_in_which_segment_it_lies(
    worker: dict[str, Any],
) -> None:
    with offload(slots=(1, 1, 0), slot_bytes=MIB, **worker) as session:
        session.grow_pool(2 * MIB)
        array = empty((200_000,))
        held = [slot for slot in _pools(worker)[0]["slots"] if slot["used"]]
        assert [(slot["segment"], slot["number"], slot["state"]) for slot in held] == [(1, 0, "kept"), (1, 1, "kept")]
        assert [slot["owner"] for slot in held] == ["an array of the user"] * 2
        assert held == [
            slot | {"age": pytest.approx(held[0]["age"], abs=60)}
            for slot in session.status()["slots"]  # type: ignore[attr-defined]
            if slot["used"]
        ]
        del array


def test_a_client_that_overwrites_what_it_tells_of_its_pool_hurts_nobody_else(worker: dict[str, Any]) -> None:
    with offload(**worker, slots=(1, 1, 1)) as hostile:
        StandardScaler().fit(X)
        for noise in (bytes(DATA_OFFSET), b"\xff" * DATA_OFFSET, os.urandom(DATA_OFFSET)):
            _session(hostile).pool.segment.map[:DATA_OFFSET] = noise
            with offload(slots=(1, 1, 0)) as other:
                StandardScaler().fit(X)
            found = _pools(worker)
            json.dumps(found, allow_nan=False)
            assert [len(pool["slots"]) for pool in found] == [3, 2]
            assert all(" " <= letter <= "~" for slot in found[0]["slots"] for letter in slot["owner"])
            assert other.report().offloaded == 1


def test_a_worker_forgets_a_session_that_is_closed_after_its_last_call_was_given_up(worker: dict[str, Any]) -> None:
    with offload(**worker, timeout=0.2) as session:
        _session(session).room.ready.wait()
        with pytest.raises(DeadlineExceeded):
            long_fit().fit(POINTS)
    assert len(_pools(worker)) == 1

    shutdown()

    assert _pools(worker) == []
