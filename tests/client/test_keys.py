"""The files of keys: whole, or not there."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from sklearn_wsl_gpu.errors import ConfigurationError
from sklearn_wsl_gpu.keys import create_keys, ensure_keys, has_worker_keys, read_client_keys, read_worker_keys


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

    with pytest.raises(ConfigurationError, match=r"Delete worker\.json and client\.json there"):
        read_worker_keys(tmp_path)


@pytest.mark.parametrize(
    "content", [{"secret": "é" * 40}, {"secret": "k" * 39}, {"secret": 3}, {"clients": ["~" * 40]}]
)
def test_what_is_no_key_is_refused_before_it_is_used(content: dict[str, Any], tmp_path: Path) -> None:
    create_keys(tmp_path)
    for name in ("worker.json", "client.json"):
        path = tmp_path / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **content}))

    with pytest.raises(ConfigurationError, match="is no key file of a worker"):
        read_worker_keys(tmp_path)
    if "secret" in content:
        with pytest.raises(ConfigurationError, match="is no key file of a client"):
            read_client_keys(tmp_path)


def test_of_two_that_write_keys_at_the_same_time_both_find_the_same(tmp_path: Path) -> None:
    found: list[tuple[str, list[str]]] = []
    for number in range(20):
        where, begin = tmp_path / str(number), threading.Barrier(3)

        def ensure(where: Path = where, begin: threading.Barrier = begin) -> None:
            begin.wait()
            ensure_keys(where)
            assert read_client_keys(where).public in read_worker_keys(where)[1]
            found.append(read_worker_keys(where))

        threads = [threading.Thread(target=ensure) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found[0] == found[1] == found[2]
        assert {path.name for path in where.iterdir()} == {"worker.json", "client.json"}
        found.clear()


def test_keys_of_a_client_alone_are_not_overwritten(tmp_path: Path) -> None:
    create_keys(tmp_path)
    (tmp_path / "worker.json").unlink()
    before = read_client_keys(tmp_path)

    with pytest.raises(ConfigurationError, match=r"client\.json is there already.*name another directory"):
        ensure_keys(tmp_path)

    assert read_client_keys(tmp_path) == before


def test_a_file_in_the_place_of_a_directory_is_told(tmp_path: Path) -> None:
    create_keys(tmp_path)

    for use in (create_keys, read_client_keys, read_worker_keys):
        with pytest.raises(ConfigurationError, match=r"client\.json is a file.*the directory that they are in"):
            use(tmp_path / "client.json")  # type: ignore[operator]


def test_where_there_are_no_links_the_first_that_writes_wins_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    create_keys(tmp_path)
    before = read_worker_keys(tmp_path)
    with pytest.raises(ConfigurationError, match="there already"):
        create_keys(tmp_path)

    assert read_worker_keys(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == 2
