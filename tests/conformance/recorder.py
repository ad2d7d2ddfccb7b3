"""Run pytest, and write what became of each test to a file: ``python recorder.py OUT ARGUMENT...``."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest


class Recorder:
    """Collects place, outcome, seconds and numbers of calls of each test."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, Any]] = {}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        place = f"{item.path.as_posix()}::{item.nodeid.partition('::')[2]}"
        test = self.tests.setdefault(
            place, {"outcome": "passed", "seconds": 0.0, "offloaded": 0, "local": 0, "words": ""}
        )
        test["seconds"] += report.duration
        if report.failed:
            test["outcome"] = "failed"
            test["words"] = report.longreprtext[-2000:]
        elif report.skipped or hasattr(report, "wasxfail"):
            expected = hasattr(report, "wasxfail")
            test["outcome"] = ("xfailed" if report.skipped else "xpassed") if expected else "skipped"
        for name, value in report.user_properties:
            if name == "sklearn_wsl_gpu":
                counts: dict[str, int] = value[1]  # type: ignore[index]
                test["offloaded"], test["local"] = counts.get("offloaded", 0), counts.get("local", 0)
        return report


def main() -> int:
    recorder = Recorder()
    code = pytest.main(sys.argv[2:], plugins=[recorder])
    Path(sys.argv[1]).write_text(json.dumps(recorder.tests))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
