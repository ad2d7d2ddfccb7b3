"""The size of the pool of a real process: what its limits leave, told where people look."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from sklearn_wsl_gpu import offload, sessions
from tests.integration.tools import run_python

MIB = 2**20
X = np.random.default_rng(0).normal(size=(200, 4))

_PROGRAM = """
import numpy as np
from sklearn.preprocessing import StandardScaler
import sklearn_wsl_gpu
{limit}
with sklearn_wsl_gpu.offload(fallback="raise") as session:
    StandardScaler().fit(np.eye(3))
    status = session.status()
print(status["pool_bytes"], status["pool"])
"""
_ADDRESS_SPACE = """
import resource
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 3 * 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
"""
_GROUP = "open({procs!r}, 'w').write('0')"

pytestmark = [pytest.mark.timeout(90), pytest.mark.skipif(sys.platform != "linux", reason="these are limits of Linux")]


def _run(limit: str) -> tuple[int, str]:
    result = run_python(_PROGRAM.format(limit=limit))
    assert result.returncode == 0, result.stderr
    size, _, why = result.stdout.strip().partition(" ")
    return int(size), why


def test_a_process_with_little_address_space_gets_a_smaller_pool() -> None:
    size, why = _run(_ADDRESS_SPACE)

    assert 16 * 4096 < size <= 3 * 2**30 // 2
    assert "half of what is free" in why
    assert "ulimit -v" in why


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of 600 MiB inside this process's own."""
    made = None
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            parent, file = Path(f"/sys/fs/cgroup/memory{path}"), "memory.limit_in_bytes"
        elif not controllers:
            parent, file = Path(f"/sys/fs/cgroup{path}"), "memory.max"
        else:
            continue
        made = parent / f"sklearn_wsl_gpu-{os.getpid()}"
        try:
            made.mkdir()
            (made / file).write_text(str(600 * MIB))
            break
        except OSError:
            with contextlib.suppress(OSError):
                made.rmdir()
            made = None
    if made is None:
        pytest.skip("this user may not make a control group with a limit")
    yield made
    made.rmdir()


def test_a_process_in_a_small_control_group_gets_a_smaller_pool(group: Path) -> None:
    size, why = _run(_GROUP.format(procs=str(group / "cgroup.procs")))

    assert 16 * 4096 < size <= 300 * MIB
    assert "half of what is free" in why
    assert group.name in why


_ASKED = """
import numpy as np
from sklearn.preprocessing import StandardScaler
from sklearn_wsl_gpu import ConfigurationError, PoolSpaceError, offload
{limit}
try:
    offload(slot_bytes=2**30)
except ConfigurationError as error:
    print(error)
X = np.ones((400, 2**17))
try:
    with offload(slots=(1, 1, 1), slot_bytes=180 * 2**20, fallback="raise"):
        StandardScaler().fit(X[:300])
except PoolSpaceError as error:
    print(error)
"""


def test_in_a_small_control_group_what_cannot_be_is_an_error_and_nobody_is_killed(group: Path) -> None:
    result = run_python(_ASKED.format(limit=_GROUP.format(procs=str(group / "cgroup.procs"))))

    assert result.returncode == 0, result.stderr
    impossible, full = result.stdout.splitlines()
    assert re.search(f"there are 600 MiB of memory of control group /.*{group.name}", impossible)
    assert "MB of memory are available" in full


@pytest.mark.usefixtures("running_worker")
def test_the_choice_is_shown_by_the_session_its_state_and_once_by_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    with offload(fallback="raise", verbose=1, slots=(1, 1, 0), slot_bytes=2**20) as session:
        StandardScaler().fit(X)
        StandardScaler().fit(X)
        live = sessions.live()[0]
        assert session.status()["pool"] == "2 slots of 1 MiB, as asked"

    assert "(2 slots of 1 MiB, as asked)" in repr(live.pool)
    assert "(2 slots of 1 MiB, as asked)" in repr(live)
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("sklearn_wsl_gpu: pool of 2 slots of 1 MiB, as asked") == 1


@pytest.mark.usefixtures("running_worker")
def test_sessions_of_the_same_settings_are_one_session_of_one_size() -> None:
    with offload(fallback="raise"):
        StandardScaler().fit(X)
        first = sessions.live()
        why = first[0].pool.why
        StandardScaler().fit(X)
    with offload(fallback="raise"):
        StandardScaler().fit(X)

    assert sessions.live() == first
    assert first[0].pool.why == why
