"""A small pool for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sklearn_wsl_gpu.pool import Geometry, Pool
from tests.pool.pools import INPUTS, OUTPUTS, SCRATCH, SLOT


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(Geometry(SLOT, INPUTS, OUTPUTS, SCRATCH))
    yield made
    made.close()
