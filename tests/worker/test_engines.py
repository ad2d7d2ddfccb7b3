"""Engines: found by name without being imported, and the cpu engine keeps what every engine promises."""

from __future__ import annotations

import pytest
import sklearn

from sklearn_wsl_gpu import ConfigurationError
from sklearn_wsl_gpu.estimators import ROWS, third_party
from wsl_worker import engines
from wsl_worker.engines.array_api import ArrayApiEngine
from wsl_worker.engines.base import Engine
from wsl_worker.engines.cpu import CpuEngine
from wsl_worker.engines.cuml import CumlEngine
from wsl_worker.testing import EngineSuite

pytestmark = pytest.mark.filterwarnings("ignore")


class TestCpuEngine(EngineSuite):
    def make_engine(self) -> Engine:
        return CpuEngine()

    def test_it_takes_every_row_that_this_scikit_learn_has(self) -> None:
        own = {name for name, row in ROWS.items() if row.cls is not None}
        assert CpuEngine().estimators == own | third_party.installed()


def test_an_engine_is_found_by_its_name() -> None:
    assert engines.choose("cpu") == [CpuEngine]


@pytest.mark.parametrize(("words", "chosen"), [(None, [ArrayApiEngine]), ("it has no GPU.", [CpuEngine])])
def test_auto_is_what_the_gpu_runs_and_plain_scikit_learn_where_there_is_none(
    words: str | None, chosen: list[type[Engine]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CumlEngine, "unavailable", classmethod(lambda cls, device: "there is none."))
    monkeypatch.setattr(ArrayApiEngine, "unavailable", classmethod(lambda cls, device: words))

    assert engines.choose("auto") == chosen
    assert engines.choose("auto", "cpu") == [CpuEngine]


def test_auto_is_cuml_first_and_the_array_api_for_what_cuml_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    for engine in (CumlEngine, ArrayApiEngine):
        monkeypatch.setattr(engine, "unavailable", classmethod(lambda cls, device: None))

    assert engines.choose("auto") == [CumlEngine, ArrayApiEngine]


def test_a_name_that_is_not_installed_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match=r"one of \['auto', 'array_api', 'cpu'.*got 'gpu'"):
        engines.choose("gpu")


def test_a_device_that_an_engine_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'cuda:99' here\. cpu: it computes on the CPU"):
        engines.choose("cpu", "cuda:99")


@pytest.mark.skipif(
    tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 9), reason="the engine needs scikit-learn 1.9"
)
@pytest.mark.parametrize(("device", "which"), [("auto", "no GPU here"), ("cuda:1", "no GPU number 1 here")])
def test_the_array_api_engine_without_a_gpu_says_what_it_computes_on_instead(
    device: str, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsl_worker.engines.array_api.find_spec", lambda name: name == "torch" or None)
    monkeypatch.setattr("wsl_worker.engines.array_api.count_gpus", lambda: 0)

    with pytest.raises(ConfigurationError, match=rf"{which}\. With torch and device='cpu' it computes on the CPU\."):
        engines.choose("array_api", device)
