"""Rows for people, and for programs; and names of users left out where they are asked to be."""

from __future__ import annotations

import getpass
import json
import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sklearn_wsl_gpu.doctor.checks import FAILED, RESULTS, SKIPPED, Row

_LABELS = {FAILED: "FAILED", "information": "info"}
_HOMES = re.compile(r"((?:/home|[\\/]Users)[\\/])[^\\/:;,'\"\s]+", re.IGNORECASE)
_MASK = "<user>"


def own_names() -> list[str]:
    """Return the names of this user that may be in what is printed."""
    found = [os.path.basename(os.path.expanduser("~").rstrip("\\/"))]
    try:
        found.append(getpass.getuser())
    except (OSError, KeyError, ImportError):  # a user without a name
        return found
    return found


def mask(text: str, names: Iterable[str]) -> str:
    """Return a text without the names of users, wherever they stand, and without those of home directories.

    Parameters
    ----------
    text : str
    names : iterable of str
        Left out as whole words; the name of the administrator is nobody's.
    """
    for name in sorted({name for name in names if name and name != "root"}, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", _MASK, text, flags=re.IGNORECASE)
    return _HOMES.sub(rf"\1{_MASK}", text)


def masked(row: Row, names: Sequence[str]) -> Row:
    """Return a row without the names of users."""
    return row._replace(evidence=mask(row.evidence, names), remedy=mask(row.remedy, names))


def _plain(text: str) -> str:
    """Return a text without what would steer a terminal: programs were asked, and print what they like."""
    return "".join(character if character.isprintable() else " " for character in text)


def as_lines(row: Row, width: int) -> str:
    """Return a row as it is shown to people, on lines of at most so many characters where words allow it."""
    head = f"{_LABELS.get(row.result, row.result):8} {row.name:17} {row.side:8}"
    indent = " " * len(head)
    wrapper = textwrap.TextWrapper(max(width, len(head) + 40), break_long_words=False, break_on_hyphens=False)
    wrapper.initial_indent, wrapper.subsequent_indent = head, indent
    lines = wrapper.wrap(_plain(row.evidence)) or [head.rstrip()]
    if row.remedy:
        wrapper.initial_indent, wrapper.subsequent_indent = f"{indent}> ", f"{indent}  "
        lines += wrapper.wrap(_plain(row.remedy))
    return "\n".join(lines)


def summary(rows: Sequence[Row]) -> str:
    """Return what was skipped, on one line, and how many rows there are of each result, in words."""
    left_out = ", ".join(row.name for row in rows if row.result == SKIPPED)
    counts = Counter(row.result for row in rows)
    seconds = sum(row.seconds for row in rows)
    words = {"ok": "ok", "warning": "with a warning", "failed": "failed", "information": "for information"}
    told = [f"{counts[name]} {words.get(name, name)}" for name in RESULTS if counts[name]]
    counted = f"{len(rows)} checks in {seconds:.1f} s: {', '.join(told)}."
    return f"Skipped, for what they depend on: {left_out}.\n{counted}" if left_out else counted


def as_json(rows: Sequence[Row], versions: dict[str, str]) -> str:
    """Return all as JSON: ``versions``, how many ``failed``, and the ``checks``, each with the fields of a `Row`."""
    content: dict[str, Any] = {
        "versions": versions,
        "failed": sum(row.result == FAILED for row in rows),
        "checks": [row._asdict() for row in rows],
    }
    return json.dumps(content, indent=2)
