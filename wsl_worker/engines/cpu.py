"""Plain scikit-learn on the CPU: the embedded default, and the exact reference for the other engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sklearn_wsl_gpu import support
from sklearn_wsl_gpu.errors import Reason
from sklearn_wsl_gpu.estimators import ROWS, Row, third_party
from sklearn_wsl_gpu.state import objects
from sklearn_wsl_gpu.support import Request
from wsl_worker.engines.base import Engine


class CpuEngine(Engine):
    """Runs scikit-learn's own methods."""

    name = "cpu"

    @classmethod
    def unavailable(cls, device: str) -> str | None:
        return None if device in ("auto", "cpu") else f"it computes on the CPU, and has no device {device}."

    @property
    def estimators(self) -> frozenset[str]:
        return frozenset(name for name, row in ROWS.items() if row.cls is not None) | third_party.installed()

    def support(self, request: Request) -> Reason | None:
        return support.reason(self.name, request)

    def load(self, row: Row, attributes: Mapping[str, Any]) -> Any:
        return objects.build_estimator(objects.estimator_class(row.name), attributes)

    def call(self, model: Any, method: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        return getattr(model, method)(*arguments, **keywords)

    def state(self, model: Any) -> Mapping[str, Any]:
        return objects.carried_attributes(model)
