"""What only Windows runs is little, and all of it is listed for a person who has one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "windows.md"
PACKAGES = ("sklearn_wsl_gpu", "wsl_worker")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
#: What only Windows is without.
LACKING = ("_HAS_DIRECTORY_DESCRIPTORS",)
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


def _is_compared(test: ast.expr, how: type[ast.cmpop]) -> bool:
    """Tell whether a condition compares something with a name of Windows."""
    if not isinstance(test, ast.Compare) or not isinstance(test.ops[0], how):
        return False
    return isinstance(test.comparators[0], ast.Constant) and test.comparators[0].value in ("win32", "nt")


def _is_of_windows(test: ast.expr) -> bool:
    """Tell whether a condition can only hold on Windows."""
    match test:
        case ast.BoolOp(op=ast.And()):
            return any(_is_of_windows(value) for value in test.values)
        case ast.BoolOp():
            return all(_is_of_windows(value) for value in test.values)
        case ast.UnaryOp(op=ast.Not()):
            return _is_of_others(test.operand)
    return _is_compared(test, ast.Eq)


def _is_of_others(test: ast.expr) -> bool:
    """Tell whether a condition holds on all systems but Windows."""
    match test:
        case ast.BoolOp(op=ast.Or()):
            return any(_is_of_others(value) for value in test.values)
        case ast.BoolOp():
            return all(_is_of_others(value) for value in test.values)
        case ast.UnaryOp(op=ast.Not()):
            return _is_of_windows(test.operand)
        case ast.Name():
            return test.id in LACKING
    return _is_compared(test, ast.NotEq)


def _branches(tree: ast.AST, function: str = "") -> Iterator[tuple[str, int, int]]:
    """Yield the function, and the first and last line, of each part that only Windows runs."""
    yield from ((function, first, last) for first, last in _left_over(tree))
    for node in ast.iter_child_nodes(tree):
        name = node.name if isinstance(node, _FUNCTIONS) else function
        others: Sequence[ast.AST] = [node]
        if isinstance(node, (ast.If, ast.IfExp)) and (_is_of_windows(node.test) or _is_of_others(node.test)):
            of_windows, others = _nodes(node.body), _nodes(node.orelse)
            if _is_of_others(node.test):
                of_windows, others = others, of_windows
            if of_windows:
                yield name, of_windows[0].lineno, of_windows[-1].end_lineno or 0
        elif isinstance(node, ast.expr) and _is_compared(node, ast.Eq):
            yield name, node.lineno, node.end_lineno or 0
        for part in others:
            yield from _branches(part, name)


def _nodes(part: ast.expr | list[ast.stmt]) -> Sequence[ast.expr | ast.stmt]:
    return part if isinstance(part, list) else [part]


def _left_over(tree: ast.AST) -> Iterator[tuple[int, int]]:
    """Yield the first and last line of what follows where all other systems have returned."""
    for name in ("body", "orelse", "finalbody"):
        found = getattr(tree, name, None)
        block: list[ast.stmt] = found if isinstance(found, list) else []
        for node, after in pairwise(block):
            if not isinstance(node, ast.If) or node.orelse or not _is_of_others(node.test):
                continue
            if isinstance(node.body[-1], (ast.Return, ast.Raise)):
                yield after.lineno, block[-1].end_lineno or 0


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


@pytest.mark.parametrize(
    "text",
    [
        "if os.name == 'nt': windows()",
        "if sys.platform == 'win32' and b: windows()",
        "if sys.platform == 'win32' or not _HAS_DIRECTORY_DESCRIPTORS: windows()",
        "if b: a()\n elif os.name == 'nt': windows()",
        "if b: a()\n else:\n  if os.name == 'nt': windows()",
        "if os.name != 'nt': a()\n else: windows()",
        "if os.name != 'nt': return\n windows()\n windows()",
        "if _HAS_DIRECTORY_DESCRIPTORS: a()\n else: windows()",
        "if not (os.name != 'nt' or b): windows()",
        "return windows() if os.name == 'nt' else b",
        "return b if os.name != 'nt' else windows()",
        "return [windows for windows in b if windows or os.name == 'nt']",
        "windows(sys.platform == 'win32')",
    ],
)
def test_each_form_of_what_only_windows_runs_is_seen(text: str) -> None:
    source = f"def do():\n {text}"
    found = [*_branches(ast.parse(source))]

    assert {name for name, _, _ in found} == {"do"}
    assert {line for _, first, last in found for line in range(first, last + 1)} == {
        number for number, line in enumerate(source.splitlines(), 1) if "windows" in line
    }


@pytest.mark.parametrize(
    "text",
    ["if os.name != 'nt': a", "if os.name != 'nt' and b: a\n else: a", "if sys.platform == 'linux': a\n else: b"],
)
def test_what_others_run_is_not_taken_for_it(text: str) -> None:
    assert list(_branches(ast.parse(f"def do():\n {text}"))) == []


def test_what_only_windows_runs_is_listed_and_nothing_else() -> None:
    assert _found().keys() == _listed()


def test_what_only_windows_runs_is_little() -> None:
    found = _found()

    assert sum(found.values()) < MOST, found
