"""``python -m sklearn_wsl_gpu script.py``: run a program offloaded; and all that ``sklearn-wsl-gpu`` does."""

from __future__ import annotations

import argparse
import os
import sys

from sklearn_wsl_gpu import cli


def main() -> int:
    """Run from the command line; return the exit code."""
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    # On Windows the directory of the command is often not where the prompt looks for commands.
    if first == "--version" or (first in cli.COMMANDS and not _is_program(first)):
        return cli.main()
    parser = argparse.ArgumentParser(
        prog="python -m sklearn_wsl_gpu",
        description="Run a program offloaded.",
        epilog=f"As sklearn-wsl-gpu it also takes: {', '.join(cli.COMMANDS)}.",
    )
    cli.add_run(parser)
    return cli.act(parser, None)


def _is_program(path: str) -> bool:
    return os.path.isfile(path) or os.path.isfile(os.path.join(path, "__main__.py"))


if __name__ == "__main__":
    sys.exit(main())
