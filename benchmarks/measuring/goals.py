"""The goals of the transport, each with what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from measuring.rounds import Row, in_words

_OWN = "sklearn_wsl_gpu"
_LARGE, _MEDIUM = 512 * 2**20, 16 * 2**20


def judge(rows: Sequence[Row], extras: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a dict for each goal: `what`, `goal` and `measured` in words and as numbers, and `met`.

    `measured` and `met` are None where the run has not measured it.
    """

    def ratio(mode: str, name: str = _OWN) -> float | None:
        found = _row(rows, name, mode, _LARGE)
        return None if found is None else found.ratio

    def extra(name: str, *path: str) -> Any:
        found = extras.get(name)
        for key in path:
            found = None if found is None else found[key]
        return found

    local, pooled = ratio("out, kept", "local"), ratio("pool, out")
    large = [one for one in extras.get("memory", ()) if one["bytes"] == _LARGE]
    memory = {(one["contestant"], one["mode"]): one["above idle"] for one in large}
    most, least = _at_most, _at_least
    goals = [
        most("512 MB in, touched, small reply; x memcpy", 1.2, ratio("touch")),
        most("512 MB in the pool, touched, small reply; x memcpy", 0.15, ratio("pool, touch")),
        most("512 MB in, one-pass operation, 512 MB out; x memcpy", 2.75, ratio("out")),
        most(
            "512 MB in the pool, one-pass operation, 512 MB out; x the local operation",
            1.4,
            None if local is None or pooled is None else pooled / local,
        ),
        most("first call after start, prefault done; x memcpy", 4.0, extra("first call", "x memcpy", "median")),
        most("peak memory beyond the input, above idle; arrays", 2.1, memory.get((_OWN, "out"))),
        most("peak memory beyond the input in the pool, above idle; arrays", 1.1, memory.get((_OWN, "pool, out"))),
        most("predict on 100 rows, the whole call; x bare echo", 2.6, extra("tiny", "x echo", "median")),
        least("four clients, 16 MB; share of local memcpy + operation", 0.95, extra("four clients", "share", "median")),
        least(
            "1,000 calls of mixed sizes; last hundred / first hundred",
            0.95,
            extra("long run", "last / first", "median"),
        ),
    ]
    for nbytes in sorted({row.nbytes for row in rows if row.nbytes >= _MEDIUM}):
        for mode in ("touch", "out"):
            goals.append(_fastest(rows, nbytes, mode))
    return goals


def _fastest(rows: Sequence[Row], nbytes: int, mode: str) -> dict[str, Any]:
    own = _row(rows, _OWN, mode, nbytes)
    peers = [
        row
        for row in rows
        if (row.nbytes, row.mode, row.layout) == (nbytes, mode, "C") and row.contestant not in (_OWN, "local")
    ]
    peers = [row for row in peers if row.seconds]
    best = min(peers, key=lambda row: row.ratio, default=None)
    against = f" ({best.contestant})" if best else ""
    measured = None if own is None or best is None else own.ratio / best.ratio
    return _at_most(f"faster than every peer, {in_words(nbytes)}, {mode}; x the fastest{against}", 1.0, measured)


def _row(rows: Sequence[Row], name: str, mode: str, nbytes: int) -> Row | None:
    wanted = (name, mode, nbytes, "C")
    found = [row for row in rows if (row.contestant, row.mode, row.nbytes, row.layout) == wanted and row.seconds]
    return found[0] if found else None


def _at_most(what: str, goal: float, measured: float | None) -> dict[str, Any]:
    return _judged(what, f"<= {goal:g}", measured, lambda found: found <= goal)


def _at_least(what: str, goal: float, measured: float | None) -> dict[str, Any]:
    return _judged(what, f">= {goal:g}", measured, lambda found: found >= goal)


def _judged(what: str, goal: str, measured: float | None, test: Callable[[float], bool]) -> dict[str, Any]:
    return {"what": what, "goal": goal, "measured": measured, "met": None if measured is None else test(measured)}
