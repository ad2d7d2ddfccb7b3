"""The IPython extension: ``%load_ext sklearn_wsl_gpu`` and ``%%offload``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from sklearn_wsl_gpu.context import report
from sklearn_wsl_gpu.enabling import disable

pytestmark = pytest.mark.usefixtures("shared_worker")
_FIT = "StandardScaler().fit(np.eye(3))"


@pytest.fixture
def shell() -> Iterator[Any]:
    # Without its history file, which would stay open.
    found = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    found.run_cell("%load_ext sklearn_wsl_gpu")
    found.run_cell(
        "import numpy as np\nfrom sklearn.cluster import KMeans\nfrom sklearn.preprocessing import StandardScaler"
    )
    yield found
    found.run_cell("%unload_ext sklearn_wsl_gpu")
    disable()
    InteractiveShell.clear_instance()


def test_the_extension_offloads_every_cell_until_it_is_unloaded(shell: Any) -> None:
    before = report().offloaded
    shell.run_cell(_FIT)
    assert report().offloaded == before + 1

    shell.run_cell("%unload_ext sklearn_wsl_gpu")
    shell.run_cell(_FIT)
    assert report().offloaded == before + 1
    assert "offload" not in shell.magics_manager.magics["cell"]


def test_a_cell_shows_its_value_and_then_a_table_of_its_calls(shell: Any) -> None:
    with capture_output() as shown:
        line = "exclude=['KMeans'], verbose=0  # all but this"
        result = shell.run_cell(f"%%offload {line}\n{_FIT}\nKMeans(2).fit(np.eye(3))\n5 + 1")

    assert result.success
    assert shell.user_ns["_"] == 6
    table = shown.outputs[-1].data
    assert "StandardScaler.fit  1  worker (cpu)" in table["text/plain"]
    assert "<caption>sklearn_wsl_gpu: 1 calls offloaded, 1 local</caption>" in table["text/html"]
    assert ">KMeans.fit</td>" in table["text/html"]
    assert "<code>excluded</code> KMeans is in exclude." in table["text/html"]


def test_a_cell_that_fails_shows_its_traceback_once_and_its_report_and_counts_as_failed(shell: Any) -> None:
    with capture_output() as shown:
        result = shell.run_cell(f"%%offload\n{_FIT}\n1 / 0")

    assert isinstance(result.error_in_exec, ZeroDivisionError)
    assert (shown.stdout + shown.stderr).count("division by zero") == 1
    assert "1 calls offloaded" in shown.outputs[-1].data["text/html"]


@pytest.mark.parametrize("line", ["KMeans", "exclude=", "engine=open('x')", "**{}"])
def test_settings_that_are_none_are_refused_with_an_example(line: str, shell: Any) -> None:
    with capture_output() as shown:
        result = shell.run_cell(f"%%offload {line}\n{_FIT}")

    assert not result.success
    assert "such as exclude=" in shown.stdout + shown.stderr
