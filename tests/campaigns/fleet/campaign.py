"""Kills, stops and races by the thousand, and what came of them."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic

from tests.campaigns.registry import BrokenRule, Result, sentence

from .fleet import Outcome, kill_fleet
from .mutants import MUTANTS
from .races import race_in_pairs, race_to_start, race_to_take_over
from .zombies import stop_fleet

__all__ = ["broken_rules", "noticed", "register"]

_PART = 2_000  # kills or stops on one journal: what is found is easier to read in a short story
_KILLS, _STOPS, _ROUNDS = 40, 12, 6  # in which a broken rule is to be noticed
_TRIES = 5
_LAPS = 50  # rounds on one journal


def noticed(mutant: str, folder: Path, tries: int = _TRIES) -> int | None:
    """In which try a broken rule was noticed; None if it was not."""
    for number in range(1, tries + 1):
        there = folder / f"{mutant}-{number}"
        there.mkdir()
        match MUTANTS[mutant].campaign:
            case "fleet":
                problems = kill_fleet(there, _KILLS, number, mutant).problems
            case "zombies":
                problems = stop_fleet(there, _STOPS, number, mutant).problems
            case _:
                problems = race_in_pairs(there, _ROUNDS, mutant).problems
                there.joinpath("heirs").mkdir()
                problems += race_to_take_over(there / "heirs", _ROUNDS, mutant).problems
        if problems:
            return number
    return None


def broken_rules() -> Iterator[BrokenRule]:
    """What these campaigns must notice."""
    for name, mutant in sorted(MUTANTS.items()):
        if name == "nothing":
            continue
        unit, part = _PARTS[mutant.campaign]
        until = partial(_until_noticed, name, part)
        yield BrokenRule(mutant.campaign, name, sentence(mutant.broken), unit, part * _TRIES, until)


_PARTS = {"fleet": ("kills", _KILLS), "zombies": ("stops", _STOPS), "races": ("rounds", 2 * _ROUNDS)}
"""What is counted in a campaign, and how much of it is played before anybody judges."""


def _until_noticed(mutant: str, part: int) -> int | None:
    with tempfile.TemporaryDirectory() as folder:
        tries = noticed(mutant, Path(folder))
    return None if tries is None else tries * part


# The command line ----------------------------------------------------------------------------------------------------


def register(campaigns: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add these campaigns to the command line."""
    for name, told, number, run in (
        ("fleet", "four processes on one journal, killed at random", "kills", _kill),
        ("zombies", "processes that are stopped for longer than their lease", "stops", _stop),
        ("races", "processes that do one thing at the same moment", "rounds", _race),
    ):
        parser = campaigns.add_parser(name, help=told)
        parser.add_argument(f"--{number}", type=int, default=1_000, help="how many, unless --minutes are over before")
        parser.add_argument("--minutes", type=float, help="for how long, at the most")
        parser.add_argument("--seed", type=int, default=0, help="decides who is picked when; not what comes of it")
        parser.add_argument("--folder", type=Path, help="where journal and log are to be; else in a temporary one")
        mutants = sorted(each for each, mutant in MUTANTS.items() if mutant.campaign == name)
        parser.add_argument("--mutant", choices=mutants, help="break this rule, and see whether it is noticed")
        parser.set_defaults(run=run)


def _kill(options: argparse.Namespace) -> Result:
    return _in_parts(options, options.kills, kill_fleet)


def _stop(options: argparse.Namespace) -> Result:
    return _in_parts(options, options.stops, stop_fleet)


def _in_parts(options: argparse.Namespace, number: int, campaign: Callable[..., Outcome]) -> Result:
    until = None if options.minutes is None else monotonic() + 60 * options.minutes
    total = Outcome()
    with _folder(options) as folder:
        for part, done in enumerate(range(0, number, _PART)):
            if until is not None and monotonic() >= until:
                break
            there = folder / f"part-{part}"
            there.mkdir()
            some = min(_PART, number - done)
            _add(total, campaign(there, some, options.seed + part, options.mutant, until=until))
            if total.problems:
                break
    return _report(options, total)


def _race(options: argparse.Namespace) -> Result:
    until = None if options.minutes is None else monotonic() + 60 * options.minutes
    total = Outcome()
    with _folder(options) as folder:
        for part, done in enumerate(range(0, options.rounds, _LAPS)):
            if total.problems or (until is not None and monotonic() >= until):
                break
            laps = min(_LAPS, options.rounds - done)
            there = [folder / f"{name}-{part}" for name in ("start", "pairs", "heirs", "silent")]
            for each in there:
                each.mkdir()
            _add(total, race_to_start(there[0], 20, laps))
            _add(total, race_in_pairs(there[1], laps, options.mutant))
            _add(total, race_to_take_over(there[2], laps, options.mutant))
            _add(total, race_to_take_over(there[3], max(1, laps // 10), options.mutant, silent=True))
    return _report(options, total)


@contextmanager
def _folder(options: argparse.Namespace) -> Generator[Path, None, None]:
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        yield options.folder
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def _add(total: Outcome, more: Outcome) -> None:
    total.problems += more.problems
    total.counts += more.counts
    total.seconds += more.seconds


def _report(options: argparse.Namespace, total: Outcome) -> Result:
    write = sys.stdout.write
    write(f"{total.seconds:.0f} s: {', '.join(f'{name} {count:,}' for name, count in sorted(total.counts.items()))}\n")
    write(f"{len(total.problems):,} problems\n")
    for problem in total.problems[:20]:
        write(f"  {problem.what}: {problem.detail}\n")
    return Result(
        counts=total.counts,
        findings=[f"{problem.what}: {problem.detail}" for problem in total.problems],
        expected=bool(options.mutant),
        seeds=f"from seed {options.seed} on",
    )
