"""When it may be said: one transition table a side.

Two rules for this file: everything about transitions is in the tables, and nothing here knows a socket, a
clock or a thread. A step that the table does not have raises and changes nothing.

The client's table is about one channel (a REQ socket): strict question and answer, except that a question may
be asked again (``Wait`` after silence). The worker's table is about one request.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from sklearn_wsl_gpu.errors import LocalProtocolError, RemoteProtocolError
from sklearn_wsl_gpu.protocol import messages as m

# The states of a client's channel.
NEW, GREETING, READY, ASKING, CLOSED = "NEW", "GREETING", "READY", "ASKING", "CLOSED"
#: Asking without a session: somebody who only looks, or who stops the worker.
LOOKING = "LOOKING"

ChannelTable: TypeAlias = dict[tuple[str, type[Any]], str]

CLIENT_SENDS: ChannelTable = {
    (NEW, m.Hello): GREETING,
    (NEW, m.Status): LOOKING,
    (NEW, m.Stop): LOOKING,
    (NEW, m.Resize): LOOKING,
    **{
        (READY, kind): ASKING
        for kind in (
            m.Call,
            m.Wait,
            m.Grant,
            m.Cancel,
            m.Status,
            m.Bye,
            m.Stop,
            m.Attach,
            m.Detach,
            m.Warm,
            m.Fetch,
            m.Store,
            m.Probe,
        )
    },
    # Silence: the same question again, or the wish to stop.
    (ASKING, m.Wait): ASKING,
    (ASKING, m.Cancel): ASKING,
}
CLIENT_RECEIVES: ChannelTable = {
    (GREETING, m.Welcome): READY,
    (GREETING, m.Refused): CLOSED,
    # The engine is starting: greet again.
    (GREETING, m.Running): NEW,
    (LOOKING, m.Report): NEW,
    (LOOKING, m.Farewell): CLOSED,
    (LOOKING, m.Refused): CLOSED,
    (ASKING, m.Farewell): CLOSED,
    **{
        (ASKING, kind): READY
        for kind in (
            m.Result, m.NeedOutput, m.NeedModel, m.Running, m.Failed, m.Cancelled, m.Refused, m.Report,
            m.Progress, m.Attached, m.Done, m.Moved, m.Probed,
        )
    },
}  # fmt: skip


class Channel:
    """The client's end of one conversation: bytes in, messages out, and the state in between."""

    def __init__(self, state: str = NEW) -> None:
        self.state = state
        self.request = -1

    def __repr__(self) -> str:
        return f"<Channel {self.state}, request {self.request}>"

    def send(self, message: m.Message) -> bytes:
        """Return the head frame of a message that may be sent now.

        Raises
        ------
        LocalProtocolError
            If it may not.
        """
        following = CLIENT_SENDS.get((self.state, type(message)))
        if following is None:
            raise LocalProtocolError(f"{type(message).__name__} may not be sent in state {self.state}.")
        head = m.encode(message)
        self.state = following
        self.request = getattr(message, "request", -1)
        return head

    def receive(self, head: bytes | memoryview) -> m.Message:
        """Return the message of a head frame that may arrive now.

        Raises
        ------
        RemoteProtocolError
            If it may not, is malformed, or answers another request.
        """
        message = m.decode(head)
        following = CLIENT_RECEIVES.get((self.state, type(message)))
        if following is None:
            raise RemoteProtocolError(f"The worker sent {type(message).__name__} in state {self.state}.")
        if getattr(message, "request", self.request) != self.request:
            raise RemoteProtocolError("The worker answered another request than the one asked.")
        self.state = following
        return message


# The states of a request in the worker.
QUEUED, RUNNING, WAITING_FOR_OUTPUT, ENDED = "QUEUED", "RUNNING", "WAITING_FOR_OUTPUT", "ENDED"

#: (state, event) → state. Events are the front's own words for what happened.
JOB: dict[tuple[str, str], str] = {
    (QUEUED, "start"): RUNNING,
    (QUEUED, "end"): ENDED,
    (RUNNING, "need_output"): WAITING_FOR_OUTPUT,
    (RUNNING, "end"): ENDED,
    (WAITING_FOR_OUTPUT, "grant"): RUNNING,
    (WAITING_FOR_OUTPUT, "end"): ENDED,
}


def step(state: str, event: str) -> str:
    """Return the state of a request after an event, or raise `LocalProtocolError`."""
    following = JOB.get((state, event))
    if following is None:
        raise LocalProtocolError(f"A request in state {state} cannot {event}.")
    return following
