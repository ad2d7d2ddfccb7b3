"""The worker keeps fitted models within a limit; the one that was not used for longest leaves first."""

from __future__ import annotations

import pytest

from wsl_worker.models import Models

MINE, THEIRS = 1, 2


def test_a_kept_model_is_found_by_session_and_number() -> None:
    models = Models(100)

    assert models.keep((MINE, "cpu", 7), "model", 10)
    assert models.get((MINE, "cpu", 7)) == "model"
    assert models.get((THEIRS, "cpu", 7)) is None
    assert models.get((MINE, "cpu", 8)) is None


def test_a_model_larger_than_the_limit_is_not_kept_and_drops_no_other() -> None:
    models = Models(100)
    models.keep((MINE, "cpu", 1), "small", 60)

    assert not models.keep((MINE, "cpu", 2), "large", 101)
    assert models.get((MINE, "cpu", 1)) == "small"


def test_the_least_recently_used_leave_until_there_is_room() -> None:
    models = Models(100)
    for number in (1, 2, 3, 4):
        models.keep((MINE, "cpu", number), number, 25)
    models.get((MINE, "cpu", 1))

    assert models.keep((MINE, "cpu", 5), 5, 50)
    assert [number for number in range(1, 6) if models.get((MINE, "cpu", number))] == [1, 4, 5]


def test_a_model_that_is_kept_again_counts_once() -> None:
    models = Models(100)
    for size in (90, 10, 80):
        assert models.keep((MINE, "cpu", 1), size, size)
    assert models.keep((MINE, "cpu", 2), "other", 20)

    assert len(models) == 2
    assert models.get((MINE, "cpu", 1)) == 80


def test_a_model_that_grew_beyond_the_limit_is_gone() -> None:
    models = Models(100)
    models.keep((MINE, "cpu", 1), "before", 10)

    assert not models.keep((MINE, "cpu", 1), "after", 200)
    assert models.get((MINE, "cpu", 1)) is None


@pytest.mark.parametrize("size", [0, 100])
def test_a_limit_may_be_met_exactly(size: int) -> None:
    assert Models(size).keep((MINE, "cpu", 1), "model", size)


def test_the_models_of_a_session_are_forgotten_with_it() -> None:
    models = Models(100)
    models.keep((MINE, "cpu", 1), "mine", 40)
    models.keep((THEIRS, "cpu", 1), "theirs", 40)
    models.forget(MINE)

    assert models.get((MINE, "cpu", 1)) is None
    assert models.get((THEIRS, "cpu", 1)) == "theirs"
    assert repr(models) == "<Models 1 kept, 40 of 100 bytes>"


def test_all_models_leave_at_once_and_are_counted() -> None:
    models = Models(100)
    models.keep((MINE, "cpu", 1), "one", 60)
    models.keep((THEIRS, "cpu", 1), "two", 40)

    assert models.drop_all() == 2
    assert models.drop_all() == 0
    assert models.keep((MINE, "cpu", 2), "three", 100)
