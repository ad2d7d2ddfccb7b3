"""What only Windows can tell, looked at there; elsewhere all that can be tested are the decisions."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sklearn_wsl_gpu.doctor import own, windows
from sklearn_wsl_gpu.doctor.checks import Circumstances
from sklearn_wsl_gpu.keys import create_keys
from tests.doctor.conftest import run_doctor

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="this is not Windows")


def test_every_check_of_windows_is_carried_out() -> None:
    ran = run_doctor("--json")
    rows = {row["name"]: row for row in json.loads(ran.stdout)["checks"]}

    for name in ("windows-build", "elevation", "pool-directory", "profile", "wsl-settings", "memory", "keys"):
        assert "cannot be looked at" not in rows[name]["evidence"], rows[name]
        assert rows[name]["side"] == "windows"
    assert "build" in rows["windows-build"]["evidence"]
    assert not {"kernel", "gpu-device"} & rows.keys() or rows["doctor-there"]["result"] == "ok"


def test_keys_that_were_just_made_are_not_for_all(tmp_path: Path) -> None:
    create_keys(tmp_path)
    circumstances = Circumstances({"keys": str(tmp_path)}, False)

    assert own.look_at_keys(circumstances).result == "ok"
    assert windows.open_to_all(tmp_path) == []
