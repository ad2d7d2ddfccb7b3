"""The files of keys: whole, or not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sklearn_wsl_gpu.errors import ConfigurationError
from sklearn_wsl_gpu.keys import create_keys, has_worker_keys, read_client_keys, read_worker_keys


@pytest.mark.parametrize("written", [0, 1], ids=["at the first", "at the second"])
def test_keys_that_cannot_be_written_as_a_whole_leave_nothing(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump, done = json.dump, []

    def full(content: Any, file: Any) -> None:
        if len(done) == written:
            raise OSError(28, "No space left on device")
        done.append(content)
        dump(content, file)

    with monkeypatch.context() as patch:
        patch.setattr(json, "dump", full)
        with pytest.raises(ConfigurationError, match="No space left on device"):
            create_keys(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not has_worker_keys(tmp_path)

    create_keys(tmp_path)
    assert read_client_keys(tmp_path).public in read_worker_keys(tmp_path)[1]


def test_a_file_that_is_no_key_file_is_to_be_deleted(tmp_path: Path) -> None:
    create_keys(tmp_path)
    (tmp_path / "worker.json").write_text("")

    with pytest.raises(ConfigurationError, match="Delete it"):
        read_worker_keys(tmp_path)
