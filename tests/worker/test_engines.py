"""Engines: found by name without being imported, and the cpu engine keeps what every engine promises."""

from __future__ import annotations

import pytest

from sklearn_wsl_gpu import ConfigurationError
from sklearn_wsl_gpu.estimators import ROWS, third_party
from wsl_worker import engines
from wsl_worker.engines.base import Engine
from wsl_worker.engines.cpu import CpuEngine
from wsl_worker.testing import EngineSuite

pytestmark = pytest.mark.filterwarnings("ignore")


class TestCpuEngine(EngineSuite):
    def make_engine(self) -> Engine:
        return CpuEngine()

    def test_it_takes_every_row_that_this_scikit_learn_has(self) -> None:
        own = {name for name, row in ROWS.items() if row.cls is not None}
        assert CpuEngine().estimators == own | third_party.installed()


def test_an_engine_is_made_by_its_name() -> None:
    assert type(engines.create("cpu")) is CpuEngine


def test_auto_takes_the_first_installed_one_of_the_preference() -> None:
    engine = engines.create("auto")

    assert engine.name == next(name for name in engines.PREFERENCE if name in engines.names())


def test_a_name_that_is_not_installed_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match=r"one of \['auto', 'cpu'.*got 'gpu'"):
        engines.create("gpu")
