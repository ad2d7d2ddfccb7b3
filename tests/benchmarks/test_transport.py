"""The benchmark of the transport runs, and writes down what it has measured."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.tools import until

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "transport.py"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    target = tmp_path_factory.mktemp("benchmark") / "transport.json"
    run("--sizes", "4KB,64KB", "--contestants", "sklearn_wsl_gpu,pipe", "--rounds", "2", "--json", str(target))
    found: dict[str, Any] = json.loads(target.read_text("utf-8"))
    return found


def run(*arguments: str, code: int = 0) -> str:
    command = [sys.executable, str(PROGRAM), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_every_contestant_has_its_median_beside_that_of_a_memcpy_and_an_echo(measured: dict[str, Any]) -> None:
    asked = [row for row in measured["rows"] if (row["layout"], row["bytes"]) == ("C", 64 * 1024)]
    rows = {(row["contestant"], row["mode"]): row for row in asked}

    modes = {"touch", "out", "pool, touch", "pool, out"}
    assert rows.keys() == {("sklearn_wsl_gpu", mode) for mode in modes} | {("pipe", "touch"), ("pipe", "out")}
    assert measured["skipped"] == {}
    for row in rows.values():
        assert (row["bytes"], row["state"], row["rounds"]) == (64 * 1024, "ok", 2)
        for name in ("seconds", "memcpy", "echo"):
            assert 0 < row[name]["min"] <= row[name]["median"]
        assert row["x memcpy"]["median"] > 0
        assert row["x echo"] > 0


def test_other_layouts_are_measured_at_every_size(measured: dict[str, Any]) -> None:
    rows = [row for row in measured["rows"] if row["layout"] != "C"]

    sizes = (4096, 64 * 1024)
    assert {(row["layout"], row["bytes"]) for row in rows} == {
        (one, size) for one in ("F", "strided") for size in sizes
    }
    assert {row["contestant"] for row in rows} == {"sklearn_wsl_gpu"}
    assert {row["state"] for row in rows} == {"ok"}


def test_this_projects_calls_were_done_by_its_worker_in_phases(measured: dict[str, Any]) -> None:
    phases = [
        row["phases"] for row in measured["rows"] if (row["contestant"], row["layout"]) == ("sklearn_wsl_gpu", "C")
    ]

    assert len(phases) == 8
    assert all(one.keys() == {"gather", "send", "compute", "receive", "adopt"} for one in phases)


def test_the_results_say_when_where_and_with_what_they_were_measured(measured: dict[str, Any]) -> None:
    assert measured["machine"].keys() == {"cpu", "cores", "memory", "kernel", "load before"}
    assert measured["date"].startswith("20")
    assert measured["commit"]
    assert measured["versions"]["numpy"][0].isdigit()


def test_a_goal_that_was_not_measured_is_neither_met_nor_missed(measured: dict[str, Any]) -> None:
    others = [goal for goal in measured["goals"] if "predict" not in goal["what"]]
    assert len(others) >= 9
    assert {(goal["measured"], goal["met"]) for goal in others} == {(None, None)}


def test_a_profile_tells_which_process_a_call_costs_how_much(measured: dict[str, Any]) -> None:
    (profile,) = measured["extras"]["profiles"]

    processors = profile["processors"]
    assert (profile["contestant"], profile["mode"]) == ("tiny", "predict")
    assert {"client", "client, ZeroMQ", "front", "front, ZeroMQ", "executor"} <= processors.keys()
    assert 0 < profile["engine"] < profile["seconds"]
    assert min(processors["client"], processors["front"], processors["executor"]) > 0


def test_a_contestant_that_is_too_slow_leaves_no_memory_behind() -> None:
    before = set(os.listdir("/dev/shm"))

    words = run("--sizes", "1MB", "--contestants", "shared_memory,joblib", "--rounds", "1", "--limit", "0.001")

    assert words.count("> 0 s at 1 MB") >= 2

    def left() -> set[str]:
        new = set(os.listdir("/dev/shm")) - before
        # Those of joblib have the numbers of their processes; other tests may be running some just now.
        pids = {name: re.search(r"_([0-9]+)_", name) for name in new if name.startswith(("transport", "joblib", "psm"))}
        return {name for name, pid in pids.items() if pid is None or not psutil.pid_exists(int(pid[1]))}

    until(lambda: not left())


def test_a_contestant_that_nobody_knows_is_an_error_that_names_those_there_are() -> None:
    words = run("--contestants", "pigeon", code=2)

    assert "pigeon: not one of sklearn_wsl_gpu, local," in words
