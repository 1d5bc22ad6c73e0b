"""Plays many cases and counts what was found."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

from tests.campaigns.fresh import in_fresh_processes
from tests.campaigns.registry import BrokenRule, Result, sentence
from tests.campaigns.telling import tell

from .cases import Case, draw
from .checks import Problem
from .mutants import MUTANTS
from .programs import smaller
from .world import Theatre

__all__ = ["Tally", "broken_rules", "cases_until_noticed", "play_all", "register", "shrink"]

_CHUNK = 500  # cases that one process plays
_MOST = 1_000  # cases after which a broken rule must have been noticed; most are within ten
_RARE = "a-returning-pass-does-not-wait"  # needs a claim, a cancellation and a rest in one commit


@dataclass(slots=True)
class Tally:
    """What a campaign has seen."""

    cases: int = 0
    counts: Counter[str] = field(default_factory=Counter[str])
    """States in which runs ended, processes, entries, attempts."""
    found: list[tuple[int, list[Problem]]] = field(default_factory=list[tuple[int, list[Problem]]])
    """Seeds with the promises that were broken."""

    def add(self, other: Tally) -> None:
        """Add what another one has seen."""
        self.cases += other.cases
        self.counts += other.counts
        self.found += other.found


def play_all(seeds: Iterable[int], mutant: str | None = None) -> Tally:
    """Play the cases of these seeds, with the whole engine or with one whose rule `mutant` is broken."""
    tally = Tally()
    with Theatre() as theatre, MUTANTS[mutant]() if mutant else nullcontext():
        for seed in seeds:
            world = theatre.play(draw(seed))
            tally.cases += 1
            tally.counts["processes"] += world.checks.processes
            tally.counts["attempts"] += world.checks.starts
            tally.counts["failed attempts"] += sum(map(len, world.disk.failed.values()))
            tally.counts.update(world.checks.attempts.counts)
            tally.counts["entries"] += sum(map(len, world.disk.kept.values()))
            tally.counts.update(row.state.value for row in world.disk.runs.values())
            if world.checks.problems:
                tally.found.append((seed, world.checks.problems))
    return tally


def play_in_processes(seeds: range, processes: int, mutant: str | None = None) -> Tally:
    """The same in several processes, a fresh one for each chunk."""
    chunks = [seeds[start : start + _CHUNK] for start in range(0, len(seeds), _CHUNK)]
    tally = Tally()
    for part in in_fresh_processes(partial(play_all, mutant=mutant), chunks, processes):
        tally.add(part)
    return tally


def cases_until_noticed(mutant: str, most: int, *, only_crowded: bool = False) -> int | None:
    """After how many cases the broken rule is noticed; None if it is not, in `most` cases."""
    with Theatre() as theatre, MUTANTS[mutant]():
        for seed in range(most):
            if theatre.play(draw(seed, only_crowded=only_crowded)).checks.problems:
                return seed + 1
    return None


def broken_rules() -> Iterator[BrokenRule]:
    """What this campaign must notice."""
    for name, mutant in sorted(MUTANTS.items()):
        rare = name == _RARE
        most = 2 * _MOST if rare else _MOST
        until = partial(cases_until_noticed, name, most, only_crowded=rare)
        yield BrokenRule("bodies", name, sentence(mutant), "cases", most, until)


def shrink(case: Case, theatre: Theatre) -> Case:
    """A smaller case in which something is still broken."""
    progress = True
    while progress:
        progress = False
        for candidate in _smaller(case):
            if theatre.play(candidate).checks.problems:
                case, progress = candidate, True
                break
    return case


def _smaller(case: Case) -> Iterator[Case]:
    for index in range(len(case.lives)):
        yield replace(case, lives=(*case.lives[:index], *case.lives[index + 1 :]))
    for index, program in enumerate(case.programs):
        for program_less in smaller(program):
            yield replace(case, programs=(*case.programs[:index], program_less, *case.programs[index + 1 :]))
    if len(case.programs) > 1:
        yield replace(case, programs=case.programs[:-1])


def register(campaigns: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this campaign to the command line."""
    parser = campaigns.add_parser("bodies", help="random bodies through crashes, unloads and cancels")
    parser.add_argument("--cases", type=int, default=10_000, help="how many cases to play, unless --minutes are given")
    parser.add_argument("--minutes", type=float, help="for how long, however many cases that are")
    parser.add_argument("--seed", type=int, default=0, help="the first seed; a single case with --cases 1")
    parser.add_argument("--processes", type=int, default=1, help="how many processes to play them in")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="break this rule, and see whether it is noticed")
    parser.add_argument("--shrink", action="store_true", help="make the first case that fails small")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> Result:
    began = time.perf_counter()
    tally = Tally()
    if options.minutes is None:
        tally = play_in_processes(range(options.seed, options.seed + options.cases), options.processes, options.mutant)
    else:
        while time.perf_counter() - began < 60 * options.minutes and not tally.found:
            first = options.seed + tally.cases
            seeds = range(first, first + _CHUNK * options.processes)
            tally.add(play_in_processes(seeds, options.processes, options.mutant))
    tell("bodies", tally, time.perf_counter() - began)
    if options.shrink and tally.found:
        with Theatre() as theatre, MUTANTS[options.mutant]() if options.mutant else nullcontext():
            case = shrink(draw(tally.found[0][0]), theatre)
            sys.stdout.write("\n".join(map(str, (case, *theatre.play(case).checks.problems))) + "\n")
    return Result(
        counts={"cases": tally.cases, **tally.counts},
        findings=[f"seed {seed}: {problems[0].what}: {problems[0].detail}" for seed, problems in tally.found],
        expected=bool(options.mutant),
        seeds=f"seeds {options.seed} to {options.seed + tally.cases - 1}",
    )
