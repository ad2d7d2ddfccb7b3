"""What was measured is kept between runs: where, and whatever is in the way."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sklearn_wsl_gpu import costfile, measuring
from sklearn_wsl_gpu.predictions import Work

#: What says, on Linux and on Windows, where caches are.
VARIABLES = ("XDG_CACHE_HOME", "LOCALAPPDATA")
CALL = Work("SVC.fit", 1e6, 20, 10**6, "child auto auto", "cuml")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in VARIABLES:
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(measuring, "_measured", measuring._Measured())
    return tmp_path / "sklearn_wsl_gpu"


def _next_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_measured", measuring._Measured())


def test_the_next_run_knows_what_this_one_has_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measuring.note_local(CALL, 2.0)
    expected = measuring.predict(CALL)
    measuring.keep()
    _next_process(monkeypatch)

    assert measuring.predict(CALL) == expected
    assert expected.local == pytest.approx(2.0)


def test_who_never_asks_what_a_call_would_cost_reads_and_writes_nothing(own_cache: Path) -> None:
    measuring.note_local(CALL, 2.0)
    measuring.keep(at_once=True)

    assert not own_cache.exists()


def test_nothing_new_is_not_written_again(own_cache: Path) -> None:
    measuring.predict(CALL)
    measuring.keep(at_once=True)

    assert not own_cache.exists()


def test_contexts_in_a_loop_do_not_each_write_but_the_end_of_the_process_does() -> None:
    measuring.predict(CALL)
    measuring.note_local(CALL, 2.0)
    measuring.keep()
    first = costfile.path().read_bytes()
    measuring.note_local(CALL, 3.0)
    measuring.keep()

    assert costfile.path().read_bytes() == first
    measuring.keep(at_once=True)
    assert costfile.path().read_bytes() != first


def test_what_another_process_has_written_meanwhile_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    other = CALL._replace(kind="SVR.fit")
    measuring.predict(CALL)
    measuring.note_local(CALL, 2.0)
    mine = measuring._measured
    _next_process(monkeypatch)
    measuring.predict(other)
    measuring.note_local(other, 3.0)
    measuring.keep()
    monkeypatch.setattr(measuring, "_measured", mine)
    measuring.keep()
    _next_process(monkeypatch)

    assert [measuring.predict(call).local for call in (CALL, other)] == pytest.approx([2.0, 3.0])


def test_the_file_is_the_users_own_and_no_other_is_left(own_cache: Path) -> None:
    costfile.save({"a": 1})
    costfile.save({"a": 2})

    assert [path.name for path in own_cache.iterdir()] == [costfile.path().name]
    if os.name == "posix":
        assert stat.S_IMODE(costfile.path().stat().st_mode) == 0o600
        assert stat.S_IMODE(own_cache.stat().st_mode) == 0o700
    assert costfile.load() == {"a": 2}


def _content(key: Any) -> bytes:
    return json.dumps({"key": key, "table": {"format": 1, "links": [], "curves": []}}).encode()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"3", b"[]", b"{}", _content(["of", "another", "machine"]),
     b'{"key": NaN}', b" " * (9 * 2**20)],
)  # fmt: skip
def test_a_broken_or_foreign_file_is_as_none_and_is_replaced(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    costfile.save(None)
    costfile.path().write_bytes(content)

    assert measuring.predict(CALL).local is None
    measuring.note_local(CALL, 2.0)
    measuring.keep()
    _next_process(monkeypatch)
    assert measuring.predict(CALL).local == pytest.approx(2.0)


def test_a_table_of_another_form_is_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    costfile.save({"format": 1, "links": [], "curves": [["", "SVC.fit", "", [["not", "a", "point"]]]]})

    assert measuring.predict(CALL).local is None


def test_a_place_that_cannot_be_written_to_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    for name in VARIABLES:
        monkeypatch.setenv(name, str(tmp_path / "file"))
    measuring.predict(CALL)
    measuring.note_local(CALL, 2.0)
    measuring.keep(at_once=True)

    assert measuring.predict(CALL).local == pytest.approx(2.0)


def test_a_write_that_fails_leaves_the_file_as_it_was(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costfile.save({"a": 1})

    def fail(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "replace", fail)
    costfile.save({"a": 2})

    assert costfile.load() == {"a": 1}
    assert len(list(own_cache.iterdir())) == 1


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x/caches"}, "/x/caches/sklearn_wsl_gpu"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/sklearn_wsl_gpu"),
        ("linux", {}, "/home/me/.cache/sklearn_wsl_gpu"),
        ("darwin", {}, "/home/me/Library/Caches/sklearn_wsl_gpu"),
        ("win32", {"LOCALAPPDATA": "/c/Local"}, "/c/Local/sklearn_wsl_gpu"),
        ("win32", {}, "/home/me/AppData/Local/sklearn_wsl_gpu"),
    ],
)
def test_the_place_is_the_platforms_own(
    platform: str, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", "USERPROFILE": "/home/me", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)

    assert costfile.directory() == Path(expected)


def test_versions_and_processors_have_files_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {costfile.path().name}
    monkeypatch.setattr(costfile, "version", lambda package: "9.9")
    names.add(costfile.path().name)
    monkeypatch.setattr(costfile, "_processor", lambda: "another")
    names.add(costfile.path().name)

    assert len(names) == 3


def test_the_end_of_a_process_keeps_what_it_has_measured(tmp_path: Path) -> None:
    program = """
from sklearn_wsl_gpu import measuring
from sklearn_wsl_gpu.predictions import Work
call = Work("SVC.fit", 1e6, 20, 10**6, "child auto auto", "cuml")
measuring.predict(call)
measuring.note_local(call, 2.0)
"""
    where = dict.fromkeys(VARIABLES, str(tmp_path))
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env={**os.environ, **where})

    assert measuring.predict(CALL).local == pytest.approx(2.0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_in_its_place_is_as_none() -> None:
    costfile.path().parent.mkdir(parents=True)
    os.mkfifo(costfile.path())

    assert costfile.load() is None
    writer = os.open(costfile.path(), os.O_RDWR)
    try:
        assert costfile.load() is None
    finally:
        os.close(writer)
