"""When it may be said: a step that the tables do not have raises and changes nothing; and which versions agree."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path

import pytest

from sklearn_wsl_gpu.errors import LocalProtocolError, RemoteProtocolError, VersionMismatch
from sklearn_wsl_gpu.protocol import messages as m
from sklearn_wsl_gpu.protocol import states, version

SAMPLES: dict[type[m.Message], m.Message] = {
    type(sample): sample for sample in runpy.run_path(str(Path(__file__).with_name("write_golden.py")))["MESSAGES"]
}
STATES = [states.NEW, states.LOOKING, states.GREETING, states.READY, states.ASKING, states.CLOSED]
REQUEST = 77


def _numbered(kind: type[m.Message], request: int = REQUEST) -> m.Message:
    sample = SAMPLES[kind]
    return sample._replace(request=request) if hasattr(sample, "request") else sample


def _channel(state: str) -> states.Channel:
    channel = states.Channel(state)
    channel.request = REQUEST
    return channel


@pytest.mark.parametrize("state", STATES)
def test_only_what_the_table_has_can_be_sent(state: str) -> None:
    for kind in m.MESSAGES:
        channel, message = _channel(state), _numbered(kind, 5)
        following = states.CLIENT_SENDS.get((state, kind))
        if following is None:
            with pytest.raises(LocalProtocolError, match=f"{kind.__name__}.*{state}"):
                channel.send(message)
            assert (channel.state, channel.request) == (state, REQUEST)
        else:
            assert m.decode(channel.send(message)) == message
            assert channel.state == following
            assert channel.request == getattr(message, "request", -1)


@pytest.mark.parametrize("state", STATES)
def test_only_what_the_table_has_can_be_received(state: str) -> None:
    for kind in m.MESSAGES:
        channel, message = _channel(state), _numbered(kind)
        following = states.CLIENT_RECEIVES.get((state, kind))
        if following is None:
            with pytest.raises(RemoteProtocolError, match=f"{kind.__name__}.*{state}"):
                channel.receive(m.encode(message))
            assert (channel.state, channel.request) == (state, REQUEST)
        else:
            assert channel.receive(m.encode(message)) == message
            assert channel.state == following


def test_an_answer_to_another_request_is_refused_and_changes_nothing() -> None:
    for kind in (kind for state, kind in states.CLIENT_RECEIVES if state == states.ASKING):
        if hasattr(SAMPLES[kind], "request"):
            for other in (REQUEST - 1, REQUEST + 1, -1):
                channel = _channel(states.ASKING)
                with pytest.raises(RemoteProtocolError, match="another request"):
                    channel.receive(m.encode(_numbered(kind, other)))
                assert (channel.state, channel.request) == (states.ASKING, REQUEST)


def test_an_answer_to_a_request_is_refused_where_no_request_was_asked() -> None:
    for question in (m.Status, m.Bye):
        channel = states.Channel(states.READY)
        channel.send(SAMPLES[question])
        with pytest.raises(RemoteProtocolError):
            channel.receive(m.encode(m.Result(REQUEST, 0)))
        assert channel.state == states.ASKING


def test_bytes_that_are_no_message_change_nothing() -> None:
    channel = _channel(states.ASKING)
    for raw in (b"", b"\xc1", b"\x90", b"\x91\x63", m.encode(m.Result(REQUEST, 0)) + b"x"):
        with pytest.raises(RemoteProtocolError):
            channel.receive(raw)
        assert (channel.state, channel.request) == (states.ASKING, REQUEST)


def test_a_message_that_cannot_be_packed_changes_nothing() -> None:
    channel = _channel(states.READY)

    with pytest.raises(LocalProtocolError):
        channel.send(m.Wait(b"token", 2**70))

    assert (channel.state, channel.request) == (states.READY, REQUEST)


def test_a_whole_conversation_is_possible_and_a_closed_channel_says_nothing_more() -> None:
    channel = states.Channel()
    talk: list[tuple[m.Message, m.Message]] = [
        (SAMPLES[m.Hello], m.Running(-1, "starting")),
        (SAMPLES[m.Hello], SAMPLES[m.Welcome]),
        (_numbered(m.Call), _numbered(m.Running)),
        (_numbered(m.Wait), _numbered(m.NeedOutput)),
        (_numbered(m.Grant), _numbered(m.Result)),
        (_numbered(m.Cancel), _numbered(m.Cancelled)),
        (SAMPLES[m.Status], SAMPLES[m.Report]),
        (SAMPLES[m.Bye], SAMPLES[m.Farewell]),
    ]
    for question, answer in talk:
        channel.send(question)
        assert channel.receive(m.encode(answer)) == answer

    assert channel.state == states.CLOSED
    for kind in m.MESSAGES:
        with pytest.raises(LocalProtocolError):
            channel.send(SAMPLES[kind])


def test_after_silence_a_question_is_asked_again_or_cancelled_but_not_replaced() -> None:
    channel = states.Channel(states.READY)
    channel.send(_numbered(m.Call))
    channel.send(_numbered(m.Wait))
    channel.send(_numbered(m.Cancel))

    for kind in (m.Call, m.Grant, m.Status, m.Bye):
        with pytest.raises(LocalProtocolError):
            channel.send(_numbered(kind))
    assert channel.receive(m.encode(m.Cancelled(REQUEST))) == m.Cancelled(REQUEST)


def test_every_state_of_a_channel_can_be_left_but_the_last() -> None:
    leaves = {state for state, _ in {**states.CLIENT_SENDS, **states.CLIENT_RECEIVES}}
    reached = {*states.CLIENT_SENDS.values(), *states.CLIENT_RECEIVES.values()}

    assert leaves == set(STATES) - {states.CLOSED}
    assert reached == set(STATES)


JOB_STATES = [states.QUEUED, states.RUNNING, states.WAITING_FOR_OUTPUT, states.ENDED]
EXPECTED = {
    (states.QUEUED, "start"): states.RUNNING,
    (states.RUNNING, "need_output"): states.WAITING_FOR_OUTPUT,
    (states.WAITING_FOR_OUTPUT, "grant"): states.RUNNING,
    (states.QUEUED, "end"): states.ENDED,
    (states.RUNNING, "end"): states.ENDED,
    (states.WAITING_FOR_OUTPUT, "end"): states.ENDED,
}


def test_a_request_goes_the_steps_of_its_table_and_no_other() -> None:
    for state in JOB_STATES:
        for event in ("start", "need_output", "grant", "end", "restart"):
            if (state, event) in EXPECTED:
                assert states.step(state, event) == EXPECTED[state, event]
            else:
                with pytest.raises(LocalProtocolError, match=state):
                    states.step(state, event)


AGREE = [
    # protocol, scikit-learn, other's protocol, other's scikit-learn: whom to upgrade, seen from this side
    (1, "1.6.0", 1, "1.6.0", None),
    (1, "1.6.0", 1, "1.6.1", None),
    (1, "1.6.1.post1", 1, "1.6.1", None),
    (1, "1.6.0", 2, "1.6.0", "this"),
    (2, "1.6.0", 1, "1.6.0", "other"),
    (2, "1.6.0", 1, "1.7.0", "other"),
    (1, "1.6.0", 1, "1.7.0", "this"),
    (1, "1.7.2", 1, "1.6.3", "other"),
    (1, "1.9.0", 1, "1.10.0", "this"),
    (1, "2.0.0", 1, "1.9.0", "other"),
    (1, "", 1, "1.6.0", "this"),
    (1, "1.6.0", 1, "", "other"),
    (1, "1.9.dev0", 1, "1.9.0", None),
]


@pytest.mark.parametrize("other", ["client", "worker"])
def test_two_sides_agree_on_equal_protocols_and_minor_versions_or_are_told_whom_to_upgrade(other: str) -> None:
    this = "worker" if other == "client" else "client"
    for protocol, here, other_protocol, there, upgrade in AGREE:
        case = (protocol, here, other_protocol, there)
        versions: Mapping[str, str] = {"scikit-learn": here} if here else {}
        others: Mapping[str, str] = {"scikit-learn": there} if there else {}
        if upgrade is None:
            version.agree(protocol, versions, other_protocol, others, other)
            continue
        with pytest.raises(VersionMismatch) as caught:
            version.agree(protocol, versions, other_protocol, others, other)
        side = this if upgrade == "this" else other
        assert f"on the {side}'s side" in str(caught.value), case


def test_the_package_s_own_version_may_differ() -> None:
    version.agree(
        1,
        {"scikit-learn": "1.6.0", "sklearn_wsl_gpu": "1"},
        1,
        {"scikit-learn": "1.6.0", "sklearn_wsl_gpu": "2"},
        "client",
    )


def test_the_first_two_numbers_of_a_version_are_found() -> None:
    for text in ("1.8", "1.8.0", "1.8.2.post1", "1.8.dev0", "1.8.0+cu12", "1.8rc1"):
        assert version.minor(text) == (1, 8), text
    assert version.minor("1.10.2") == (1, 10)
