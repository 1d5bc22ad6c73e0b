"""Plays many cases and counts what was found."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from durable_sqlite import Engine
from tests.campaigns.fresh import in_fresh_processes
from tests.campaigns.registry import BrokenRule, Result, sentence
from tests.campaigns.telling import tell

from .cases import Case, draw
from .checker import Problem
from .errands import Stage, set_up
from .mutants import MUTANTS
from .threads import no_threads
from .world import World

__all__ = [
    "Tally",
    "Theatre",
    "broken_rules",
    "cases_until_noticed",
    "play_all",
    "play_in_processes",
    "register",
    "shrink",
    "theatre",
]

_CHUNK = 100  # cases that one process plays
_MOST = 400
"""Cases after which a broken rule must have been noticed; most are within twenty."""
_QUICK = Path("/dev/shm")  # nothing that is played here is to survive a power cut


@dataclass(slots=True)
class Tally:
    """What a campaign has seen."""

    cases: int = 0
    counts: Counter[str] = field(default_factory=Counter[str])
    """Troubles, states in which runs ended, what clients were told, ticks, attempts."""
    found: list[tuple[int, list[Problem]]] = field(default_factory=list[tuple[int, list[Problem]]])
    """Seeds with the promises that were broken."""

    def add(self, other: Tally) -> None:
        """Add what another one has seen."""
        self.cases += other.cases
        self.counts += other.counts
        self.found += other.found


class Theatre:
    """Plays cases, each on a new journal, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._stage = Stage()
        self._blank = folder / "blank.db"
        self._folder = folder
        self._numbers = iter(range(sys.maxsize))
        asyncio.run(self._make_blank())

    async def _make_blank(self) -> None:
        async with Engine(self._blank, drive=False) as engine:
            await engine.transact(set_up)

    def play(self, case: Case) -> World:
        """Play a case; its world, with the promises that were broken in `checker.problems`."""
        stand = self._folder / f"case-{next(self._numbers)}"
        stand.mkdir()
        try:
            path = stand / "journal.db"
            shutil.copyfile(self._blank, path)
            world = World(case, path, self._stage)
            world.play()
        finally:
            shutil.rmtree(stand)
        return world


@contextmanager
def theatre() -> Generator[Theatre, None, None]:
    """A theatre, while nothing is logged and no thread is begun."""
    logger = logging.getLogger("durable_sqlite")
    level = logger.level
    place = _QUICK if _QUICK.is_dir() and os.access(_QUICK, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        stage = Theatre(Path(folder))
        logger.setLevel(logging.CRITICAL)
        try:
            with no_threads():
                yield stage
        finally:
            logger.setLevel(level)


def play_all(seeds: Iterable[int], mutant: str | None = None) -> Tally:
    """Play the cases of these seeds, with the whole engine or with one whose rule `mutant` is broken."""
    tally = Tally()
    with theatre() as stage, MUTANTS[mutant]() if mutant else nullcontext():
        for seed in seeds:
            world = stage.play(draw(seed))
            tally.cases += 1
            tally.counts += world.checker.counts
            tally.counts["ticks"] += world.ticks
            if world.checker.problems:
                tally.found.append((seed, world.checker.problems))
    return tally


def play_in_processes(seeds: range, processes: int, mutant: str | None = None) -> Tally:
    """The same in several processes, each of them fresh."""
    chunks = [seeds[start : start + _CHUNK] for start in range(0, len(seeds), _CHUNK)]
    tally = Tally()
    for part in in_fresh_processes(partial(play_all, mutant=mutant), chunks, processes, chunks_each=4):
        tally.add(part)
    return tally


def cases_until_noticed(mutant: str, most: int) -> int | None:
    """After how many cases the broken rule is noticed; None if it is not, in `most` cases."""
    with theatre() as stage, MUTANTS[mutant]():
        for seed in range(most):
            if stage.play(draw(seed)).checker.problems:
                return seed + 1
    return None


def shrink(case: Case, stage: Theatre) -> Case:
    """A smaller case in which the same is still broken."""
    what = {problem.what for problem in stage.play(case).checker.problems}
    progress = True
    while progress:
        progress = False
        for candidate in _smaller(case):
            if what & {problem.what for problem in stage.play(candidate).checker.problems}:
                case, progress = candidate, True
                break
    return case


def _smaller(case: Case) -> Iterator[Case]:
    for index in range(len(case.troubles)):
        yield replace(case, troubles=(*case.troubles[:index], *case.troubles[index + 1 :]))
    if len(case.scripts) > 1:
        yield replace(case, scripts=case.scripts[:-1])
    if case.engines > 1:
        yield replace(case, engines=case.engines - 1)
    for index, script in enumerate(case.scripts):
        for place in range(len(script)):
            less = [*script[:place], *script[place + 1 :]]
            yield replace(case, scripts=(*case.scripts[:index], less, *case.scripts[index + 1 :]))


# The command line ----------------------------------------------------------------------------------------------------


def register(campaigns: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this campaign to the command line."""
    parser = campaigns.add_parser("simulation", help="several engines in virtual time through all kinds of trouble")
    parser.add_argument("--cases", type=int, default=2_000, help="how many cases to play, unless --minutes are given")
    parser.add_argument("--minutes", type=float, help="for how long, however many cases that are")
    parser.add_argument("--seed", type=int, default=0, help="the first seed; a single case with --cases 1")
    parser.add_argument("--processes", type=int, default=1, help="how many processes to play them in")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="break this rule, and see whether it is noticed")
    parser.add_argument("--shrink", action="store_true", help="make the first case that fails small")
    parser.set_defaults(run=_run)


def broken_rules() -> Iterator[BrokenRule]:
    """What this campaign must notice."""
    for name, mutant in sorted(MUTANTS.items()):
        yield BrokenRule(
            "simulation", name, sentence(mutant), "cases", _MOST, partial(cases_until_noticed, name, _MOST)
        )


def _run(options: argparse.Namespace) -> Result:
    began = time.perf_counter()
    tally = Tally()
    if options.minutes is None:
        tally = play_in_processes(range(options.seed, options.seed + options.cases), options.processes, options.mutant)
    else:
        step = _CHUNK * options.processes * 4
        while time.perf_counter() - began < 60 * options.minutes and not tally.found:
            first = options.seed + tally.cases
            tally.add(play_in_processes(range(first, first + step), options.processes, options.mutant))
    tell("simulation", tally, time.perf_counter() - began)
    if options.shrink and tally.found:
        with theatre() as stage, MUTANTS[options.mutant]() if options.mutant else nullcontext():
            case = shrink(draw(tally.found[0][0]), stage)
            sys.stdout.write("\n".join(map(str, (case, *stage.play(case).checker.problems))) + "\n")
    return Result(
        counts={"cases": tally.cases, **tally.counts},
        findings=[f"seed {seed}: {problems[0]}" for seed, problems in tally.found],
        expected=bool(options.mutant),
        seeds=f"seeds {options.seed} to {options.seed + tally.cases - 1}",
    )
