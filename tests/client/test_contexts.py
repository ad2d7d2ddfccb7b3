"""Contexts that are left in another order, thread or number than they were entered, and settings given in odd ways."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import ConfigurationError, DeadlineExceeded, config, offload, patching, sessions
from sklearn_wsl_gpu.config import from_environment


def test_one_that_was_entered_inside_stays_when_the_outer_one_is_left_first() -> None:
    outer, inner = offload(), offload(policy="auto")
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)

    frame = config.active()
    assert frame is not None
    assert frame.owner is inner
    inner.__exit__(None, None, None)
    assert config.active() is None
    assert not patching.is_installed()


def test_one_that_is_left_in_another_thread_is_left() -> None:
    context = offload()
    context.__enter__()
    thread = threading.Thread(target=context.__exit__, args=(None, None, None))
    thread.start()
    thread.join()

    assert config.active() is None
    assert not patching.is_installed()
    with offload() as session:
        assert config.active() is not None
    assert session.report().calls == []


def test_to_leave_one_twice_does_nothing_to_those_that_follow() -> None:
    context = offload()
    context.__enter__()
    for _ in range(3):
        context.__exit__(None, None, None)
    assert not patching.is_installed()

    with offload():
        assert patching.is_installed()
    assert not patching.is_installed()


def test_it_decorates_generators() -> None:
    @offload()
    def numbers() -> Iterator[object]:
        received = yield config.active()
        yield received
        return None

    made = numbers()
    assert next(made) is not None
    assert made.send("sent") == "sent"
    assert list(made) == []
    assert config.active() is None


def test_it_decorates_asynchronous_generators() -> None:
    @offload()
    async def frames() -> AsyncIterator[object]:
        yield config.active()

    async def collect() -> list[object]:
        return [frame async for frame in frames()]

    assert asyncio.run(collect())[0] is not None
    assert config.active() is None


def test_one_that_is_entered_may_be_pickled_and_is_not_entered_there() -> None:
    context = offload(exclude=["KMeans"])
    with context:
        copy = pickle.loads(pickle.dumps(context))

    assert repr(copy) == repr(context)
    copy.__exit__(None, None, None)
    with copy:
        assert config.active() is not None
    assert config.active() is None


@pytest.mark.parametrize("name", ["include", "exclude"])
def test_names_may_come_from_an_iterator(name: str) -> None:
    given: Any = {name: (one for one in ["KMeans", "PCA"])}
    context = offload(**given)
    settings = [getattr(context.resolved(), name) for _ in range(2)]

    assert settings == [frozenset({"KMeans", "PCA"})] * 2
    assert repr(context) == f"offload({name}=['KMeans', 'PCA'])"
    assert offload(slots=map(int, "482")).resolved().slots == (4, 8, 2)  # type: ignore[arg-type]


def test_what_is_given_is_what_it_was_then(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names: Any = ["KMeans"]
    monkeypatch.chdir(tmp_path)
    context = offload(exclude=names, keys="keys")
    names.append("nobody")
    monkeypatch.chdir("/")

    assert context.resolved().exclude == frozenset({"KMeans"})
    assert context.resolved().keys == str(tmp_path / "keys")


@pytest.mark.parametrize("name", config.NAMES)
def test_an_empty_variable_is_one_that_is_not_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(config.PREFIX + name.upper(), raising=False)
    unset = from_environment()
    monkeypatch.setenv(config.PREFIX + name.upper(), "")

    assert from_environment() == unset


@pytest.mark.parametrize(
    ("given", "means"), [("1", "cuda:1"), (np.int64(2), "cuda:2"), ("cuda", "cuda:0"), (0, "cuda:0")]
)
def test_a_gpu_may_be_named_by_its_number(given: Any, means: str) -> None:
    assert offload(device=given).resolved().device == means


@pytest.mark.parametrize(
    ("name", "value"), [("min_elements", float("inf")), ("min_elements", 1.5), ("slots", (4.9, 4, 8)), ("device", -1)]
)
def test_a_number_that_is_none_is_refused_by_name(name: str, value: Any) -> None:
    given: Any = {name: value}
    with pytest.raises(ConfigurationError, match=f"^{name} must be"):
        offload(**given)


def test_elements_of_nested_lists_are_counted() -> None:
    X = [[float(row + column) for column in range(10)] for row in range(50)]
    with offload(min_elements=400, fallback="raise") as session:
        StandardScaler().fit(X)

    assert session.report().offloaded == 1


def test_a_call_with_a_timeout_does_not_wait_for_another_thread_that_opens_a_session() -> None:
    held, go_on = threading.Event(), threading.Event()

    def open_one() -> None:
        with sessions._sessions.lock:
            held.set()
            go_on.wait(60)

    thread = threading.Thread(target=open_one)
    thread.start()
    assert held.wait(10)
    try:
        with offload(timeout=0.05, fallback="raise"), pytest.raises(DeadlineExceeded):
            StandardScaler().fit(np.eye(3))
    finally:
        go_on.set()
        thread.join()
