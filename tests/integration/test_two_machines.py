"""A client and a worker that have a network in common, and neither memory nor files nor processes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sklearn_wsl_gpu.keys import create_keys
from tests.integration.machines import GIVEN, missing, running, two_machines

EXAMPLES = str(Path(__file__).resolve().parents[2] / "examples")
pytestmark = pytest.mark.timeout(180)

_CLIENT = """
import json, sys
from pathlib import Path
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.preprocessing import StandardScaler
import sklearn_wsl_gpu
from sklearn_wsl_gpu import sessions

endpoint, carrier = sys.argv[1:3]
sys.path.insert(0, sys.argv[4])
from quickstart import analyse

keys = str(Path(sys.argv[3]) / "keys")
data = {
    "digits": (*load_digits(return_X_y=True), 1000),
    "breast cancer": (*load_breast_cancer(return_X_y=True), 1000),
    "generated": (*make_classification(20_000, 50, n_informative=10, n_classes=3, random_state=0), 2000),
}
expected = {name: analyse(*about) for name, about in data.items()}
X = data["generated"][0]
scaled = StandardScaler().fit_transform(X)
with sklearn_wsl_gpu.offload(endpoint=endpoint, keys=keys, carrier=carrier, fallback="raise") as session:
    found = {name: analyse(*about) for name, about in data.items()}
    same = bool(np.array_equal(StandardScaler().fit_transform(X), scaled))
    report = session.report()
[one] = sessions.live()
print(json.dumps({
    "equal": found == expected and same,
    "offloaded": report.offloaded,
    "local": report.local,
    "carriers": [carrier.name for carrier in one.moving.carriers],
    "shared": one.moving.is_shared,
    "refused": one.moving.refused,
}))
sklearn_wsl_gpu.shutdown()
"""


@pytest.fixture(scope="module", autouse=True)
def _possible() -> None:
    reason = missing()
    if reason:
        pytest.skip(reason)


def _ask(tmp_path: Path, carrier: str) -> tuple[int, dict[str, Any], str]:
    create_keys(tmp_path / "keys")
    options = ["--keys", f"{GIVEN}/keys", "--engine", "cpu"]
    with two_machines() as (here, there):
        worker = here.popen(
            tmp_path, sys.executable, "-m", "wsl_worker", "--listen", f"tcp://{here.address}:*", *options
        )
        with running(worker):
            assert worker.stdout is not None
            endpoint = json.loads(worker.stdout.readline())["endpoint"]
            client = there.popen(tmp_path, sys.executable, "-c", _CLIENT, endpoint, carrier, GIVEN, EXAMPLES)
            with running(client):
                told, errors = client.communicate(timeout=120)
    return client.returncode, json.loads(told) if told else {}, errors


def test_the_quickstart_gives_what_it_gives_here_and_its_arrays_go_over_the_network(tmp_path: Path) -> None:
    code, told, errors = _ask(tmp_path, "auto")

    assert code == 0, errors
    assert told["equal"]
    assert told["local"] == 0
    assert told["offloaded"] > 20
    assert told["carriers"][0] == "stream (tcp)"
    assert not told["shared"]
    assert "does not share memory" in told["refused"]["shared"]


def test_shared_memory_is_refused_and_said_so(tmp_path: Path) -> None:
    code, _, errors = _ask(tmp_path, "shared")

    assert code == 1
    assert "does not share memory with this process" in errors


def test_nothing_of_the_two_machines_is_left() -> None:
    def fail() -> None:
        raise RuntimeError

    with contextlib.suppress(RuntimeError), two_machines() as (here, there):
        assert {here.name, there.name} <= _namespaces()
        fail()
    assert not {here.name, there.name} & _namespaces()


def _namespaces() -> set[str]:
    told = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in told.splitlines()}
