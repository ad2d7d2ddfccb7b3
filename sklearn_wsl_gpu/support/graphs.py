"""What an engine is asked about the parts of an estimator that is made of others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sklearn_wsl_gpu.estimators import METHODS, Graph, Row, row_of
from sklearn_wsl_gpu.support.request import Request, request_of


def parts(request: Request) -> Iterator[tuple[Any, Request | None]]:
    """Yield every part that computes, and what is asked about it; None about one that is none of the table.

    What is known of X holds for the parts that are given X itself.
    """
    graph = request.row
    assert isinstance(graph, Graph)
    found = graph.parts_of(request.parameters)
    if found is None:
        yield request.parameters.get(graph.parts or graph.rest), None
        return
    without_data = {name: fact for name, fact in request.facts.items() if name != "X"}
    for number, part in enumerate(found):
        row = row_of(type(part))
        if row is None:
            yield part, None
            continue
        is_given_data = graph.name != "ColumnTransformer" and (graph.name != "Pipeline" or number == 0)
        facts = request.facts if is_given_data else without_data
        if row.targetless:
            facts = {name: fact for name, fact in facts.items() if name != "y"}
        for method in _methods(request, row, part is found[-1]):
            yield part, request_of(row, method, vars(part), facts)


def _methods(request: Request, row: Row, is_last: bool) -> list[str]:
    fits = ["fit"] if METHODS[request.method].fits else []
    if request.row.name == "CalibratedClassifierCV":
        # What is calibrated is the first of these that there is.
        return [*fits, *[name for name in ("decision_function", "predict_proba") if name in row.method_names][:1]]
    return fits or [request.method if is_last or request.method == "inverse_transform" else "transform"]
