"""Reports for people: a text table, and an HTML one for notebooks, of the data of `Report.to_dict`."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

_LEFT = (0, 2)


def as_text(report: Mapping[str, Any]) -> str:
    """Return a table with a line for each kind of call, and the reasons below it."""
    if not report["calls"]:
        return "No calls yet."
    head, *rows = _cells(report)
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [_line(head, widths), "-" * (sum(widths) + 2 * (len(widths) - 1))]
    lines += [_line(row, widths) for row in rows]
    return "\n".join(lines + [f"[{code}] {words}" for code, words in _reasons(report)])


def as_html(report: Mapping[str, Any]) -> str:
    """Return the same as HTML."""
    summary = f"sklearn_wsl_gpu: {report['offloaded']} calls offloaded, {report['local']} local"
    if not report["calls"]:
        return f"<p>{summary}</p>"
    head, *rows = _cells(report)
    reasons = "".join(
        f"<li><code>{html.escape(code)}</code> {html.escape(words)}</li>" for code, words in _reasons(report)
    )
    return (
        f"<table><caption>{summary}</caption><thead>{_html_row(head, 'th')}</thead>"
        f"<tbody>{''.join(_html_row(row, 'td') for row in rows)}</tbody></table>"
        + (f"<ul>{reasons}</ul>" if reasons else "")
    )


def size(nbytes: float) -> str:
    """Return a number of bytes with a unit."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= scale:
            return f"{nbytes / scale:.1f} {unit}"
    return f"{nbytes:.0f} B"


def _cells(report: Mapping[str, Any]) -> list[list[str]]:
    phases = list(report["calls"][0]["seconds"])
    found = [["call", "n", "where", *[f"{phase} s" for phase in phases], "sent", "received"]]
    for call in report["calls"]:
        place = f"{call['where']} ({call['engine']})"
        if call["reason"] is not None:
            place += f" [{call['reason']['code']}]"
        seconds = [f"{call['seconds'][phase]:.4f}" for phase in phases]
        name = f"{call['estimator']}.{call['method']}"
        found.append([name, str(call["n"]), place, *seconds, size(call["bytes_sent"]), size(call["bytes_received"])])
    return found


def _reasons(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    reasons = [call["reason"] for call in report["calls"] if call["reason"] is not None]
    carriers = [(f"carrier {name}", words) for name, told in report["carriers"].items() for words in told]
    return [*dict.fromkeys((reason["code"], reason["words"]) for reason in reasons), *carriers]


def _line(cells: list[str], widths: list[int]) -> str:
    parts = [
        cell.ljust(width) if column in _LEFT else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(parts).rstrip()


def _html_row(cells: list[str], tag: str) -> str:
    parts = [
        f'<{tag} style="text-align: {"left" if column in _LEFT else "right"}">{html.escape(cell)}</{tag}>'
        for column, cell in enumerate(cells)
    ]
    return f"<tr>{''.join(parts)}</tr>"
