"""Whose turn is next: priority before order of arrival, and nobody waits for ever."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_wsl_gpu.waiting import AGEING, BOUNDS, PRIORITIES, Queue, Waits

ANY = st.sampled_from(PRIORITIES)


class Item:
    """One who waits."""

    def __init__(self, number: int, priority: str) -> None:
        self.number = number
        self.priority = priority
        self.passed = 0


def _serve(queue: Queue[Item]) -> Item:
    item = queue.first
    assert item is not None
    queue.serve(item)
    for other in queue:
        other.passed += other.number < item.number
    return item


@settings(deadline=None)
@given(st.lists(ANY, max_size=AGEING))
def test_high_is_served_before_normal_before_low_and_in_order_of_arrival_within(priorities: list[str]) -> None:
    queue: Queue[Item] = Queue()
    for number, priority in enumerate(priorities):
        queue.add(Item(number, priority), priority)
    assert queue.by_priority() == [priorities.count(priority) for priority in PRIORITIES]
    served = [_serve(queue).number for _ in priorities]

    assert served == sorted(range(len(priorities)), key=lambda at: (PRIORITIES.index(priorities[at]), at))
    assert (len(queue), queue.first) == (0, None)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.one_of(ANY, st.sampled_from(["serve", "leave", "newcomer"])), max_size=150), st.data())
def test_nobody_is_passed_more_often_than_ageing_allows_and_none_is_lost(steps: list[str], data: st.DataObject) -> None:
    queue: Queue[Item] = Queue()
    waiting: list[Item] = []
    for number, step in enumerate(steps):
        if step in PRIORITIES:
            waiting.append(Item(number, step))
            queue.add(waiting[-1], step)
        elif step == "newcomer":
            priority = data.draw(ANY)
            if queue.is_free_for(priority):
                queue.serve_newcomer()
                for item in waiting:
                    item.passed += 1
        elif waiting and step == "serve":
            waiting.remove(_serve(queue))
        elif waiting:
            queue.leave(waiting.pop(data.draw(st.integers(0, len(waiting) - 1))))
        assert sorted(item.number for item in queue) == [item.number for item in waiting]
        for item in waiting:
            assert item in queue
            assert item.passed <= PRIORITIES.index(item.priority) * AGEING

    assert {_serve(queue) for _ in list(waiting)} == set(waiting)


def test_a_stream_of_urgent_ones_holds_up_a_low_one_for_a_known_number_of_turns() -> None:
    queue: Queue[Item] = Queue()
    low = Item(0, "low")
    queue.add(low, "low")
    served = []
    for number in range(1, 100):
        queue.add(Item(number, "high"), "high")
        served.append(_serve(queue))

    assert served.index(low) == 2 * AGEING
    assert len(queue) == 1


def test_one_of_the_same_priority_never_passes() -> None:
    queue: Queue[Item] = Queue()
    queue.add(Item(0, "normal"), "normal")

    assert [queue.is_free_for(priority) for priority in PRIORITIES] == [True, False, False]


def test_every_wait_is_counted_in_the_class_that_holds_it() -> None:
    waits = Waits()
    for seconds in (0.0, *BOUNDS, 1e9):
        waits.add(seconds)

    assert waits.counts == [1] * len(BOUNDS) + [2]
    assert waits.seconds == sum(BOUNDS) + 1e9
