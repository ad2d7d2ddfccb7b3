"""Decisions about what lies between the sides, and about what this package keeps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sklearn_wsl_gpu.carriers import file_reply
from sklearn_wsl_gpu.doctor import own, reach
from sklearn_wsl_gpu.doctor.asking import Answer
from sklearn_wsl_gpu.pool import files

_NONE = Answer(0, "", "")
_OPEN = {"endpoint": "tcp://127.0.0.1:5555", "open_seconds": 1.0, "engines": ["cpu"], "trip_seconds": 0.001}


@pytest.mark.parametrize(
    ("facts", "answer", "result", "words"),
    [
        ({**_OPEN, "echo": True}, _NONE, "ok", "64 KiB there and back unchanged"),
        ({**_OPEN, "no_echo": "None takes StandardScaler."}, _NONE, "ok", "None takes StandardScaler."),
        ({**_OPEN, "echo": False}, _NONE, "failed", "came back changed"),
        ({**_OPEN, "echo": True, "reach_seconds": 0.24}, _NONE, "ok", "there for this side 0.2 s after it was opened"),
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


@pytest.mark.parametrize(
    ("here", "there", "result"),
    [("3.1.1", "3.1.1", "ok"), ("3.1.1", "2.3.0", "information"), ("3.1.1", "", "information"), ("", "2.3.0", "ok")],
)
def test_another_pandas_is_told_with_what_it_costs(here: str, there: str, result: str) -> None:
    finding = reach.judge_versions({}, {**_HERE, "pandas": here}, {**_HERE, "pandas": there})

    assert finding.result == result
    assert ("DataFrames go in parts" in finding.evidence) is (result != "ok")


def test_versions_that_a_worker_refuses() -> None:
    finding = reach.judge_versions({"code": "version-mismatch", "error": "The worker speaks protocol 4."}, _HERE, {})

    assert (finding.result, finding.evidence) == ("failed", "The worker speaks protocol 4.")


@pytest.mark.parametrize(
    ("there", "result"), [("1.9.1", "ok"), ("1.9.0", "warning"), ("1.8.1", "failed"), ("", "skipped")]
)
def test_models_come_back_as_this_sides_scikit_learn_makes_them(there: str, result: str) -> None:
    assert reach.judge_models("1.9.1", there).result == result


@pytest.mark.parametrize(
    ("files", "wide", "has_curve", "kind", "result"),
    [
        ([], [], True, "ext4", "ok"),
        (["client.json"], [], True, "ext4", "ok"),
        (["client.json", "worker.json"], ["client.json"], True, "ext4", "failed"),
        (["client.json"], ["client.json"], True, "9p", "warning"),
        (["client.json"], [], True, "windows", "ok"),
        (["client.json"], ["client.json"], True, "windows", "failed"),
        ([], [], False, "ext4", "failed"),
    ],
)
def test_keys_are_for_their_owner_only(
    files: list[str], wide: list[str], has_curve: bool, kind: str, result: str
) -> None:
    finding = own.judge_keys("/home/ada/keys", files, wide, has_curve, kind)

    assert finding.result == result
    assert bool(finding.remedy) == (result != "ok")


def test_only_the_keys_that_others_can_read_are_named() -> None:
    finding = own.judge_keys("/home/ada/keys", ["client.json", "worker.json"], ["client.json"], True, "ext4")

    assert finding.remedy == "Run: chmod 600 /home/ada/keys/client.json"
    assert "icacls" in own.judge_keys("keys", ["client.json"], ["client.json"], True, "windows").remedy


def test_what_dead_sessions_left() -> None:
    finding = own.judge_leftovers(["/tmp/a", "/tmp/my pools/b"], [17])

    assert own.judge_leftovers([], []).result == "ok"
    assert finding.result == "information"
    on_windows = "Delete them in the Explorer."
    assert finding.remedy == (on_windows if os.name == "nt" else "Run: rm -r /tmp/a '/tmp/my pools/b'; kill 17")


def test_a_directory_for_replies_is_abandoned_only_if_nobody_holds_it(tmp_path: Path) -> None:
    held = file_reply.ReplyDirectory(str(tmp_path))
    left = tmp_path / "sklearn_wsl_gpu-replies-left"
    left.mkdir()
    (left / "owner").touch()

    assert file_reply.abandoned(tmp_path) == [left]
    held.close()


def _carrier(name: str, state: str = "in use", reason: str = "", there: float | None = 1e9) -> dict[str, Any]:
    return {"name": name, "state": state, "reason": reason, "round_trip": 1e-3, "there": there, "back": 0.5e9}


_STREAM = _carrier("stream (tcp)")


@pytest.mark.parametrize(
    ("carriers", "result", "words"),
    [
        ([_carrier("shared", there=None)], "ok", "shared passed."),
        ([_STREAM, _carrier("shared", "refused", "Another kernel.")], "ok", "shared refused: Another kernel."),
        ([_STREAM, _carrier("file", "demoted", "Other bytes came back.")], "warning", "file demoted: Other bytes"),
        ([_carrier("file", "refused", "What was read was stale.")], "failed", "No carrier passed. file refused"),
        ([], "failed", "No carrier passed."),
    ],
)
def test_carriers_have_passed_or_it_is_told_why_not(carriers: list[dict[str, Any]], result: str, words: str) -> None:
    finding = reach.judge_challenge(carriers)

    assert finding.result == result
    assert words in finding.evidence
    assert bool(finding.remedy) == (result != "ok")


def test_bandwidth_is_told_of_each_carrier_and_direction() -> None:
    evidence = reach.judge_bandwidth([_STREAM, _carrier("file", "refused", "EIO")], 0.002).evidence

    assert "stream (tcp): 1.00 GB/s there, 0.50 GB/s back, 1.00 ms at least." in evidence
    assert "take 2.00 ms" in evidence
    assert "EIO" not in evidence
    assert "nothing is moved" in reach.judge_bandwidth([_carrier("shared", there=None)], 0.001).evidence


def test_of_several_carriers_it_is_told_which_takes_what() -> None:
    slow_to_start = {**_carrier("file", there=4e9), "round_trip": 0.1}

    assert (
        "Of 64 KiB, 16 MiB and 1 GiB there: stream (tcp), stream (tcp), file."
        in reach.judge_bandwidth([_STREAM, slow_to_start], 0.001).evidence
    )


def test_a_pool_of_a_killed_process_is_found_and_one_in_use_is_not(tmp_path: Path) -> None:
    (tmp_path / "sklearn_wsl_gpu-pool-left.bin").touch()
    descriptor, path = files.create(str(tmp_path / "."), 4096)
    (tmp_path / "sklearn_wsl_gpu-pool-later.bin").touch()
    try:
        assert [one.name for one in files.abandoned(tmp_path)] == ["sklearn_wsl_gpu-pool-later.bin"]
    finally:
        files.remove(path)
        os.close(descriptor)
