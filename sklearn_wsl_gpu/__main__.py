"""``python -m sklearn_wsl_gpu script.py``: run a program offloaded."""

from __future__ import annotations

import argparse
import sys

from sklearn_wsl_gpu import cli


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sklearn_wsl_gpu", usage=cli.RUN_USAGE, description=__doc__)
    cli.add_run(parser)
    return cli.act(parser, None)


if __name__ == "__main__":
    sys.exit(main())
