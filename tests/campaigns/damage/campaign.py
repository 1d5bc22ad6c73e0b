"""Plays many damages and counts what came of them."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from tests.campaigns.registry import BrokenRule, Result

from .mutants import MUTANTS
from .trial import Laboratory

__all__ = ["Tally", "broken_rules", "play", "register"]

_MOST = 300  # damages in which a broken checker has to be noticed
_FAST = "/dev/shm" if Path("/dev/shm").is_dir() else None  # memory does, where there is some


class Tally:
    """What a campaign has seen."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """Outcomes."""
        self.broken: list[str] = []
        """What broke the promise, with its seed."""


def play(
    first: int,
    *,
    cases: int = sys.maxsize,
    seconds: float = 1e9,
    mutant: str | None = None,
    drives: bool = True,
    until_broken: bool = False,
) -> Tally:
    """Play damages of these seeds, until there were so many or so long; with `mutant`, of a checker so broken."""
    tally, began = Tally(), time.perf_counter()
    with _quiet(), tempfile.TemporaryDirectory(dir=_FAST) as folder:
        laboratory = Laboratory(Path(folder), without_mark=mutant == "mark", drives=drives)
        with MUTANTS[mutant][1]() if mutant else nullcontext():
            for seed in range(first, first + cases):
                if time.perf_counter() - began > seconds:
                    break
                trial = laboratory.play(seed)
                tally.counts[trial.outcome] += 1
                if trial.outcome == "broken":
                    tally.broken.append(f"seed {seed}: {trial.damage}: {trial.told}")
                    if until_broken:
                        break
    return tally


@contextmanager
def _quiet() -> Generator[None]:
    loggers = [logging.getLogger(name) for name in ("durable_sqlite", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def broken_rules() -> Iterator[BrokenRule]:
    """What this campaign must notice."""
    for name, (what, _) in sorted(MUTANTS.items()):
        yield BrokenRule("damage", name, what, "damages", _MOST, partial(_damages_until_noticed, name))


def _damages_until_noticed(mutant: str) -> int | None:
    tally = play(0, cases=_MOST, mutant=mutant, until_broken=True)
    return tally.counts.total() if tally.broken else None


def register(campaigns: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this campaign to the command line."""
    parser = campaigns.add_parser("damage", help="random damage to a journal's files")
    parser.add_argument("--minutes", type=float, default=10, help="how long to play")
    parser.add_argument("--seed", type=int, default=0, help="the first seed; each decides one damage")
    parser.add_argument("--cases", type=int, default=sys.maxsize, help="how many damages at the most")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="break this, and see whether it is noticed")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> Result:
    began = time.perf_counter()
    tally = play(options.seed, cases=options.cases, seconds=60 * options.minutes, mutant=options.mutant)
    counts = ", ".join(f"{name} {count:,}" for name, count in sorted(tally.counts.items()))
    write = sys.stdout.write
    write(f"{tally.counts.total():,} damages in {time.perf_counter() - began:.0f} s: {counts}\n")
    for told in tally.broken:
        write(f"{told}\n")
    return Result(
        counts={"damages": tally.counts.total(), **tally.counts},
        findings=tally.broken,
        expected=bool(options.mutant),
        seeds=f"seeds {options.seed} to {options.seed + tally.counts.total() - 1}",
    )
