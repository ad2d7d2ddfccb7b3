"""What only Windows runs is little, and all of it is listed for a person who has one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "windows.md"
PACKAGES = ("sklearn_wsl_gpu", "wsl_worker")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
MOST = 400


def _modules() -> Iterator[tuple[str, ast.Module, list[str]]]:
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*.py")):
            text = path.read_text("utf-8")
            yield path.relative_to(root.parent).as_posix(), ast.parse(text), text.splitlines()


def _is_of_windows(test: ast.expr) -> bool:
    """Tell whether a condition can only hold on Windows."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return any(_is_of_windows(value) for value in test.values)
    if not isinstance(test, ast.Compare) or not isinstance(test.ops[0], ast.Eq):
        return False
    return isinstance(test.comparators[0], ast.Constant) and test.comparators[0].value in ("win32", "nt")


def _branches(tree: ast.AST, function: str = "") -> Iterator[tuple[str, int, int]]:
    """Yield the function, and the first and last line, of each part that only Windows runs."""
    for node in ast.iter_child_nodes(tree):
        name = node.name if isinstance(node, _FUNCTIONS) else function
        if isinstance(node, ast.If) and _is_of_windows(node.test):
            yield name, node.body[0].lineno, node.body[-1].end_lineno or 0
        elif isinstance(node, ast.IfExp) and _is_of_windows(node.test):
            yield name, node.body.lineno, node.body.end_lineno or 0
        else:
            yield from _branches(node, name)


def _listed() -> set[str]:
    """Return the functions of the page's table, as ``path.py: function``."""
    return set(re.findall(r"^\| `([^`]+\.py: [^`]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE))


def _found() -> dict[str, int]:
    """Return the lines of code of each function that only Windows runs, or runs in parts."""
    listed = _listed()
    found: dict[str, int] = {}
    for path, tree, lines in _modules():
        parts = list(_branches(tree))
        for node in ast.walk(tree):
            whole = path.endswith("/windows.py") or (isinstance(node, _FUNCTIONS) and f"{path}: {node.name}" in listed)
            if isinstance(node, _FUNCTIONS) and whole and not any(name == node.name for name, _, _ in parts):
                parts.append((node.name, node.lineno, node.end_lineno or 0))
        for name, first, last in parts:
            if name:
                code = [line for line in lines[first - 1 : last] if line.strip() and not line.strip().startswith("#")]
                found[f"{path}: {name}"] = found.get(f"{path}: {name}", 0) + len(code)
    return found


@pytest.fixture(autouse=True)
def page() -> None:
    if not PAGE.exists():
        pytest.skip("the documentation is not here")


def test_what_only_windows_runs_is_listed_and_nothing_else() -> None:
    assert _found().keys() == _listed()


def test_what_only_windows_runs_is_little() -> None:
    found = _found()

    assert sum(found.values()) < MOST, found
