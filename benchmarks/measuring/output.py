"""What was measured: as tables for people, and as a plot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from contestants import CONTESTANTS, MEASURES

from measuring.rounds import ECHO_BYTES, Row, in_words

_OWN = "sklearn_wsl_gpu"
_WORDS = {name: entry.words for name, entry in (CONTESTANTS | MEASURES).items()}


def _label(row: Row) -> str:
    words = _WORDS[row.contestant]
    extra = row.mode.replace("touch", "").replace("out", "").strip(", ")
    extra = {"pool": "array in the pool", "kept": "into a kept array"}.get(extra, extra)
    return f"{words}, {extra}" if extra else words


def of_kind(rows: Sequence[Row], kind: str) -> list[Row]:
    """Return the C-ordered rows of "touch" or of "out", in the pool or not."""
    return [row for row in rows if row.mode.replace(", kept", "").endswith(kind) and row.layout == "C"]


def tables(rows: Sequence[Row]) -> str:
    """Return all tables of the rounds."""
    parts = []
    for kind, words in (("touch", "array in, touched, small reply"), ("out", "array in, 2x computed, same size out")):
        own = of_kind(rows, kind)
        parts.append(_table(f"{words}: x memcpy (x this project)", own, lambda row: row.ratio, {r.nbytes for r in own}))
        small = {row.nbytes for row in own if row.nbytes <= ECHO_BYTES and row.echo}
        if small:
            title = f"{words}: x bare echo (x this project)"
            parts.append(_table(title, [row for row in own if row.echo], lambda row: row.echo_ratio, small))
    others = [row for row in rows if row.layout != "C"]
    if others:
        parts.append(_layouts(rows, {row.nbytes for row in others}))
    return "\n\n".join(parts)


def _table(title: str, rows: Sequence[Row], value: Callable[[Row], float], sizes: set[int]) -> str:
    order, found = list(dict.fromkeys(_label(row) for row in rows)), {(_label(r), r.nbytes): r for r in rows}
    own = {row.nbytes: value(row) for row in rows if row.contestant == _OWN and "pool" not in row.mode and row.seconds}
    lines = []
    for label in order:
        cells = [_cell(found.get((label, nbytes)), value, own.get(nbytes)) for nbytes in sorted(sizes)]
        lines.append([label, *cells])
    return _aligned(title, ["", *(in_words(nbytes) for nbytes in sorted(sizes))], lines)


def _cell(row: Row | None, value: Callable[[Row], float], own: float | None) -> str:
    if row is None:
        return "-"
    if not row.seconds:
        return "> limit" if row.state.startswith(">") else "failed"
    found = value(row)
    by_own = "" if own is None or row.contestant == _OWN else f" ({_short(found / own)})"
    return f"{_short(found)}{by_own}" + ("" if row.state == "ok" else "*")


def _layouts(rows: Sequence[Row], sizes: set[int]) -> str:
    names = list(dict.fromkeys(row.contestant for row in rows if row.layout != "C"))
    lines = []
    for nbytes in sorted(sizes):
        for name in names:
            for mode in dict.fromkeys(r.mode for r in rows if r.contestant == name and r.layout != "C"):
                found = {r.layout: r for r in rows if (r.contestant, r.mode, r.nbytes) == (name, mode, nbytes)}
                cells = [_cell(found.get(layout), lambda row: row.ratio, None) for layout in ("C", "F", "strided")]
                lines.append([f"{in_words(nbytes)}, {_WORDS[name]}, {mode}", *cells])
    return _aligned("layouts: x memcpy of the same bytes", ["", "C", "Fortran", "X[:, ::2]"], lines)


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _aligned(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[at]) for line in [head, *lines]) for at in range(len(head))]
    text = [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, *lines]
    ]
    return "\n".join([title, "-" * max(len(title), sum(widths) + 2 * len(widths) - 2), *text])


def goals_table(goals: Sequence[dict[str, Any]]) -> str:
    """Return the goals as a table."""
    verdict = {True: "met", False: "NOT MET", None: "not measured"}
    lines = [
        [one["what"], one["goal"], "" if one["measured"] is None else _short(one["measured"]), verdict[one["met"]]]
        for one in goals
    ]
    return _aligned("goals", ["", "goal", "measured", ""], lines)


def phases_table(rows: Sequence[Row]) -> str:
    """Return where this project's calls spend their time, by size."""
    lines, head = [], ["", "gather", "send", "compute", "receive", "adopt"]
    for row in rows:
        found = row.to_dict().get("phases")
        if found:
            label = f"{in_words(row.nbytes)}, {row.layout}, {row.mode}"
            lines.append([label, *(f"{found[name] * 1e3:.2f}" for name in head[1:])])
    return _aligned("this project, milliseconds by phase (medians)", head, lines)


def profiles_table(profiles: Sequence[dict[str, Any]]) -> str:
    """Return what calls cost the processors, by process and kind of thread."""
    parts = sorted({part for one in profiles for part, seconds in one["processors"].items() if seconds >= 1e-6})
    head = ["", *parts, "all", "the call", "in the engine"]
    lines = []
    for one in profiles:
        cells = [one["processors"].get(part, 0.0) for part in parts]
        cells += [sum(one["processors"].values()), one["seconds"], one["engine"] or 0.0]
        lines.append(
            [f"{one['contestant']}, {one['mode']}, {in_words(one['bytes'])}", *(f"{c * 1e6:.0f}" for c in cells)]
        )
    return _aligned("microseconds of the processors' time a call, and of the call", head, lines)


def plot(rows: Sequence[Row], path: str) -> None:
    """Draw the ratio to a memcpy by size, log-log, one panel each for "touch" and "out"."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(12, 6), sharey=True, layout="constrained")
    titles = {"touch": "array in, touched, small reply", "out": "array in, computed, same size out"}
    colors = pyplot.get_cmap("tab20").colors
    color_of = {name: colors[at % 20] for at, name in enumerate(CONTESTANTS)}
    for panel, (kind, title) in zip(panels, titles.items(), strict=True):
        labels: list[tuple[float, str, Any]] = []
        shown = [row for row in of_kind(rows, kind) if row.seconds and "kept" not in row.mode]
        for key in dict.fromkeys((row.contestant, row.mode) for row in shown):
            line = sorted((r.nbytes, r.ratio) for r in shown if (r.contestant, r.mode) == key)
            own = key[0] == _OWN
            color = "black" if own else "0.6" if key[0] == "local" else color_of[key[0]]
            style = {"linewidth": 3.0 if own else 1.3, "linestyle": "--" if "pool" in key[1] else "-"}
            panel.plot(*zip(*line, strict=True), color=color, zorder=3 if own else 2, marker="o", markersize=3, **style)
            label = next(_label(row) for row in shown if (row.contestant, row.mode) == key)
            labels.append((line[-1][0], line[-1][1], label, color, own))
        panel.axhline(1, color="0.8", linewidth=1, zorder=1)
        panel.set(xscale="log", yscale="log", title=title, xlabel="size of the array")
        sizes = sorted({row.nbytes for row in shown})
        panel.set_xticks(sizes, [in_words(nbytes) for nbytes in sizes], rotation=45, ha="right")
        panel.minorticks_off()
        panel.grid(color="0.92", zorder=0)
        _write_labels(panel, labels, max(sizes, default=1))
    panels[0].set_ylabel("time / time of one memcpy")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _write_labels(panel: Any, labels: Sequence[Any], right: int) -> None:
    import math

    # From the bottom up, each where its line ends or as far above as its neighbour needs.
    low, high = (math.log10(limit) for limit in panel.get_ylim())
    step, at = (high - low) / 30, -math.inf
    panel.set_xlim(right=right * 400)
    for x, y, words, color, own in sorted(labels, key=lambda one: one[1]):
        at = max(math.log10(y), at + step)
        panel.annotate(
            words, (x, y), (right * 1.7, 10**at), va="center", fontsize=8.5, color=color,
            fontweight="bold" if own else "normal", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip
