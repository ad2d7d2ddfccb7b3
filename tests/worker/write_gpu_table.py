"""Write the table of docs/gpu.md: ``python tests/worker/write_gpu_table.py``."""

from __future__ import annotations

from pathlib import Path

from sklearn_wsl_gpu.support import TABLES, Entry

PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def table() -> str:
    """Return what the engine cuml computes, as a table in Markdown."""
    lines = ["| estimator | on the GPU with | methods done here | not left by a fit |", "|---|---|---|---|"]
    for name, entry in sorted(TABLES["cuml"].items(), key=lambda item: item[0].lower()):
        without = " ".join(f"`{method}`" for method in entry.without.split())
        lost = " ".join(f"`{attribute}`" for attribute in entry.lost.split())
        lines.append(f"| `{name}` | {_conditions(entry)} | {without} | {lost} |")
    return "\n".join([*lines, ""])


def _conditions(entry: Entry) -> str:
    words = [limit.words for limit in (*entry.limits, *entry.call_limits)]
    return "; ".join([*words, "X dense or sparse" if entry.sparse else "X dense"])


def page() -> str:
    """Return the page with its table as it should be."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page())
