"""The fitted models that an executor keeps, so that a prediction sends only its data."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

#: (session, engine, number that the client gave)
ModelKey = tuple[int, str, int]


class Models:
    """Models by key, bounded in bytes; the least recently used leave first.

    Parameters
    ----------
    limit : int
        Bytes that all models may take together. A single model larger than this is not kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._kept: OrderedDict[ModelKey, tuple[Any, int]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Models {len(self._kept)} kept, {self._bytes} of {self._limit} bytes>"

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: ModelKey) -> Any | None:
        """Return a model, and mark it as used."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def keep(self, key: ModelKey, model: Any, nbytes: int) -> bool:
        """Keep a model; tell whether there is room for it."""
        self._drop(key)
        if nbytes > self._limit:
            return False
        while self._bytes + nbytes > self._limit:
            self._drop(next(iter(self._kept)))
        self._kept[key] = (model, nbytes)
        self._bytes += nbytes
        return True

    def forget(self, session: int, which: Callable[[ModelKey], bool] = lambda key: True) -> None:
        """Drop the models of a session, or those of them that a function picks."""
        for key in [key for key in self._kept if key[0] == session and which(key)]:
            self._drop(key)

    def drop_all(self) -> int:
        """Drop all models; return how many there were."""
        count = len(self._kept)
        for key in list(self._kept):
            self._drop(key)
        return count

    def _drop(self, key: ModelKey) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self._bytes -= found[1]
