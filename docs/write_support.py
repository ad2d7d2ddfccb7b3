"""Write ``support.md``, what each engine computes, from the tables that decide it: ``python docs/write_support.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sklearn_wsl_gpu.estimators import GRAPHS, ROWS, find, third_party
from sklearn_wsl_gpu.estimators.functions import FUNCTIONS
from sklearn_wsl_gpu.support import TABLES, Entry

PAGE = Path(__file__).with_name("support.md")

_HEAD = """\
# What each engine computes

This page is written by `docs/write_support.py` from the tables in `sklearn_wsl_gpu/support/`, by which a client decides
before it sends anything. What no engine of a worker takes is done by local scikit-learn, and the report says why.

The engine `cpu` is plain scikit-learn and takes every estimator below with every parameter. A worker on a GPU has
several engines, and each call goes to the first of them that takes it.
"""


def _row(name: str, entry: Entry) -> str:
    row = find(name)
    assert row is not None
    methods = " ".join(method for method in row.method_names if method not in entry.without.split())
    special = ["sparse X"] if entry.sparse else []
    special += [f"text as {argument}" for argument in entry.text.split()]
    limits = "; ".join(limit.words for limit in (*entry.limits, *entry.call_limits))
    releases = ", ".join(release.words for release in entry.releases)
    return f"| {name} | {methods} | {', '.join(special)} | {limits} | {entry.lost} | {releases} |".replace("  ", " ")


def page() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *_lines()]) + "\n"


def _lines() -> Iterator[str]:
    for engine, table in TABLES.items():
        yield f"## {engine}\n"
        dtypes = {entry.dtypes for entry in table.values()}
        yield from (f"Arrays of {', '.join(sorted(one))}.\n" for one in dtypes if one and len(dtypes) == 1)
        yield "| estimator | methods | takes also | only with | lost by a fit | of the worker |"
        yield "|---|---|---|---|---|---|"
        yield from (_row(name, table[name]) for name in sorted(table))
        yield ""
    yield "## Metrics\n"
    yield "By `array_api`, from arrays of numbers.\n"
    limited = {
        name: "; ".join(f"{key} {', '.join(map(repr, values))}" for key, values in function.only.items())
        for name, function in FUNCTIONS.items()
    }
    yield ", ".join(f"{name} ({words})" if words else name for name, words in sorted(limited.items())) + ".\n"
    yield "## Estimators made of others\n"
    yield f"{', '.join(sorted(GRAPHS))}: as one call, if each of their parts is taken by an engine of the worker."
    yield "So are the fits of searches and cross-validations.\n"
    covered = {name for table in TABLES.values() for name in table}
    left = sorted((ROWS.keys() | third_party.names()) - covered)
    yield "## No GPU engine\n"
    yield (", ".join(left) or "None: each estimator that may be offloaded is taken by one of the two") + "."


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
