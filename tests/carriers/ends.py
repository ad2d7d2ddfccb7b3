"""The two ends of the file carrier in one process, without sockets between them."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sklearn_wsl_gpu.carriers.file import File, offer
from sklearn_wsl_gpu.errors import OffloadError
from sklearn_wsl_gpu.pool import Geometry, Pool, Segment
from sklearn_wsl_gpu.protocol import messages as m
from wsl_worker import files
from wsl_worker.background import Background
from wsl_worker.bulk import Account

GEOMETRY = Geometry(2 * 2**20, 4, 2, 0)


@dataclass
class Ends:
    """A client's pool and carrier, and what the worker has of them."""

    pool: Pool
    mirror: Segment
    account: Account
    background: Background
    files: files.Files
    carrier: File

    def ask(self, message: m.Message, deadline: float | None, body: bytes = b"") -> m.Message:
        """Do what the front does with a message, and wait for its answer."""
        answers: list[m.Message] = []
        try:
            assert isinstance(message, (m.Fetch, m.Store, m.Probe))
            self.files.do(message, answers.append)
        except OffloadError as error:
            return m.Refused(error.code, str(error))
        while not answers:
            select.select([self.background.descriptor], [], [], 0.1)
            self.background.collect()
            self.background.tick(time.monotonic())
        return answers[0]


@contextlib.contextmanager
def ends(directory: Path) -> Iterator[Ends]:
    """Make both ends, for a pool in a directory."""
    pool = Pool(GEOMETRY, str(directory), 2**26, named=True)
    segment = pool.segment
    mirror = Segment.create(segment.geometry, epoch=segment.epoch)
    account, background = Account(), Background()
    account.segments[0] = mirror
    theirs = files.Files(account, background)
    theirs.add(0, offer(segment)[1])
    made = Ends(pool, mirror, account, background, theirs, File(None, b"", *files.OFFERED[1:]))  # type: ignore[arg-type]
    made.carrier._ask = made.ask
    try:
        yield made
    finally:
        theirs.close()
        if theirs._lane._thread is not None:
            theirs._lane._thread.join()
        account.close()
        pool.close()
        background.close()
