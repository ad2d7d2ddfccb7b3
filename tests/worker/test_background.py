"""Work in the background: it is answered once, in time, and what comes later lands nowhere."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterator

import pytest

from sklearn_wsl_gpu.errors import OffloadError, PoolError
from sklearn_wsl_gpu.protocol import messages as m
from wsl_worker.background import PATIENCE_SECONDS, Background, Errand


@pytest.fixture
def background() -> Iterator[Background]:
    made = Background()
    yield made
    made.close()


def _collect(background: Background, answers: list[m.Message], count: int) -> None:
    while len(answers) < count:
        assert select.select([background.descriptor], [], [], 20)[0]
        background.collect()


def _errand(answers: list[m.Message], work: object = None, request: int = 1, *, writes: bool = False) -> Errand:
    def run(errand: Errand) -> m.Message:
        return work(errand) if callable(work) else m.Done()

    return Errand(run, answers.append, request, writes)


def test_errands_are_done_in_order_and_answered_in_the_thread_that_collects(background: Background) -> None:
    lane, answers, threads = background.lane(), [], []
    for number in range(5):
        errand = _errand(answers, lambda _, number=number: m.Moved(number))
        keep = errand.answer
        errand.answer = lambda message, keep=keep: (threads.append(threading.current_thread()), keep(message))[1]
        lane.submit(errand)

    _collect(background, answers, 5)

    assert answers == [m.Moved(number) for number in range(5)]
    assert set(threads) == {threading.current_thread()}
    background.end(lane, lambda: None)


def test_an_error_is_an_answer_and_the_next_errand_is_done(background: Background) -> None:
    def fail(_: Errand) -> m.Message:
        raise OSError(5, "Input/output error")

    def refuse(_: Errand) -> m.Message:
        raise PoolError("That is no span.")

    lane, answers = background.lane(), []
    for work in (fail, refuse, None):
        lane.submit(_errand(answers, work))
    _collect(background, answers, 3)

    assert [type(answer) for answer in answers] == [m.Refused, m.Refused, m.Done]
    assert isinstance(answers[0], m.Refused)
    assert answers[0].code == "carrier-io"
    assert "Input/output error" in answers[0].words
    background.end(lane, lambda: None)


def test_what_hangs_is_given_up_with_all_behind_it_and_nothing_more_is_taken(background: Background) -> None:
    lane, answers, go, landed = background.lane(), [], threading.Event(), []

    def hang(errand: Errand) -> m.Message:
        go.wait()
        with lane.landing(errand):
            landed.append(errand)
        return m.Done()

    lane.submit(_errand(answers, hang))
    lane.submit(_errand(answers))
    background.tick(time.monotonic())
    assert not answers
    background.tick(time.monotonic() + PATIENCE_SECONDS + 1)
    _collect(background, answers, 2)

    assert [answer.code for answer in answers if isinstance(answer, m.Refused)] == ["carrier-stalled"] * 2
    with pytest.raises(OffloadError, match="not used any more"):
        lane.submit(_errand(answers))
    go.set()
    done = threading.Event()
    background.end(lane, done.set)
    assert done.wait(20)
    background.collect()
    assert len(answers) == 2
    assert not landed


def test_it_is_known_for_what_something_may_be_written(background: Background) -> None:
    lane, answers, go, began = background.lane(), [], threading.Event(), threading.Event()

    def hang(_: Errand) -> m.Message:
        began.set()
        go.wait()
        return m.Done()

    lane.submit(_errand(answers, hang, 1, writes=True))
    lane.submit(_errand(answers, None, 2, writes=True))
    lane.submit(_errand(answers, None, 3))
    began.wait()

    assert [lane.is_writing_for(request) for request in (1, 2, 3)] == [True, True, False]
    background.tick(time.monotonic() + PATIENCE_SECONDS + 1)
    assert [lane.is_writing_for(request) for request in (1, 2, 3)] == [True, False, False]
    go.set()
    done = threading.Event()
    background.end(lane, done.set)
    assert done.wait(20)
    assert not lane.is_writing_for(1)


def test_a_lane_that_ends_does_its_last_in_its_thread_when_that_comes_back(background: Background) -> None:
    lane, answers, go, order = background.lane(), [], threading.Event(), []
    began = threading.Event()

    def hang(_: Errand) -> m.Message:
        began.set()
        go.wait()
        order.append("errand")
        return m.Done()

    lane.submit(_errand(answers, hang))
    assert began.wait(20)
    done = threading.Event()
    background.end(lane, lambda: (order.append("last"), done.set())[1])
    assert order == []
    go.set()
    assert done.wait(20)
    assert order == ["errand", "last"]
    with pytest.raises(OffloadError):
        lane.submit(_errand(answers))


def test_a_lane_takes_so_many_errands_and_no_more(background: Background) -> None:
    lane, answers, go = background.lane(), [], threading.Event()
    lane.submit(_errand(answers, lambda _: (go.wait(), m.Done())[1]))

    def fill() -> None:
        for _ in range(100):
            lane.submit(_errand(answers))

    with pytest.raises(OffloadError, match="does not take any more"):
        fill()
    go.set()
    background.end(lane, lambda: None)
