"""Arrays that lie in the pool: ordinary ones to everybody, which need not be sent when they are passed to a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sklearn_wsl_gpu import config, sessions
from sklearn_wsl_gpu.arrays import is_carried_dtype
from sklearn_wsl_gpu.errors import OffloadError
from sklearn_wsl_gpu.pool import placing
from sklearn_wsl_gpu.pool.placing import Array
from sklearn_wsl_gpu.waiting import Caller

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

#: Apart in the page from where numpy's own arrays begin: glibc copies between the two at a third of the speed when
#: they begin within 256 bytes of each other, modulo a page.
_OFFSET = 1024
#: Kinds of types between which every value can be cast while it is copied.
_NUMBERS = frozenset("biufc")


def empty(
    shape: int | np.integer[Any] | tuple[int, ...], dtype: DTypeLike = float, order: Literal["C", "F"] = "C"
) -> Array:
    """Return a new array that lies in the pool, its entries not initialized.

    It is an ordinary numpy array, and may be kept as long as one. Passed to an offloaded call, it is not copied: the
    worker reads it where it lies. So does a contiguous part of it, and a large result of an offloaded call. It starts
    the worker if there is none. A process that is forked writes to memory of its own, but may see what its parent
    writes later. Where the pool has no room, or no worker can be reached, the array lies elsewhere, and is sent as any
    other.

    Parameters
    ----------
    shape : int or tuple of int
        Shape of the array.
    dtype : data-type, default=float
        Type of its elements.
    order : {"C", "F"}, default="C"
        Row after row, or column after column.

    Returns
    -------
    array : ndarray of shape `shape` and dtype `dtype`

    Examples
    --------
    >>> import sklearn_wsl_gpu
    >>> from sklearn.preprocessing import MaxAbsScaler
    >>> with sklearn_wsl_gpu.offload() as session:
    ...     X = sklearn_wsl_gpu.empty((100_000, 10))
    ...     X[:] = 2.0
    ...     scaler = MaxAbsScaler().fit(X)
    >>> session.report().calls[0].bytes_sent < 2000
    True
    """
    if order not in ("C", "F"):
        raise ValueError("only 'C' or 'F' order is permitted")
    kind = np.dtype(dtype)
    extents = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    count = 1
    for extent in extents:
        count *= int(extent)
    found = None
    if count > 0 and kind.itemsize and is_carried_dtype(kind.str):
        found = _lease(extents, kind, order, count * kind.itemsize)
    return np.empty(extents, kind, order) if found is None else found


def asarray(x: ArrayLike, dtype: DTypeLike | None = None, order: Literal["C", "F", "A", "K"] | None = None) -> Array:
    """Return an array that lies in the pool with the values of another, which is copied unless it lies there already.

    Parameters
    ----------
    x : array-like
        What `numpy.asarray` takes.
    dtype : data-type or None, default=None
        Type of its elements; None keeps that of `x`.
    order : {"C", "F", "A", "K"} or None, default=None
        Row after row, or column after column; all others keep that of `x` as far as it has one.

    Returns
    -------
    array : ndarray
        See `empty`. `x` itself, if it lies in the pool and has this type and order.
    """
    if order not in (None, "C", "F", "A", "K"):
        raise ValueError("order must be one of 'C', 'F', 'A', or 'K'")
    values = np.asarray(x)
    kind = values.dtype if dtype is None else np.dtype(dtype)
    if kind != values.dtype and not (values is x and _NUMBERS.issuperset((values.dtype.kind, kind.kind))):
        # Lengths of texts, units of times and what is out of range are numpy's to decide on.
        values = np.asarray(x, dtype)
        kind = values.dtype
    wanted = order if order in ("C", "F") else placing.memory_order(values)
    session = sessions.peek(_settings())
    ordered = {"C": values.flags.c_contiguous, "F": values.flags.f_contiguous}.get(order or "", True)
    same = kind == values.dtype and ordered
    if same and session is not None and session.pool.find_kept(values) is not None:
        return values
    array = empty(values.shape, kind, wanted)
    if session is not None and kind == values.dtype:
        session.pool.copier.copy(array, values)
    else:
        np.copyto(array, values, casting="unsafe")
    return array


def _settings() -> config.Settings:
    frame = config.active()
    return config.from_environment() if frame is None else frame.settings


def _lease(shape: tuple[Any, ...], dtype: np.dtype[Any], order: Literal["C", "F"], nbytes: int) -> Array | None:
    end = _OFFSET + nbytes
    try:
        settings = _settings()
        session = sessions.obtain(settings)
        lease = session.room.lease_kept(end, None, Caller(settings.priority, "an array of the user"))
        if lease is None:
            return None
        session.pool.seal(lease, end)
        window = session.pool.window(lease)
        session.pool.keep(lease, window, end)
    except OffloadError:
        return None
    return np.ndarray(shape, dtype, window.data, _OFFSET, order=order)
