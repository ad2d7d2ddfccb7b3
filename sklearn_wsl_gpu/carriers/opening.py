"""Opens the ways to a worker side by side, each within its own time."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from sklearn_wsl_gpu.carriers.base import PROBES, Carrier, Unsettled
from sklearn_wsl_gpu.errors import OffloadError
from sklearn_wsl_gpu.pool.segment import Segment

#: One that sees its deadline itself says better why.
_GRACE_SECONDS = 0.5


class _Attempt:
    """A carrier that is being opened."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier
        self.deadline = time.monotonic() + carrier.open_seconds
        self.is_open = False
        self._words = f"It was not open after {carrier.open_seconds:.1f} s."
        self._lock = threading.Lock()
        self._is_over = False

    def run(self, segment: Segment, enough: threading.Event) -> None:
        words = ""
        try:
            self.carrier.open(segment, self.deadline, enough)
        except (OffloadError, OSError, ValueError) as error:  # the last of memory that was closed meanwhile
            words = str(error)
        with self._lock:
            if not self._is_over:
                self.is_open, self._words = not words, words
        if self.is_open:
            enough.set()
        else:  # maybe in spite of having been closed
            self.carrier.close()

    def end(self) -> str:
        """Return why it is not open; empty if it is."""
        with self._lock:
            self._is_over = True
        if self._words:
            self.carrier.close()
        return self._words


def open_all(carriers: Sequence[Carrier], segment: Segment) -> tuple[list[Carrier], dict[str, str]]:
    """Open all carriers that can be opened.

    Returns
    -------
    opened : list of Carrier
        In the order in which they were given.
    refused : dict of str to str
        Why the others are not, by name. Nothing is done for them any more.

    Raises
    ------
    Unsettled
        If one of those may still write to the pool.
    """
    attempts, enough = [_Attempt(carrier) for carrier in carriers], threading.Event()
    if len(attempts) == 1:
        attempts[0].run(segment, enough)
    else:
        started = []
        for one in attempts:
            thread = threading.Thread(target=one.run, args=(segment, enough), daemon=True)
            try:
                thread.start()
            except RuntimeError:  # there are too many threads, or the interpreter is ending
                one.run(segment, enough)
            else:
                started.append((one, thread))
        for one, thread in started:
            thread.join(max(one.deadline + _GRACE_SECONDS - time.monotonic(), 0.0))
    ended = [(one.carrier, one.end()) for one in attempts]
    for carrier, words in ended:
        if not carrier.is_settled(PROBES):
            raise Unsettled(f"A pool that may still be written to cannot be used. {carrier.name}: {words}")
    return [carrier for carrier, words in ended if not words], {one.name: words for one, words in ended if words}
