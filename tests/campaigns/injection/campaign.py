"""Plays faults at writes and syncs, and counts what came of them."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from time import monotonic

from tests.campaigns.registry import Result

from .trials import calls_of, faults, may_trace, play

__all__ = ["play_all", "register"]


def play_all(folder: Path, *, seed: int = 0, each: int | None = None, until: float | None = None) -> Result:
    """Play all faults, or those at so many calls of each name, which the seed decides; or until that time."""
    calls = calls_of(folder / "undisturbed")
    counts, findings = Counter[str](), list[str]()
    for number, fault in enumerate(faults(calls, each, Random(seed))):
        if until is not None and monotonic() >= until:
            break
        there = folder / str(number)
        trial = play(there, fault)
        counts["faults"] += 1
        counts[f"{fault.call}: {fault.what}{' for ever' if fault.for_ever else ''}"] += 1
        counts[trial.outcome] += 1
        findings += [f"{fault}: {problem}" for problem in trial.problems]
        shutil.rmtree(there)
    return Result(counts=counts, findings=findings, seeds=f"seed {seed}, {each or 'all'} calls of each name")


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this campaign to the command line."""
    parser = commands.add_parser("injection", help="errors and kills at each write and sync, made by strace")
    parser.add_argument(
        "--each", type=int, help="at how many calls of each name, evenly spread; without it, at all of them"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides which ones")
    parser.add_argument("--minutes", type=float, help="for how long, at the most")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> Result | int:
    if not may_trace():
        sys.stdout.write("left out: strace is needed, and leave to trace\n")
        return 0
    until = None if options.minutes is None else monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        result = play_all(Path(folder), seed=options.seed, each=options.each, until=until)
    sys.stdout.write(", ".join(f"{name} {count:,}" for name, count in sorted(result.counts.items())) + "\n")
    sys.stdout.write(f"{len(result.findings):,} problems\n")
    for finding in result.findings[:20]:
        sys.stdout.write(f"  {finding}\n")
    return result
