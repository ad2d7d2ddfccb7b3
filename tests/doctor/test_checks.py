"""How checks are run: each ends, whatever it does, and what depends on it is told."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest

from sklearn_wsl_gpu.doctor import checks
from sklearn_wsl_gpu.doctor.checks import Check, Circumstances, Finding, Row
from sklearn_wsl_gpu.doctor.table import BEFORE, CHECKS
from sklearn_wsl_gpu.errors import WorkerStartError


def _check(
    look: object, severity: str = "fatal", seconds: float = 60.0, name: str = "one", needs: tuple[str, ...] = ()
) -> Check:
    return Check(name, "linux", severity, seconds, look, "Do this.", needs)  # type: ignore[arg-type]


def _run(*found: Check) -> list[Row]:
    return list(checks.run(found, Circumstances({}, False), "linux"))


@pytest.mark.parametrize(
    ("severity", "result"), [("fatal", "failed"), ("warning", "warning"), ("information", "warning")]
)
def test_a_check_that_hangs_is_given_up_and_the_next_one_is_carried_out(severity: str, result: str) -> None:
    forever = threading.Event()

    def hang(_: Circumstances) -> Finding:
        forever.wait()
        return checks.ok("never")

    first, second = _run(_check(hang, severity, 0.01), _check(lambda _: checks.ok("seen"), name="two"))
    forever.set()

    assert (first.result, first.remedy) == (result, "Do this.")
    assert "no answer within" in first.evidence
    assert second.result == "ok"


def test_a_wait_for_a_check_hears_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float | None] = []

    class Answers(queue.SimpleQueue):  # type: ignore[type-arg]
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            waits.append(timeout)
            return super().get(block, timeout)

    monkeypatch.setattr(checks.queue, "SimpleQueue", Answers)
    asked = threading.Event()
    (row,) = _run(_check(lambda _: checks.ok(str(asked.wait(0.5)))))

    assert row.result == "ok"
    assert len(waits) > 1
    assert all(wait is not None and wait <= 0.2 for wait in waits)


def test_a_check_that_raises_is_a_finding_with_its_words() -> None:
    def broken(_: Circumstances) -> Finding:
        raise RuntimeError("no such thing")

    def told(_: Circumstances) -> Finding:
        raise WorkerStartError("There is no wsl.exe.")

    first, second = _run(_check(broken), _check(told, name="two"))

    assert first.result == "failed"
    assert "RuntimeError: no such thing" in first.evidence
    assert (second.result, second.evidence) == ("failed", "There is no wsl.exe.")


@pytest.mark.parametrize("result", ["failed", "information", "skipped"])
def test_what_depends_on_a_check_without_success_is_skipped_and_says_so(result: str) -> None:
    rows = _run(
        _check(lambda _: Finding(result, "as it is")),
        _check(lambda _: checks.ok("seen"), name="two", needs=("one",)),
        _check(lambda _: checks.ok("seen"), name="three", needs=("two",)),
    )

    assert [row.result for row in rows] == [result, "skipped", "skipped"]
    assert rows[1].evidence == "It depends on one."


def test_what_depends_on_a_check_that_does_not_apply_here_is_carried_out() -> None:
    (row,) = _run(_check(lambda _: checks.ok("seen"), needs=("elsewhere",)))

    assert row.result == "ok"


def test_only_a_failure_makes_the_exit_code_1() -> None:
    row = Row("one", "linux", "fatal", "warning", "", "", 0.0)

    assert checks.exit_code([row, row._replace(result="information")]) == 0
    assert checks.exit_code([row, row._replace(result="failed")]) == 1


def test_names_are_unique_and_what_is_needed_comes_before() -> None:
    names: list[str] = []
    for check in [*BEFORE, *CHECKS]:
        assert set(check.needs) <= set(names), check.name
        assert check.remedy
        assert check.where in {"windows", "between", "linux", "wsl", "client", "both"}
        assert check.severity in {"fatal", "warning", "information"}
        names.append(check.name)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("is_windows", "is_wsl", "is_between", "is_worker_side", "where"),
    [
        (False, False, False, False, {"both", "client", "linux"}),
        (False, True, False, False, {"both", "client", "linux", "wsl"}),
        (False, True, False, True, {"both", "linux", "wsl"}),
        (False, True, True, True, {"both", "linux", "wsl"}),
        (True, False, True, False, {"both", "client", "between", "windows"}),
    ],
)
def test_where_checks_apply(
    is_windows: bool, is_wsl: bool, is_between: bool, is_worker_side: bool, where: set[str]
) -> None:
    assert checks.places(is_windows, is_wsl, is_between, is_worker_side) == where
