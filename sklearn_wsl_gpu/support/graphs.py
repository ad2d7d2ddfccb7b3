"""What an engine is asked about the parts of an estimator that is made of others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sklearn_wsl_gpu.estimators import METHODS, Graph, row_of
from sklearn_wsl_gpu.support.request import Request, request_of


def parts(request: Request) -> Iterator[tuple[Any, Request | None]]:
    """Yield every part that computes, and what is asked about it; None about one that is none of the table.

    What is known of X holds for the parts that are given X itself.
    """
    graph = request.row
    assert isinstance(graph, Graph)
    found = graph.parts_of(request.parameters)
    if found is None:
        yield request.parameters.get(graph.parts), None
        return
    without_data = {name: fact for name, fact in request.facts.items() if name != "X"}
    for number, part in enumerate(found):
        row = row_of(type(part))
        if row is None:
            yield part, None
            continue
        is_given_data = graph.name == "FeatureUnion" or (graph.name == "Pipeline" and number == 0)
        facts = request.facts if is_given_data else without_data
        if row.targetless:
            facts = {name: fact for name, fact in facts.items() if name != "y"}
        yield part, request_of(row, _method(request, part is found[-1]), vars(part), facts)


def _method(request: Request, is_last: bool) -> str:
    if METHODS[request.method].fits:
        return "fit"
    return request.method if is_last or request.method == "inverse_transform" else "transform"
