"""The sessions of this process, by what they are for: made on first use, replaced when broken, closed at its end."""

from __future__ import annotations

import atexit
import operator
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sklearn_wsl_gpu import launch, sockets
from sklearn_wsl_gpu.config import Settings
from sklearn_wsl_gpu.errors import (
    DEADLINE_PASSED,
    DeadlineExceeded,
    OffloadError,
    ProtocolError,
    VersionMismatch,
    WorkerStartError,
    WorkerUnavailable,
)
from sklearn_wsl_gpu.pool.heirs import Heirs
from sklearn_wsl_gpu.saying import say
from sklearn_wsl_gpu.session import Session

#: After a failure to reach a worker, calls fail at once with the same words for this long; or for as many times as long
#: as it took, but no longer than this.
_RETRY_SECONDS, _RETRY_TIMES, _LONGEST_RETRY_SECONDS = 5.0, 3.0, 180.0
#: Codes of refusals by a worker that is there.
_ANSWERED = ("no-carrier", "pool-too-large")

SessionKey = tuple[object, ...]


@dataclass(slots=True)
class _Sessions:
    live: dict[SessionKey, Session] = field(default_factory=dict)
    #: Until when it is not tried again, and why.
    failed: dict[SessionKey, tuple[float, OffloadError]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_sessions = _Sessions()
_parents: list[_Sessions] = []


class _Forking(threading.local):
    """The fork that a thread is about to do."""

    heirs: Heirs | None = None


_forking = _Forking()


#: Returns, of settings, what makes two sessions different.
_key: Callable[[Settings], SessionKey] = operator.attrgetter(
    *launch.WorkerKey._fields,
    "endpoint", "keys", "slots", "slot_bytes", "pool_dir", "pool_limit", "prefault", "carrier",
)  # fmt: skip


def obtain(settings: Settings) -> Session:
    """Return the session of these settings; open it if there is none.

    Raises
    ------
    OffloadError
        If no worker can be reached.
    """
    key = _key(settings)
    session = _sessions.live.get(key)
    if session is not None and _is_usable(session):
        return session
    if settings.timeout is None:
        with _sessions.lock:
            return _obtain(settings, key)
    # Another thread may open a session, which takes as long as its worker does to start.
    if not _sessions.lock.acquire(timeout=min(settings.timeout, threading.TIMEOUT_MAX)):
        raise DeadlineExceeded(DEADLINE_PASSED)
    try:
        return _obtain(settings, key)
    finally:
        _sessions.lock.release()


def _obtain(settings: Settings, key: SessionKey) -> Session:
    session = _sessions.live.pop(key, None)
    if session is not None:
        if _is_usable(session):
            _sessions.live[key] = session
            return session
        if session.silent:
            launch.discard(session.where)
        session.close()
    known = _sessions.failed.get(key)
    begin = time.monotonic()
    if known is not None and begin < known[0]:
        raise known[1].with_traceback(None)
    try:
        with _opening():
            session = _open(settings)
    except WorkerUnavailable as error:
        end = time.monotonic()
        pause = min(max(_RETRY_TIMES * (end - begin), _RETRY_SECONDS), _LONGEST_RETRY_SECONDS)
        _sessions.failed[key] = (end + pause, error)
        raise
    _sessions.failed.pop(key, None)
    _say(settings, f"pool of {session.pool.why}")
    _sessions.live[key] = session
    return session


@contextmanager
def _opening() -> Iterator[None]:
    """Make a `WorkerUnavailable` of what the system refuses, whatever it is, so that it is not tried at every call."""
    try:
        yield
    except OffloadError:
        raise
    except Exception as error:
        raise WorkerUnavailable(f"No session can be opened: {type(error).__name__}: {error}.", "no-session") from error


def _say(settings: Settings, words: str) -> None:
    if settings.verbose:
        say(words)


def _is_usable(session: Session) -> bool:
    # WSL may end an idle distribution: that should not cost the next call.
    return not session.broken and not launch.has_ended(session.where)


def peek(settings: Settings) -> Session | None:
    """Return the session of these settings, if there is one."""
    session = _sessions.live.get(_key(settings))
    return None if session is None or session.broken else session


def _open(settings: Settings) -> Session:
    where = launch.address(settings)
    try:
        session = Session(where, settings)
    except (WorkerUnavailable, ProtocolError) as error:
        if where.kept:
            _say(settings, f"the worker at {where.endpoint}, which is kept for all processes, is of no use: {error}")
            launch.discard(where)
        elif not _is_gone(where, error):
            raise
    else:
        if where.kept:
            _say(settings, f"uses the worker at {where.endpoint}, which is kept for all processes")
        return session
    return Session(launch.address(settings, use_kept=False), settings)


def _is_gone(where: launch.Address, error: OffloadError) -> bool:
    """Tell whether it was the parent process's worker and is gone with it, or is stopped."""
    if isinstance(error, (ProtocolError, WorkerStartError, VersionMismatch)):
        return False
    # One that answers without there being a way for arrays may have other sessions, and another would be no better.
    return error.code not in _ANSWERED and launch.discard(where)


def worker_address(settings: Settings) -> launch.Address | None:
    """Return where the worker of these settings is that name none, for child processes; None if there is none."""
    try:
        with _opening():
            where = launch.address(settings)
        return obtain(settings).where if where.kept else where
    except OffloadError:
        return None


def live() -> list[Session]:
    """Return the open sessions of this process."""
    return list(_sessions.live.values())


def shutdown() -> None:
    """Close this process's sessions and stop the workers that it started.

    Results that were kept stay valid. The next offloaded call starts anew. Called at the end of the process.
    """
    with _sessions.lock:
        sessions = list(_sessions.live.values())
        _sessions.live.clear()
        _sessions.failed.clear()
    for session in sessions:
        session.close()
    launch.stop_all()
    sockets.close_context()


def _before_fork() -> None:
    # The child will hold the parent's kept results: their spans must not be reused while it does.
    _forking.heirs = None
    pools = [session.pool for session in live()]
    if any(pool.view_bytes for pool in pools):
        _forking.heirs = Heirs()
        for pool in pools:
            pool.pin_kept(_forking.heirs)


def _after_fork_in_parent() -> None:
    if _forking.heirs is not None:
        _forking.heirs.stay()


def _after_fork() -> None:
    global _sessions
    if _forking.heirs is not None:
        _forking.heirs.inherit()
    # Kept, so that nothing closes the parent's sockets from here.
    _parents.append(_sessions)
    _sessions = _Sessions()
    sockets.after_fork()


atexit.register(shutdown)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)
