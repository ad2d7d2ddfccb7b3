"""Decisions about what lies between the sides, and about what this package keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sklearn_wsl_gpu.carriers import file_reply
from sklearn_wsl_gpu.doctor import own, reach
from sklearn_wsl_gpu.doctor.asking import Answer

_NONE = Answer(0, "", "")
_OPEN = {"endpoint": "tcp://127.0.0.1:5555", "open_seconds": 1.0, "engines": ["cpu"], "trip_seconds": 0.001}


@pytest.mark.parametrize(
    ("facts", "answer", "result", "words"),
    [
        ({**_OPEN, "echo": True}, _NONE, "ok", "64 KiB there and back unchanged"),
        ({**_OPEN, "no_echo": "None takes StandardScaler."}, _NONE, "ok", "None takes StandardScaler."),
        ({**_OPEN, "echo": False}, _NONE, "failed", "came back changed"),
        ({**_OPEN, "error": "The worker died.", "code": "worker-died"}, _NONE, "failed", "The worker died."),
        (_OPEN, Answer(-9, "", "", timed_out=True), "failed", "no answer within"),
        ({"error": "No worker answers.", "code": "worker-unreachable"}, _NONE, "failed", "No worker answers."),
        ({}, Answer(1, "", "MemoryError\n"), "failed", "MemoryError"),
    ],
)
def test_a_session(facts: dict[str, Any], answer: Answer, result: str, words: str) -> None:
    finding = reach.judge_reach(facts, answer)

    assert finding.result == result
    assert words in finding.evidence
    assert bool(finding.remedy) == (result != "ok")


_HERE = {"sklearn-wsl-gpu": "0.1.0", "scikit-learn": "1.9.1", "numpy": "2.1.0"}


@pytest.mark.parametrize(
    ("there", "result"),
    [
        (_HERE, "ok"),
        ({**_HERE, "numpy": "2.1.3"}, "ok"),
        ({**_HERE, "numpy": "1.26.4"}, "warning"),
        ({**_HERE, "sklearn-wsl-gpu": "0.2.0"}, "warning"),
        ({}, "skipped"),
    ],
)
def test_versions_of_both_sides(there: dict[str, str], result: str) -> None:
    finding = reach.judge_versions({}, _HERE, there)

    assert finding.result == result
    for name, number in there.items():
        assert f"{name} {number}" in finding.evidence or f"{number} there" in finding.evidence


def test_versions_that_a_worker_refuses() -> None:
    finding = reach.judge_versions({"code": "version-mismatch", "error": "The worker speaks protocol 4."}, _HERE, {})

    assert (finding.result, finding.evidence) == ("failed", "The worker speaks protocol 4.")


@pytest.mark.parametrize(
    ("there", "result"), [("1.9.1", "ok"), ("1.9.0", "warning"), ("1.8.1", "failed"), ("", "skipped")]
)
def test_models_come_back_as_this_sides_scikit_learn_makes_them(there: str, result: str) -> None:
    assert reach.judge_models("1.9.1", there).result == result


@pytest.mark.parametrize(
    ("modes", "has_curve", "kind", "result"),
    [
        ({}, True, "ext4", "ok"),
        ({"client.json": 0o600}, True, "ext4", "ok"),
        ({"client.json": 0o644, "worker.json": 0o600}, True, "ext4", "failed"),
        ({"client.json": 0o777}, True, "9p", "warning"),
        ({}, False, "ext4", "failed"),
    ],
)
def test_keys_are_for_their_owner_only(modes: dict[str, int], has_curve: bool, kind: str, result: str) -> None:
    finding = own.judge_keys("/home/ada/keys", modes, has_curve, kind)

    assert finding.result == result
    assert bool(finding.remedy) == (result != "ok")


def test_only_the_keys_that_others_can_read_are_named() -> None:
    finding = own.judge_keys("/home/ada/keys", {"client.json": 0o644, "worker.json": 0o600}, True, "ext4")

    assert finding.remedy == "Run: chmod 600 '/home/ada/keys/client.json'"


def test_what_dead_sessions_left() -> None:
    finding = own.judge_leftovers(["/tmp/a"], "/keys/running.json", [17])

    assert own.judge_leftovers([], "", []).result == "ok"
    assert finding.result == "information"
    assert finding.remedy == "Run: rm -r /tmp/a; sklearn-wsl-gpu worker start; kill 17"


def test_a_directory_for_replies_is_abandoned_only_if_nobody_holds_it(tmp_path: Path) -> None:
    held = file_reply.ReplyDirectory(str(tmp_path))
    left = tmp_path / "sklearn_wsl_gpu-replies-left"
    left.mkdir()

    assert file_reply.abandoned(tmp_path) == [left]
    held.close()
