"""Facts that only a process of its own may ask for, because it may hang or crash: ``-m sklearn_wsl_gpu.doctor.probes``.

Each prints what it knows as lines of JSON while it goes on, so that what was told before an end counts.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from sklearn_wsl_gpu.doctor.asking import tell
from sklearn_wsl_gpu.doctor.cuda import library, pinned, start

_TRIPS = 20
#: Whatever the environment says, a call goes to the worker, or tells why not.
_ALWAYS: dict[str, Any] = {
    "fallback": "raise", "policy": "always", "precision": "engine", "min_elements": 0, "include": None, "exclude": None,
}  # fmt: skip


def reach(**arguments: Any) -> None:
    """Open a session with a worker, and have 64 KiB go there and back.

    Tells ``endpoint``, ``open_seconds``, ``reach_seconds`` (how long the port of a worker beyond ``wsl.exe`` was not
    there for this side after it listened), ``engines``, ``versions`` of the worker, ``trip_seconds`` (the median of
    questions that are answered at once), ``carriers`` (see `sklearn_wsl_gpu.carriers.moving.Moving.describe`), and
    ``echo`` (true where the same bytes came back) or ``no_echo``, why no engine takes that; or ``error`` and its
    ``code``.
    """
    from sklearn_wsl_gpu import config, launch, sessions
    from sklearn_wsl_gpu.errors import OffloadError, Unsupported

    try:
        begin = time.perf_counter()
        session = sessions.obtain(config.resolve(arguments))
        tell(open_seconds=time.perf_counter() - begin, endpoint=session.where.endpoint, engines=list(session.engines))
        tell(reach_seconds=launch.reach_seconds(session.where))
        tell(versions={name: session.version(name) for name in ("sklearn_wsl_gpu", "scikit-learn", "pandas")})
        trips = []
        for _ in range(_TRIPS):
            begin = time.perf_counter()
            session.status()
            trips.append(time.perf_counter() - begin)
        tell(trip_seconds=statistics.median(trips))
        session.moving.measure()
        tell(carriers=session.moving.describe())
        try:
            tell(echo=_echo(arguments))
        except Unsupported as error:
            tell(no_echo=str(error))
    except OffloadError as error:
        tell(error=str(error), code=error.code)
    finally:
        sessions.shutdown()


def _echo(arguments: dict[str, Any]) -> bool:
    import numpy as np
    from sklearn.preprocessing import StandardScaler

    from sklearn_wsl_gpu.context import offload

    sent = np.random.default_rng().standard_normal((64, 128))
    # One that neither centers nor scales gives back what it is given.
    scaler = StandardScaler(with_mean=False, with_std=False)
    with offload(**arguments, **_ALWAYS) as session:
        received = scaler.fit_transform(sent)
    return session.report().offloaded > 0 and received.tobytes() == sent.tobytes()


def fit(**arguments: Any) -> None:
    """Fit KMeans on the GPU, with a worker of this machine; tell ``seconds``, and whether it is ``right``."""
    import numpy as np
    from sklearn.cluster import KMeans

    from sklearn_wsl_gpu import sessions
    from sklearn_wsl_gpu.context import offload
    from sklearn_wsl_gpu.errors import OffloadError

    near = np.random.default_rng(0).random((64, 4))
    data = np.concatenate([near, near + 100]).astype(np.float32)
    begin = time.perf_counter()
    try:
        with offload(**arguments, **_ALWAYS, endpoint=None, engine="cuml"):
            labels = KMeans(n_clusters=2, n_init=1, random_state=0).fit(data).labels_
        right = len(set(labels[:64])) == 1 and len(set(labels[64:])) == 1 and labels[0] != labels[-1]
        tell(seconds=time.perf_counter() - begin, right=bool(right))
    except OffloadError as error:
        tell(error=str(error), code=error.code)
    finally:
        sessions.shutdown()


_PROBES: dict[str, Callable[..., None]] = {
    "library": library, "cuda": start, "pinned": pinned, "reach": reach, "fit": fit,
}  # fmt: skip

if __name__ == "__main__":
    _PROBES[sys.argv[1]](**json.loads(sys.argv[2]))
