"""The processes that a fork leaves with what its parent had kept: how the parent learns that none of them is left."""

from __future__ import annotations

import contextlib
import os
import select
import sys


class Heirs:
    """The child of one fork, and all that it forks in turn. They hold one end of a pipe, whose closing tells.

    Make one before the fork; then call `stay` in the parent and `inherit` in the child.
    """

    def __init__(self) -> None:
        self._gone = False
        self._ours = self._theirs = -1
        with contextlib.suppress(OSError):  # without descriptors for it they count as there for good
            self._ours, self._theirs = os.pipe()

    def __del__(self) -> None:
        self._close_ours()  # and never theirs, which a child holds until it ends

    def stay(self) -> None:
        """Let go of the children's end."""
        if self._theirs >= 0:
            os.close(self._theirs)
            self._theirs = -1

    def inherit(self) -> None:
        """Let go of the parent's end, and hold the other one until this process ends or is another program."""
        self._close_ours()

    def are_gone(self) -> bool:
        """Tell, in the parent, whether no process is left that has inherited."""
        if not self._gone and self._ours >= 0 and sys.platform != "win32":
            ask = select.poll()
            ask.register(self._ours, select.POLLHUP)
            if ask.poll(0):
                self._gone = True
                self._close_ours()
        return self._gone

    def _close_ours(self) -> None:
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1
