"""Runs a campaign: `python -m tests.campaigns bodies --cases 10000`; with `--record`, what it comes to is kept for the report.

`mutants` plays every rule that is broken on purpose until it is noticed, and `report` writes `docs/reliability.md` from the
records.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import mutants, report
from .record import recorded
from .registry import Result, campaigns

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign that the arguments name; 0 if it found what it was to find: nothing, or the mutant."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns", description="Random programs by the thousand.")
    commands = parser.add_subparsers(required=True, dest="command")
    for campaign in campaigns():
        campaign.register(commands)
    mutants.register(commands)
    for command in commands.choices.values():
        command.add_argument("--record", action="store_true", help="keep what it comes to, for the report")
    report.register(commands)
    options = parser.parse_args(given)
    if getattr(options, "record", False):
        return recorded(options.command, given, options.run, options)
    came = options.run(options)
    return came.code if isinstance(came, Result) else int(came)


if __name__ == "__main__":
    sys.exit(main())
