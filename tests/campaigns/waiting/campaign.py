"""Plays many cases and counts what was found."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test  # pyright: ignore[reportUnknownVariableType] - it has no types

from tests.campaigns.fresh import in_fresh_processes
from tests.campaigns.registry import BrokenRule, Result, sentence

from .machine import WaitingMachine
from .mutants import MUTANTS

__all__ = ["Tally", "broken_rules", "play", "register"]

_CHUNK = 500  # cases that one process plays
_LONGEST = 20  # rules of one case
_MOST = 800  # cases of a seed, after which a broken rule must have been noticed
_SEEDS = range(1, 10)  # two rules are noticed by every third seed only


@dataclass(slots=True)
class Tally:
    """What a campaign has seen."""

    cases: int = 0
    counts: Counter[str] = field(default_factory=Counter[str])
    """States in which runs ended, what clients were told, processes, entries, attempts."""
    found: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """Seeds with what was broken, and how to play it again."""

    def add(self, other: Tally) -> None:
        """Add what another one has seen."""
        self.cases += other.cases
        self.counts += other.counts
        self.found += other.found


def play(cases: int, first: int, mutant: str | None = None, *, shrink: bool = False) -> Tally:
    """Play as many cases, which this seed decides, until one breaks a promise; with `mutant`, of an engine so broken."""
    tally = Tally()

    @seed(first)
    class Machine(WaitingMachine):
        def teardown(self) -> None:
            tally.cases += 1
            try:
                super().teardown()
            finally:
                tally.counts.update(self.world.counts)

    how = settings(
        max_examples=cases,
        stateful_step_count=_LONGEST,
        deadline=None,
        database=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=cast("list[HealthCheck]", list(HealthCheck)),
    )
    with _quiet(logging.getLogger("durable_sqlite")), MUTANTS[mutant]() if mutant else nullcontext():
        try:
            run_state_machine_as_test(Machine, settings=how)
        except Exception as error:  # whatever it is: a broken engine may break anywhere
            told = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
            tally.found.append((first, told))
    return tally


@contextmanager
def _quiet(logger: logging.Logger) -> Generator[None, None, None]:
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def broken_rules() -> Iterator[BrokenRule]:
    """What this campaign must notice."""
    for name, mutant in sorted(MUTANTS.items()):
        until = partial(_cases_until_noticed, name)
        yield BrokenRule("waiting", name, sentence(mutant), "cases", _MOST * len(_SEEDS), until)


def _cases_until_noticed(mutant: str) -> int | None:
    """After how many cases the broken rule is noticed, with those in which what was found is played again."""
    cases = 0
    for number in _SEEDS:
        tally = play(_MOST, number, mutant)
        cases += tally.cases
        if tally.found:
            return cases
    return None


def register(campaigns: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this campaign to the command line."""
    parser = campaigns.add_parser("waiting", help="random programs that wait, against a model")
    parser.add_argument("--cases", type=int, default=10_000, help="how many cases to play, unless --minutes are given")
    parser.add_argument("--minutes", type=float, help="for how long, however many cases that are")
    parser.add_argument("--seed", type=int, default=0, help=f"the first seed; each decides {_CHUNK} cases")
    parser.add_argument("--processes", type=int, default=1, help="how many processes to play them in")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="break this rule, and see whether it is noticed")
    parser.add_argument("--shrink", action="store_true", help="make what fails small")
    parser.set_defaults(run=_run)


def _play_chunk(chunk: tuple[int, int], *, mutant: str | None, shrink: bool) -> Tally:
    first, cases = chunk
    return play(cases, first, mutant, shrink=shrink)


def _run(options: argparse.Namespace) -> Result:
    began = time.perf_counter()
    tally, seeds = Tally(), 0
    play_one = partial(_play_chunk, mutant=options.mutant, shrink=options.shrink)

    def play_on(sizes: Sequence[int]) -> None:
        nonlocal seeds
        chunks = [(options.seed + seeds + number, cases) for number, cases in enumerate(sizes)]
        for part in in_fresh_processes(play_one, chunks, options.processes):
            tally.add(part)
        seeds += len(chunks)

    if options.minutes is None:
        play_on([min(_CHUNK, options.cases - start) for start in range(0, options.cases, _CHUNK)])
    else:
        while time.perf_counter() - began < 60 * options.minutes and not tally.found:
            play_on([_CHUNK] * options.processes)
    counts = ", ".join(f"{name} {count:,}" for name, count in sorted(tally.counts.items()))
    write = sys.stdout.write
    write(f"{tally.cases:,} cases in {time.perf_counter() - began:.0f} s: {counts}\n")
    write(f"{len(tally.found):,} of {seeds:,} seeds broke a promise\n")
    for first, told in tally.found:
        write(f"seed {first}: {told}\n\n")
    return Result(
        counts={"cases": tally.cases, **tally.counts},
        findings=[f"seed {first}: {told}" for first, told in tally.found],
        expected=bool(options.mutant),
        seeds=f"seeds {options.seed} to {options.seed + seeds - 1}, each for up to {_CHUNK} cases",
    )
