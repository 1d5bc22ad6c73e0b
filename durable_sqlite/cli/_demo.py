"""`demo`: shows what the library is for."""

from __future__ import annotations

import argparse
import sys

from ._commands import Call, Command

__all__ = ["COMMANDS"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Start a run in a second process, kill that with -9 in the middle of a step, and finish the run in a third."
    )
    parser.add_argument("--keep", metavar="FOLDER", help="write the journal and the effects log there, and keep them")


def _run(call: Call) -> int:
    from .demo import run_demo  # noqa: PLC0415 - `demo --help` answers without importing the engine

    return run_demo(call.options.keep, out=sys.stdout)


COMMANDS = {"demo": Command(_arguments, _run)}
