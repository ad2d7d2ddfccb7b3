"""What an executor is to be told of the segments of sessions: as soon as it listens, and no sooner.

While it computes it reads nothing. Descriptors that were sent to it would wait in its socket, however many clients come
and go meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from wsl_worker.sessions import Session

#: Runs of a session that wait to be made ready; it is a favour.
_MAX_WARMS = 16

Send = Callable[[list[Any], int | None], None]


class Telling:
    """Messages about segments that an executor has not been sent yet.

    Parameters
    ----------
    send : callable
        Sends a head, with a descriptor or None; it takes over the descriptor.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        #: Of each session, what is to be sent, in its order: kind, number of the segment, and more.
        self._later: dict[Session, list[list[Any]]] = {}
        #: Numbers of the sessions that the executor has heard of.
        self._known: set[int] = set()

    def attach(self, session: Session, number: int) -> None:
        """Have a segment mapped."""
        self._later.setdefault(session, []).append(["attach", number, number in session.mirrors])

    def drop(self, session: Session, number: int) -> None:
        """Have a segment forgotten."""
        waiting = self._later.setdefault(session, [])
        kept = [one for one in waiting if one[1] != number or one[0] == "drop_segment"]
        was_told = all(one[:2] != ["attach", number] for one in waiting)
        if was_told:
            kept.append(["drop_segment", number])
        self._later[session] = kept

    def warm(self, session: Session, number: int, start: int, nbytes: int) -> None:
        """Have a run of a segment made ready."""
        waiting = self._later.setdefault(session, [])
        if sum(one[0] == "warm" for one in waiting) < _MAX_WARMS:
            waiting.append(["warm", number, start, nbytes])

    def forget(self, session: Session) -> None:
        """Have a session forgotten, with all that is its."""
        self._later.pop(session, None)
        if session.number in self._known:
            self._known.remove(session.number)
            self._send(["detach", session.number], None)

    def clear(self) -> None:
        """Start anew, with an executor that has heard of nothing."""
        self._later.clear()
        self._known.clear()

    def tell(self, session: Session) -> None:
        """Send what there is of a session.

        Raises
        ------
        OSError
            If there are too many descriptors. What was not sent is sent the next time.
        """
        waiting = self._later.get(session, [])
        self._known.add(session.number)
        while waiting:
            kind, number, *about = waiting[0]
            descriptor = os.dup(session.descriptors[number]) if kind == "attach" else None
            del waiting[0]
            self._send([kind, session.number, number, *about], descriptor)
        self._later.pop(session, None)

    def tell_all(self) -> None:
        """Send what there is of all sessions; may raise `OSError`."""
        for session in list(self._later):
            self.tell(session)
