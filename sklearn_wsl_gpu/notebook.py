"""The IPython extension: ``%load_ext sklearn_wsl_gpu``, and ``%%offload`` for one cell."""

from __future__ import annotations

import ast
from typing import Any

from sklearn_wsl_gpu.context import offload
from sklearn_wsl_gpu.enabling import disable, enable
from sklearn_wsl_gpu.errors import ConfigurationError


def load(shell: Any) -> None:
    """Offload everything from now on, and add ``%%offload``."""
    enable()
    shell.register_magic_function(lambda line, cell: run_cell(shell, line, cell), "cell", "offload")


def unload(shell: Any) -> None:
    """Undo `load`."""
    shell.magics_manager.magics["cell"].pop("offload", None)
    disable()


def run_cell(shell: Any, line: str, cell: str) -> None:
    """Run a cell offloaded, and show its report.

    Parameters
    ----------
    shell : InteractiveShell
    line : str
        Settings, written as the arguments of `offload` are: ``exclude=["LabelEncoder"], verbose=1``.
    cell : str
    """
    from IPython.display import display

    with offload(**_settings(line)) as session:
        result = shell.run_cell(cell)
    display(session.report())
    error = result.error_before_exec or result.error_in_exec
    if error is not None:
        # Raised, it stops what would run after this cell; it was shown already, and is not shown twice.
        def shown() -> list[str]:
            del error._render_traceback_
            return []

        error._render_traceback_ = shown
        raise error


def _literal(name: str, value: ast.expr) -> Any:
    try:
        return ast.literal_eval(value)
    except ValueError:
        raise ValueError(f"{name} has to be written out; variables are not looked up") from None


def _settings(line: str) -> dict[str, Any]:
    try:
        call = ast.parse(f"offload({line}\n)", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("only name=value")
        return {str(keyword.arg): _literal(str(keyword.arg), keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, AssertionError) as error:
        raise ConfigurationError(
            f"%%offload {line}: write settings as the arguments of offload(), such as "
            f'exclude=["KMeans"], verbose=1 ({error}).'
        ) from None
