"""Messages between front and executor."""

from __future__ import annotations

import socket

import pytest

from wsl_worker.link import Link, LinkClosed


def test_the_front_takes_what_is_there_and_is_told_by_the_next_poll_of_what_comes_later() -> None:
    ours, theirs = socket.socketpair()
    front, executor = Link(ours, blocking=False), Link(theirs, blocking=True)

    executor.send(["one"], b"1")
    executor.send(["two"], b"2")
    assert [front.receive(), front.receive(), front.receive()] == [(["one"], b"1", None), (["two"], b"2", None), None]

    executor.send(["three"])
    executor.close()
    assert front.receive() == (["three"], b"", None)
    assert front.receive() is None
    with pytest.raises(LinkClosed):
        front.receive()
    front.close()
