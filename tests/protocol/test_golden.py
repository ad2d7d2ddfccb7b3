"""The bytes of every message are what they were when its protocol number was given (see write_golden.py)."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from sklearn_wsl_gpu.errors import VersionMismatch
from sklearn_wsl_gpu.protocol import messages as m
from sklearn_wsl_gpu.protocol.version import PROTOCOL, agree

GOLDEN: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("write_golden.py")))
WHERE: Path = GOLDEN["directory"](PROTOCOL)


def test_the_encoder_writes_the_golden_frames_byte_for_byte() -> None:
    written = {path.stem: path.read_bytes() for path in WHERE.glob("*.bin")}

    assert written == GOLDEN["frames"]()


def test_every_message_and_body_has_a_golden_frame() -> None:
    names = {kind.__name__ for kind in (*m.MESSAGES, m.CallBody, m.ResultBody)}

    assert {path.stem for path in WHERE.iterdir()} == names


def test_the_decoder_reads_the_golden_frames() -> None:
    for message in GOLDEN["MESSAGES"]:
        assert m.decode((WHERE / f"{type(message).__name__}.bin").read_bytes()) == message
    call, result = GOLDEN["BODIES"]
    assert m.decode_call((WHERE / "CallBody.bin").read_bytes()) == call
    assert m.decode_result((WHERE / "ResultBody.bin").read_bytes()) == result


def test_the_number_of_a_message_never_changes() -> None:
    # A fixed list head: one byte for the length, one for the number.
    numbers = {kind.__name__: (WHERE / f"{kind.__name__}.bin").read_bytes()[1] for kind in m.MESSAGES}

    assert list(numbers.values()) == list(range(len(m.MESSAGES)))
    assert list(numbers)[:3] == ["Hello", "Welcome", "Call"]


def test_a_greeting_of_every_other_protocol_is_refused_with_the_side_to_upgrade() -> None:
    for path in WHERE.parent.iterdir():
        hello = m.decode((path / "Hello.bin").read_bytes())
        assert isinstance(hello, m.Hello)
        assert str(hello.protocol) == path.name
        versions = dict(map(tuple, hello.versions))  # type: ignore[arg-type]
        with pytest.raises(VersionMismatch, match="Upgrade sklearn_wsl_gpu on the client's side"):
            agree(max(PROTOCOL, hello.protocol) + 1, versions, hello.protocol, versions, "client")
        if hello.protocol == PROTOCOL:
            agree(PROTOCOL, versions, hello.protocol, versions, "client")
