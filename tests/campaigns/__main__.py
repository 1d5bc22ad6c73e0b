"""Runs a campaign: `python -m tests.campaigns bodies --cases 10000`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .bodies import campaign as bodies
from .damage import campaign as damage
from .fleet import campaign as fleet
from .simulation import campaign as simulation
from .waiting import campaign as waiting
from .walreset import campaign as walreset

__all__ = ["main"]

_CAMPAIGNS = (bodies, waiting, simulation, damage, fleet, walreset)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign that the arguments name; 0 if it found what it was to find: nothing, or the mutant."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns", description="Random programs by the thousand.")
    campaigns = parser.add_subparsers(required=True)
    for campaign in _CAMPAIGNS:
        campaign.register(campaigns)
    options = parser.parse_args(arguments)
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
