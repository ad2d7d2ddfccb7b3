"""The part of scikit-learn's own tests that is run for every change; `run.py` runs them all."""

from __future__ import annotations

import pytest
import sklearn

from tests.conformance.run import PLAN, problems, run, summarize


@pytest.mark.skipif(
    not sklearn.__version__.startswith("1.9."), reason="modules and expected failures are listed for scikit-learn 1.9"
)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("targets", PLAN["quick"], ids=["clusters", "the others"])
def test_scikit_learns_own_tests_pass_offloaded(targets: list[str]) -> None:
    modules = summarize(run(*targets, offloaded=True, without=PLAN["quick_without"]), None)

    for target in targets:
        assert sum(module.offloaded for module in modules.values() if module.name.startswith(target)) > 0, target
    assert problems(modules.values()) == []
