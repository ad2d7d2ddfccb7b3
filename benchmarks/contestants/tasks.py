"""Libraries that run a function elsewhere: concurrent.futures, joblib, Ray, Dask."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from contestants.base import Contestant, processes, work

#: What Ray's object store may take: the largest array in and out, twice.
_STORE_BYTES = 5 * 2**30
#: From this size on Dask's documentation advises to scatter.
_SCATTER_BYTES = 2**20


class ProcessPool(Contestant):
    def start(self) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=processes)
        self._pool.submit(work, "touch", np.zeros((1, 1), np.float32)).result()

    def call(self, mode: str, X: Any) -> np.ndarray:
        return self._pool.submit(work, mode, X).result()

    def stop(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        super().stop()


class Joblib(Contestant):
    """Loky, with joblib's own way for large arrays: a file in /dev/shm that the worker maps."""

    def start(self) -> None:
        os.environ["JOBLIB_TEMP_FOLDER"] = "/dev/shm" if os.path.isdir("/dev/shm") else self.directory
        self.call("touch", np.zeros((1, 1), np.float32))

    def call(self, mode: str, X: Any) -> np.ndarray:
        from joblib import Parallel, delayed

        # With one job it would compute here. A new view is a new array to joblib, else X would be sent only once.
        return Parallel(n_jobs=2, backend="loky")([delayed(work)(mode, X.view())])[0]

    def stop(self) -> None:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True, kill_workers=True)
        super().stop()


class Ray(Contestant):
    """Put, task, get; large results are views on the object store."""

    def start(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
        import ray

        self._ray = ray
        # Its sockets lie there, whose names may not be longer than 107 bytes.
        self._directory = tempfile.TemporaryDirectory(prefix="ray")
        ray.init(
            num_cpus=1, include_dashboard=False, object_store_memory=_STORE_BYTES, log_to_driver=False,
            logging_level=logging.ERROR, _temp_dir=self._directory.name,
        )  # fmt: skip
        self._work = ray.remote(work)

    def call(self, mode: str, X: Any) -> np.ndarray:
        return self._ray.get(self._work.remote(mode, self._ray.put(X)))

    def stop(self) -> None:
        self._ray.shutdown()
        self._directory.cleanup()
        super().stop()


class Dask(Contestant):
    """A local cluster of one process; large arrays are scattered first."""

    def start(self) -> None:
        os.environ["DASK_DISTRIBUTED__ADMIN__LARGE_GRAPH_WARNING_THRESHOLD"] = "10GiB"
        from distributed import Client, LocalCluster

        warnings.simplefilter("ignore")
        self._cluster = LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, local_directory=self.directory, memory_limit=0,
            silence_logs=logging.CRITICAL,
        )  # fmt: skip
        self._client = Client(self._cluster)

    def call(self, mode: str, X: Any) -> np.ndarray:
        sent = X if X.nbytes < _SCATTER_BYTES else self._client.scatter(X, hash=False)
        return self._client.submit(work, mode, sent, pure=False).result()

    def stop(self) -> None:
        self._client.close()
        self._cluster.close()
        super().stop()
