"""This project, by the whole of a user's call, and the same estimators without it."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import numpy as np
from one_pass import Double, Touch
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import sklearn_wsl_gpu
from contestants.base import Contestant


class Local(Contestant):
    """The estimators' own methods here: into a fresh array, and into one that is kept."""

    modes = ("touch", "out", "out, kept")

    def start(self) -> None:
        self._touch, self._double = Touch(), Double()
        self._kept = np.empty(0, np.float32)

    def call(self, mode: str, X: Any) -> np.ndarray:
        if mode == "out, kept":
            self._touch.score_samples(X)
            return np.multiply(X, 2, out=self._kept)
        return self._touch.score_samples(X) if mode == "touch" else self._double.transform(X)

    def place(self, mode: str, X: np.ndarray) -> Any:
        self._kept = np.empty_like(X) if mode == "out, kept" else np.empty(0, np.float32)
        return X


class LocalCopy(Local):
    """What a client has to do at least, done by itself: copy X, and compute in warm memory."""

    modes = ("out",)

    def call(self, mode: str, X: Any) -> np.ndarray:
        np.copyto(self._copy, X)
        return np.multiply(self._copy, 2, out=self._kept)

    def place(self, mode: str, X: np.ndarray) -> Any:
        self._copy, self._kept = X.copy(), X.copy()
        return X


class Offload(Contestant):
    """The estimators' methods inside ``offload()``: policy, gather, CURVE, front, executor, adopt."""

    modes = ("touch", "out", "pool, touch", "pool, out")

    def start(self) -> None:
        self._stack = contextlib.ExitStack()
        endpoint, keys = os.environ.get("TRANSPORT_ENDPOINT"), os.environ.get("TRANSPORT_KEYS")
        settings = {"endpoint": endpoint, "keys": keys} if endpoint else {"engine": "cpu"}
        self.session = self._stack.enter_context(sklearn_wsl_gpu.offload(fallback="raise", policy="always", **settings))
        self._touch, self._double = Touch(), Double()

    def call(self, mode: str, X: Any) -> np.ndarray:
        return self._touch.score_samples(X) if mode.endswith("touch") else self._double.transform(X)

    def place(self, mode: str, X: np.ndarray) -> Any:
        if not mode.startswith("pool"):
            return X
        array = sklearn_wsl_gpu.empty(X.shape, X.dtype, "F" if X.flags.fnc else "C")
        np.copyto(array, X)
        return array

    def phases(self) -> dict[str, float]:
        seconds = dict(self.session.report().calls[-1].seconds)
        del seconds["start"]  # long before
        return seconds

    def stop(self) -> None:
        self._stack.close()
        sklearn_wsl_gpu.shutdown()
        super().stop()


class Tiny(Offload):
    """The whole call of a tiny estimator: predict on 100 rows."""

    modes = ("predict",)
    verifies = False

    def start(self) -> None:
        super().start()
        X, y = load_iris(return_X_y=True)
        self._data = X[:100].copy()
        self._model = LogisticRegression(max_iter=1000).fit(X, y)

    def call(self, mode: str, X: Any) -> np.ndarray:
        return self._model.predict(X)

    def place(self, mode: str, X: np.ndarray) -> Any:
        return self._data
