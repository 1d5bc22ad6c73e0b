"""`demo`: shows what the library is for."""

from __future__ import annotations

import argparse
import sys

from ._commands import Call, Command
from ._trouble import DONE, FAILED

__all__ = ["COMMANDS"]

_EPILOG = """\
examples:
  durable_sqlite demo
  durable_sqlite demo --keep shown      then: durable_sqlite timeline @ --db shown/demo.db
"""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Start a run in a second process, kill that with -9 in the middle of a step, and finish the run in a third."
    )
    parser.epilog = _EPILOG
    parser.add_argument("--keep", metavar="FOLDER", help="write the journal and the effects log there, and keep them")


def _run(call: Call) -> int:
    from .demo import run_demo  # noqa: PLC0415 - `demo --help` answers without importing the engine

    shown = run_demo(call.options.keep, out=sys.stderr if call.out.json else sys.stdout)
    if call.out.json:
        checks = [{"text": text, "held": held} for text, held in shown.checks]
        call.out.document({"processes": list(shown.processes), "result": shown.result, "checks": checks})
    return DONE if shown.held else FAILED


COMMANDS = {"demo": Command(_arguments, _run)}
