"""The command line: `durable_sqlite`, `durable-sqlite`, `python -m durable_sqlite`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

__all__ = ["main"]

_HELP = """\
Durable coroutines in one SQLite file.

This version has one command, which shows what the library does:

  durable_sqlite demo
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. 0 done, 1 it did not hold, 2 wrong use, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="durable_sqlite", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        help="show a run killed with -9 in the middle of a step and finished by another process",
        description="Start a run in a second process, kill that with -9 in the middle of a step, and finish the run in a third.",
    )
    demo.add_argument("--keep", metavar="FOLDER", help="write the journal and the effects log there, and keep them")
    chosen = parser.parse_args(arguments)
    from .demo import run_demo  # noqa: PLC0415 - `--help` answers at once, without importing the engine

    try:
        return run_demo(chosen.keep, out=sys.stdout)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # whoever read us has gone; the interpreter would complain about it at exit
        return 0
