"""`offload`: the context manager and decorator under which scikit-learn's calls run on a worker."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from numbers import Integral
from os import PathLike
from types import TracebackType
from typing import Any, TypeVar

from sklearn_wsl_gpu import config, sessions
from sklearn_wsl_gpu.config import UNSET, Frame, Settings
from sklearn_wsl_gpu.errors import ConfigurationError, PoolTooSmall
from sklearn_wsl_gpu.pool import counters
from sklearn_wsl_gpu.reporting import Report, process_report
from sklearn_wsl_gpu.waiting import describe_queue, describe_waits

_Function = TypeVar("_Function", bound=Callable[..., Any])


class OffloadSession:
    """What a ``with offload()`` block gets: its settings, its report, and the worker's state.

    Attributes
    ----------
    settings : Settings
        As they are in this block.
    """

    def __init__(self, settings: Settings, own: Report) -> None:
        self.settings = settings
        self._report = own

    def __repr__(self) -> str:
        session = sessions.peek(self.settings)
        kept = session.where.endpoint if session is not None and session.where.kept else None
        where = self.settings.endpoint or kept or "this process's worker"
        return f"<OffloadSession with {where}: {self._report!r}>"

    def report(self) -> Report:
        """Return what ran where in this block, so far."""
        return self._report

    def status(self) -> dict[str, object]:
        """Return the worker's counters, and the state of the pool; starts the worker if there is none.

        Returns
        -------
        status : dict
            ``pool`` says how large the pool is, and why; ``slots`` is its map: a list of dicts, as
            `sklearn_wsl_gpu.pool.ledger.Slot` describes; ``pool_counters`` are leases and waits for room, as
            `sklearn_wsl_gpu.pool.counters.describe` returns them; ``carriers`` are the ways of arrays to the worker, as
            `sklearn_wsl_gpu.carriers.moving.Moving.describe` returns them.

        Raises
        ------
        OffloadError
            If no worker can be reached.
        """
        session = sessions.obtain(self.settings)
        pool, told = session.pool, session.status()
        return {
            **{name: value for name, value in told.items() if name != "pools"},
            "queued_by_priority": describe_queue(told["queued_by_priority"]),
            "queue_waits": describe_waits(told["queue_waits"]),
            "carriers": session.moving.describe(),
            "pool": pool.why,
            "pool_bytes": pool.pool_bytes,
            "pool_used_bytes": pool.used_bytes,
            "pool_kept_bytes": pool.view_bytes,
            "pool_counters": counters.describe(pool.counters.as_list()),
            "slots": [asdict(slot) for slot in pool.slots()],
        }

    def grow_pool(self, nbytes: int) -> int:
        """Add a segment to the pool, for arrays of `nbytes` together.

        The pool grows by itself when it is needed; this does so ahead of it.

        Parameters
        ----------
        nbytes : int
            Bytes that the segment has to hold; whole slots are added.

        Returns
        -------
        nbytes : int
            Bytes that the pool has now.

        Raises
        ------
        ConfigurationError
            If it is no number of bytes above zero.
        PoolTooSmall
            If the pool's limit, the memory or the worker does not allow it.
        OffloadError
            If no worker can be reached.
        """
        if not isinstance(nbytes, Integral) or isinstance(nbytes, bool) or nbytes <= 0:
            raise ConfigurationError(f"grow_pool takes a number of bytes above zero, such as 2**30; got {nbytes!r}")
        session = sessions.obtain(self.settings)
        if not session.room.grow(int(nbytes)):
            raise PoolTooSmall(
                f"The pool has {session.pool.pool_bytes} bytes, and cannot grow by {nbytes}: its "
                f"limit is {session.pool.limit}, and the worker and the memory have theirs. Raise "
                "pool_limit, or free some memory."
            )
        return session.pool.pool_bytes

    def shrink_pool(self) -> int:
        """Give the memory of the pool in which nothing lies back to the system; it does so by itself when idle.

        Returns
        -------
        nbytes : int
            Bytes that were given back.
        """
        return sessions.obtain(self.settings).room.shrink()

    def stop_worker(self) -> None:
        """Ask the worker to end, for all its clients. The next offloaded call starts an embedded one anew.

        Raises
        ------
        OffloadError
            If no worker can be reached.
        """
        sessions.obtain(self.settings).stop_worker()


class offload:
    """Run scikit-learn's computations on a worker: ``with offload(): …`` or ``@offload()``.

    Inside, the methods of the supported estimators are done by a worker process, in shared memory: the
    classes, results, warnings, errors and pickles are scikit-learn's own. What a worker cannot do is done here,
    and the report says why. May be nested (what is not given is taken from the context around), entered again,
    and used in several threads; a thread that is started inside begins without it, as with
    `sklearn.config_context`. When the last one is left, scikit-learn's classes are as they were.

    Each parameter has an environment variable, ``SKLEARN_WSL_GPU_`` and its name in capitals.

    Parameters
    ----------
    endpoint : str or None, default=None
        ``"tcp://HOST:PORT"`` of a worker. None takes the one that ``sklearn-wsl-gpu worker start`` keeps, if there is
        one and it is what the settings ask for; else it starts one as a child of this process on first use, and reuses
        it; on Windows in WSL.
    engine : str, default="auto"
        What the worker that is started computes with: ``"auto"`` or the name of an installed engine.
    device : str or int, default="auto"
        What the engine of the worker that is started computes on: ``"cpu"``, ``"cuda:1"`` (or ``1``) for the second
        GPU, or ``"auto"`` for what the engine takes by itself, a GPU if it can.
    include, exclude : collection of str or None, default=None
        Names of estimators (or their classes) to offload only, or not to. In the environment separated by
        commas.
    min_elements : int, default=0
        Calls whose data has fewer elements stay local.
    policy : {"always", "auto"}, default="always"
        Whether a call that can be offloaded always is, or only if that is expected to pay: by what such calls were
        measured to take here and there, which is kept in the user's cache directory, and by what was published
        until they were. What is not known at all goes.
    fallback : {"local", "quiet", "raise"}, default="local"
        What to do with a call that the worker cannot do: local scikit-learn does it, with a
        `FallbackWarning` for each distinct reason; or without one, for programs that turn warnings into errors
        (the report has the reasons either way); or an `OffloadError` is raised.
    precision : {"exact", "engine"}, default="exact"
        ``"engine"`` sends X in single precision to an engine that computes an estimator in no other, which halves the
        bytes; results that depend on the precision of X are then in single precision, too.
    verbose : int, default=0
        Above 0, each call is told on standard error, and so are the size of a pool that is made, with the reason,
        and the messages of a worker that is started.
    timeout : float or None, default=None
        Seconds that one call may take, waiting included, before it falls back.
    priority : {"high", "normal", "low"}, default="normal"
        Whose calls come first where they wait, for room in the pool and for the worker's device. A call that runs is
        not interrupted; one that is passed too often moves up.
    slots : tuple of int, default=(4, 4, 8)
        Input, output and scratch slots of the pool.
    slot_bytes : int or None, default=None
        Bytes of a slot, a multiple of 4096. None takes 256 MiB, or less where that would be more than half of the
        memory that is free when the pool is made: of the machine, of this process's control groups, in the file
        system of `pool_dir`. Memory is only used when data comes to lie in it.
    pool_limit : int or None, default=None
        Bytes that the pool may grow to, by segments that are added when what lies in it and is sent needs more, and
        given back when nothing needs them any more. None takes half of the memory; 0 lets it never grow.
    prefault : int or None, default=None
        Bytes of the pool, for inputs and as many for results, that are made ready in the background when the session
        is opened, so that the first call is no slower than others. None takes a 128th of what is free, a slot at most.
    pool_dir : path or None, default=None
        Directory of a memory file system that the pool should use; None lets the system choose.
    carrier : {"auto", "shared", "stream", "file"}, default="auto"
        How arrays get to the worker and back: ``"shared"``, by memory that both sides see; ``"stream"``, over a socket
        beside that of the messages, which is not encrypted; ``"file"``, by a file in `pool_dir` that both sides see
        under its path, if what either writes there the other reads at once. ``"auto"`` takes shared memory if there
        is any, else those of the others that work (``"file"`` on Windows only), for each transfer the one that was
        measured to be done first.
    keys : path or None, default=None
        Directory with the keys of the worker at `endpoint`, or of the one that is kept; None takes
        ``~/.sklearn_wsl_gpu``.
    model_bytes : int, default=1073741824
        Memory, in bytes, in which a worker that is started keeps fitted models.
    distribution : str or None, default=None
        On Windows, the distribution of WSL in which a worker is started; None takes WSL's default, or the first one of
        version 2 if that is a part of another program.
    interpreter : str or None, default=None
        Path of the Python that a started worker runs with: where the worker is, beginning with ``/`` or ``~/``. None
        takes the one that ``sklearn-wsl-gpu setup`` installs in WSL; on Linux this process's own.

    Raises
    ------
    ConfigurationError
        If a value is not allowed.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.cluster import KMeans
    >>> from sklearn_wsl_gpu import offload
    >>> X = np.array([[1.0, 2.0], [1.0, 4.0], [10.0, 2.0], [10.0, 4.0]])
    >>> with offload() as session:
    ...     labels = KMeans(n_clusters=2, random_state=0, n_init=1).fit_predict(X)
    >>> session.report().offloaded
    1
    """

    def __init__(
        self,
        *,
        endpoint: str | None = UNSET,
        engine: str = UNSET,
        device: str | int = UNSET,
        include: Iterable[str | type] | None = UNSET,
        exclude: Iterable[str | type] | None = UNSET,
        min_elements: int = UNSET,
        policy: str = UNSET,
        fallback: str = UNSET,
        precision: str = UNSET,
        verbose: int = UNSET,
        timeout: float | None = UNSET,
        priority: str = UNSET,
        slots: tuple[int, int, int] = UNSET,
        slot_bytes: int | None = UNSET,
        pool_limit: int | None = UNSET,
        prefault: int | None = UNSET,
        pool_dir: str | PathLike[str] | None = UNSET,
        carrier: str = UNSET,
        keys: str | PathLike[str] | None = UNSET,
        model_bytes: int = UNSET,
        distribution: str | None = UNSET,
        interpreter: str | PathLike[str] | None = UNSET,
    ) -> None:
        given = locals()
        values = {name: given[name] for name in config.NAMES if given[name] is not UNSET}
        values = {name: list(value) if isinstance(value, Iterator) else value for name, value in values.items()}
        config.resolve(values)  # a wrong value is told here, where it stands
        # What they are now: lists, and the directory that paths begin in, may be others when it is entered.
        self._arguments = {name: config.checked(name, value) for name, value in values.items()}
        self._shown = f"offload({', '.join(f'{name}={value!r}' for name, value in values.items())})"
        #: Entered and not left yet, in whatever thread.
        self._frames: list[Frame] = []

    def __repr__(self) -> str:
        return self._shown

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_frames": []}  # in another process it is not entered

    def resolved(self, around: Settings | None = None) -> Settings:
        """Return all settings: what was given, else those around, else the environment's and the defaults."""
        return config.resolve(self._arguments, around)

    def __enter__(self) -> OffloadSession:
        from sklearn_wsl_gpu import patching

        around = config.active()
        settings = self.resolved(None if around is None else around.settings)
        own = Report()
        outer = (process_report,) if around is None else around.reports
        warned = set() if around is None else around.warned
        patching.install()
        frame = Frame(settings, (own, *outer), config.entered(), self, warned)
        self._frames.append(frame)
        config.enter(frame)
        return OffloadSession(settings, own)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from sklearn_wsl_gpu import measuring, patching

        # Not by a token: a generator may be closed in another context than it was entered in.
        frame = config.entered()
        while frame is not None and not (frame.owner is self and frame.is_open):
            frame = frame.parent
        if frame is None:
            if not self._frames:
                return  # it was left before
            frame = self._frames[-1]
        self._frames.remove(frame)
        frame.is_open = False
        # One that was entered in it and is left later, as in a notebook, stays.
        while (last := config.entered()) is not None and not last.is_open:
            config.enter(last.parent)
        patching.uninstall()
        if config.active() is None:
            measuring.keep()

    def __call__(self, function: _Function) -> _Function:
        """Decorate a function, so that each call of it runs inside this context."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def inner_async(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return inner_async  # type: ignore[return-value]
        if inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def inner_items(*args: Any, **kwargs: Any) -> Any:
                with self:
                    async for item in function(*args, **kwargs):
                        yield item

            return inner_items  # type: ignore[return-value]
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def inner_generator(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return (yield from function(*args, **kwargs))

            return inner_generator  # type: ignore[return-value]

        @functools.wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return inner  # type: ignore[return-value]


def config_context(**options: Any) -> AbstractContextManager[OffloadSession]:
    """Run a block under settings of scikit-learn and of `offload` together.

    Parameters
    ----------
    **options
        Parameters of `sklearn.config_context` and of `offload`.

    Returns
    -------
    context : context manager
        It gives what ``with offload()`` gives; calls are offloaded inside, as they are there.

    Raises
    ------
    ConfigurationError
        If a value of a parameter of `offload` is not allowed. scikit-learn judges its own when the block is entered.
    TypeError
        If a name is neither's.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.preprocessing import StandardScaler
    >>> import sklearn_wsl_gpu
    >>> with sklearn_wsl_gpu.config_context(assume_finite=True, exclude=["KMeans"]) as session:
    ...     scaler = StandardScaler().fit(np.eye(3))
    >>> session.report().offloaded
    1
    """
    from sklearn_wsl_gpu import _compat

    theirs = {name: value for name, value in options.items() if name not in config.NAMES}
    unknown = sorted(theirs.keys() - _compat.SETTINGS)
    if unknown:
        known = ", ".join(sorted({*config.NAMES, *_compat.SETTINGS}))
        raise TypeError(f"config_context() has no setting {unknown[0]!r}; it takes {known}.")
    ours = offload(**{name: value for name, value in options.items() if name in config.NAMES})
    return _both(ours, _compat.config_context, theirs)


@contextlib.contextmanager
def _both(
    ours: offload, sklearns: Callable[..., AbstractContextManager[None]], theirs: Mapping[str, Any]
) -> Iterator[OffloadSession]:
    with sklearns(**theirs), ours as session:
        yield session


def report() -> Report:
    """Return what ran where in this process, so far: the calls of all `offload` contexts."""
    return process_report
