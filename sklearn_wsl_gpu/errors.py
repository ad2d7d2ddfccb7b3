"""The errors and warnings of this package, and the reasons for staying local.

::

    OffloadError
      ConfigurationError (ValueError)       a setting is wrong
      Unsupported                           this call cannot be carried to a worker, or no engine takes it
      WorkerUnavailable (ConnectionError)   there is no worker to talk to
        WorkerStartError                      it did not come up
        WorkerDied                            it was there and is gone
        AuthenticationError                   it does not know this client's key, or is not who it should be
        VersionMismatch                       the two sides are of versions that do not fit
      DeadlineExceeded (TimeoutError)       the call's deadline passed
      EngineError                           the engine failed where local scikit-learn did not
      ProtocolError
        LocalProtocolError                    this side misused the protocol: a bug here
        RemoteProtocolError                   the other side sent nonsense
      PoolError
        PoolTooSmall (MemoryError)            it can never fit; says which setting to change
        PoolSpaceError (MemoryError)          the memory or the file system behind the pool is full
        StaleReference                        a reference to a span that has been given back
    FallbackWarning (UserWarning)           ran locally instead, and why

What an estimator itself would raise is not in this tree: it is raised by scikit-learn, here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a call was not offloaded: a stable code, and words for a person.

    Attributes
    ----------
    code, words : str
    varies : bool
        Whether the words have figures of the one call; a report then counts all of a code together.
    """

    code: str
    words: str
    varies: bool = False

    def __str__(self) -> str:
        return f"{self.words} [{self.code}]"


class OffloadError(Exception):
    """Base of all errors of this package.

    Parameters
    ----------
    words : str
        What happened, why, and what to do next.
    code : str, optional
        The stable code that the report shows; each class has its own default.
    """

    code = "offload"

    def __init__(self, words: str, code: str | None = None) -> None:
        super().__init__(words)
        if code is not None:
            self.code = code

    @property
    def reason(self) -> Reason:
        """The error as a reason for the report."""
        return Reason(self.code, str(self))


class ConfigurationError(OffloadError, ValueError):
    """A setting has a value that is not allowed; the message lists those that are."""

    code = "configuration"


class Unsupported(OffloadError):
    """The call holds something that cannot be carried to a worker, or that no engine takes."""

    code = "unsupported-argument"


class WorkerUnavailable(OffloadError, ConnectionError):
    """There is no worker to talk to."""

    code = "worker-unreachable"


class WorkerStartError(WorkerUnavailable):
    """The worker process did not come up; the message ends with what it printed last."""

    code = "worker-start"


class WorkerDied(WorkerUnavailable):
    """The worker, or its executor, ended while it was needed."""

    code = "worker-died"


class AuthenticationError(WorkerUnavailable):
    """The worker does not know this client's key, or is not the one the key file names."""

    code = "authentication"


class VersionMismatch(WorkerUnavailable):
    """The two sides are of versions that do not fit; the message says which one to upgrade."""

    code = "version-mismatch"


class DeadlineExceeded(OffloadError, TimeoutError):
    """The call's deadline (setting ``timeout``) passed before the worker answered."""

    code = "deadline"


#: What there is to say of it where nothing else is known.
DEADLINE_PASSED = "The call's deadline passed. Raise timeout, or leave it unset."


class EngineError(OffloadError):
    """The engine failed at a call that local scikit-learn performs."""

    code = "engine-error"


class ProtocolError(OffloadError):
    """Base of errors in the conversation between client and worker."""

    code = "protocol"


class LocalProtocolError(ProtocolError):
    """The protocol was misused on this side: a bug in this package."""


class RemoteProtocolError(ProtocolError):
    """The other side sent something that the protocol does not allow."""


class PoolError(OffloadError):
    """Base of errors about where arrays lie."""

    code = "pool"


class PoolTooSmall(PoolError, MemoryError):
    """The arrays of one call can never fit in the pool, however long one waits."""

    code = "pool-too-small"


class PoolSpaceError(PoolError, MemoryError):
    """The memory or the file system behind the pool has no space left."""

    code = "pool-no-space"


class StaleReference(PoolError):
    """A reference names a span that has been given back or was never there."""

    code = "stale-reference"


class _Guard:
    """A context manager: a generator's takes three times as long, and a call enters three of them."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # A warning that is an error is so by the user's own filters.
        if isinstance(error, Exception) and not isinstance(error, (OffloadError, Warning)):
            raise OffloadError(
                f"sklearn_wsl_gpu failed by itself ({type(error).__name__}: {error}). Please report it, with the "
                "traceback that fallback='raise' gives.",
                "internal-error",
            ) from error


#: In it whatever nobody has thought of becomes an `OffloadError`, so that the call is done by local scikit-learn.
guarded = _Guard()


class FallbackWarning(UserWarning):
    """A call inside ``offload()`` was done by local scikit-learn instead; the text says why.

    Given once for each distinct reason. ``offload(fallback="raise")`` makes it an error.
    """
