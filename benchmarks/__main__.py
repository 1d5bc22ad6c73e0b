"""`python -m benchmarks [--only NAME] [--rounds N] [--quick] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from benchmarks.measure import FIGURES, figures, once
from benchmarks.scenarios import SCENARIOS

_HELP = (
    "Each figure is a median over rounds in fresh processes, ours and the limit in turn; the ratio is the one to quote."
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=_HELP)
    parser.add_argument("--only", choices=sorted({*SCENARIOS, *FIGURES}), help="one scenario")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="two rounds: to see that it works, not to quote")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all measurements there")
    chosen = parser.parse_args()
    rounds = 2 if chosen.quick else chosen.rounds
    names = [chosen.only] if chosen.only else [*SCENARIOS, *FIGURES]
    measured = _compare([name for name in names if name in SCENARIOS], rounds)
    measured |= _look([name for name in names if name in FIGURES])
    if chosen.json:
        chosen.json.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


def _look(names: list[str]) -> dict[str, dict[str, list[float]]]:
    """Print the figures of scenarios that have no limit beside them, once each."""
    measured: dict[str, dict[str, list[float]]] = {}
    for name in names:
        print(f"{name}: once", end="\r", file=sys.stderr, flush=True)
        found = figures(name)
        measured[name] = {what: [figure] for what, figure in found.items()}
        for what, figure in found.items():
            print(f"{name:<12}{figure:>12,.1f}   {what}")
    return measured


def _compare(names: list[str], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Print the figures of scenarios beside their limits, in turn."""
    measured: dict[str, dict[str, list[float]]] = {}
    if names:
        print(f"{'scenario':<12}{'ours':>12}{'limit':>12}{'of the limit':>15}   work")
    for name in names:
        times: dict[str, list[float]] = {"ours": [], "limit": []}
        for number in range(rounds):
            for side, taken in times.items():
                print(f"{name}: round {number + 1} of {rounds}, {side}   ", end="\r", file=sys.stderr, flush=True)
                taken.append(once(name, side))
        measured[name] = times
        ours, limit = (statistics.median(times[side]) for side in ("ours", "limit"))
        print(f"{name:<12}{ours:>10.3f} s{limit:>10.3f} s{limit / ours:>15.2f}   {SCENARIOS[name].unit}")
    return measured


if __name__ == "__main__":
    main()
