"""Cuts the power by the thousand, and counts what came of it."""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from random import Random
from time import monotonic

from tests.campaigns.registry import BrokenRule, Result, sentence

from .disk import Disk
from .mutants import MUTANTS
from .record import record
from .states import States, put
from .tape import Said, Sync, Tape
from .trial import Trial, second_opinion
from .vfs import why_not

__all__ = ["Part", "Tally", "broken_rules", "play", "play_part", "register"]

_FAST = "/dev/shm" if Path("/dev/shm").is_dir() else None  # memory does, where there is some
_PART = 2_500
"""Images of one part: a recording of an empty disk, and one that begins with what a power cut left of that."""
_RESUMED = 100
"""One image of so many is gone on with to the end."""
_TWICE = 10
"""One image of so many is also opened by another SQLite."""
_RUNS = 24
_JOBS = 2
_MOST = 5_000
"""Images in which a broken rule is to be noticed."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some images, decided by a seed but for what the engines did in which order.

    Args:
        seed: Decides what is started, and where and how the power is cut.
        images: How many.
        synchronous: What the engines are told.
        mutant: Which rule is broken while it is recorded.
        until: The moment, by the monotonic clock, after which no image is begun.
        keep: Where the tapes and images of findings are left.
    """

    seed: int
    images: int = _PART
    synchronous: str = "full"
    mutant: str | None = None
    until: float | None = None
    keep: Path | None = None


@dataclass(slots=True)
class Tally:
    """What a campaign has seen."""

    counts: Counter[str] = field(default_factory=Counter[str])
    problems: list[str] = field(default_factory=list[str])
    first: int | None = None
    """At which image the first problem was found."""

    def add(self, more: Tally) -> None:
        """What another part has seen."""
        if self.first is None and more.first is not None:
            self.first = self.counts["images"] + more.first
        self.counts += more.counts
        self.problems += more.problems


def play(parts: Iterator[Part], *, jobs: int = _JOBS, stop: bool = True) -> Tally:
    """Play parts, some at once; `stop`: no further one after a finding."""
    total, running = Tally(), set[Future[Tally]]()
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for part in parts:
            running.add(pool.submit(play_part, part))
            if len(running) >= jobs:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for each in done:
                    total.add(each.result())
            if (stop and total.problems) or (part.until is not None and monotonic() > part.until):
                break
        for each in running:
            total.add(each.result())
    return total


def play_part(part: Part) -> Tally:
    """Record an engine's life on an empty disk, and one after a power cut in that; look at images of both."""
    tally = Tally()
    with tempfile.TemporaryDirectory(dir=_FAST) as name:
        folder = Path(name)
        half = part.images // 2
        tape = _record(part, folder / "first", {}, ())
        _Session(part, 1, tape, folder, tally).look_at(range(half))
        if not tally.problems:
            chance = Random(f"{part.seed} between")
            cut = chance.randint(1, len(tape.ops))
            disk = Disk(tape)
            disk.play(cut)
            said = (*tape.said, *(op.line for op in tape.ops[:cut] if isinstance(op, Said)))
            again = _record(part, folder / "second", disk.cut(chance), said)
            _Session(part, 2, again, folder, tally).look_at(range(half, part.images))
    return tally


def _record(part: Part, folder: Path, files: dict[str, bytes], said: tuple[str, ...]) -> Tape:
    (folder / "disk").mkdir(parents=True)
    put(folder / "disk", files)
    over = [f"killing {process} {process}" for process in sorted({line.split(" ")[1] for line in said})]
    # Where acknowledged commits may be lost, nothing is owed of what was said before.
    lines = [*(said if part.synchronous == "full" else ()), *over]
    (folder / "said").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    seed = 2 * part.seed + bool(said)
    return record(folder, seed, synchronous=part.synchronous, mutant=part.mutant, runs=_RUNS)


class _Session:
    """Looks at images of one tape."""

    def __init__(self, part: Part, life: int, tape: Tape, folder: Path, tally: Tally) -> None:
        self._part = part
        self._life = life
        self._tape = tape
        self._tally = tally
        (work := folder / f"work-{life}").mkdir()
        (work / "states").mkdir()
        states = States(tape, work / "states")
        self._trial = Trial(states, work)
        tally.counts["recordings"] += 1
        tally.counts["operations"] += len(tape.ops)
        tally.counts["states"] += len(states.found)
        self._blame("", states.problems)

    def look_at(self, numbers: range) -> None:
        """Look at images of these numbers, until something is found or the time is over."""
        disk, cuts = Disk(self._tape), set[int]()
        places = _Places(self._tape)
        for cut, number in sorted((places.pick(Random(f"{self._part.seed} cut {n}")), n) for n in numbers):
            if self._tally.problems or (self._part.until is not None and monotonic() > self._part.until):
                break
            disk.play(cut)
            cuts.add(cut)
            chance = Random(f"{self._part.seed} image {number}")
            image = disk.cut(chance)
            self._tally.counts["images"] += 1
            if problems := self._look(cut, number, image, chance):
                self._blame(f", image {number}, cut at {cut} of {len(self._tape.ops)}", problems)
                self._keep(number, image)
        self._tally.counts["cuts"] += len(cuts)
        self._tally.counts["images without something acknowledged"] += self._trial.lost

    def _look(self, cut: int, number: int, image: dict[str, bytes], chance: Random) -> list[str]:
        twice = number % _TWICE == 0
        self._tally.counts["opened by another SQLite"] += twice and second_opinion() is not None
        told = self._trial.glance(cut, image, twice=twice)
        if told is not None or number % _RESUMED:
            return [] if told is None else [told]
        self._tally.counts["resumed"] += 1
        return self._trial.go_on(cut, image, chance)

    def _blame(self, where: str, problems: list[str]) -> None:
        if problems and self._tally.first is None:
            self._tally.first = self._tally.counts["images"]
        self._tally.problems += [f"seed {self._part.seed}, life {self._life}{where}: {each}" for each in problems]

    def _keep(self, number: int, image: dict[str, bytes]) -> None:
        if self._part.keep is None:
            return
        there = self._part.keep / f"seed-{self._part.seed}-life-{self._life}-image-{number}"
        shutil.rmtree(there, ignore_errors=True)
        (there / "image").mkdir(parents=True)
        put(there / "image", image)
        (there / "tape").write_bytes(pickle.dumps(self._tape))


class _Places:
    """Where the power is cut: anywhere; before a sync, when most is at stake; after an acknowledgement; while it is opened."""

    def __init__(self, tape: Tape) -> None:
        everywhere = range(len(tape.ops) + 1)
        syncs = [index for index, op in enumerate(tape.ops) if isinstance(op, Sync)]
        said = [index + 1 for index, op in enumerate(tape.ops) if isinstance(op, Said)]
        opened = next(n for n, op in enumerate(tape.ops) if isinstance(op, Said) and op.line.startswith("open "))
        # An engine makes its journal there, or recovers it.
        opening = range(opened + 2)
        self._kinds = (everywhere, everywhere, syncs, syncs, said, opening)

    def pick(self, chance: Random) -> int:
        """One of them."""
        return chance.choice(chance.choice(self._kinds))


# The command line ----------------------------------------------------------------------------------------------------


def register(campaigns: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this campaign to the command line."""
    parser = campaigns.add_parser("power", help="what a power cut may leave on the disk, a million times if need be")
    parser.add_argument("--images", type=int, default=1_000_000, help="how many, unless --minutes are over before")
    parser.add_argument("--minutes", type=float, help="for how long, at the most")
    parser.add_argument("--seed", type=int, default=0, help="the first seed; each decides the cuts of one part")
    parser.add_argument("--jobs", type=int, default=_JOBS, help="how many processes look at images")
    parser.add_argument("--synchronous", choices=["full", "normal"], default="full", help="what the engines are told")
    parser.add_argument("--folder", type=Path, help="where tapes and images of findings are left")
    parser.add_argument(
        "--mutant", choices=[name for name in MUTANTS if name], help="break this rule, and see whether it is noticed"
    )
    parser.set_defaults(run=_run)


def parts(
    images: int, seed: int, *, synchronous: str = "full", mutant: str | None = None, keep: Path | None = None
) -> Iterator[Part]:
    """The parts of a campaign of so many images."""
    first = Part(seed, synchronous=synchronous, mutant=mutant, keep=keep)
    for number in islice(count(), -(-images // _PART)):
        yield replace(first, seed=seed + number, images=min(_PART, images - number * _PART))


def _run(options: argparse.Namespace) -> Result | int:
    write = sys.stdout.write
    if (reason := why_not()) is not None:
        write(f"nothing was cut: {reason}\n")
        return 2
    began = monotonic()
    until = None if options.minutes is None else began + 60 * options.minutes
    chosen = parts(
        options.images, options.seed, synchronous=options.synchronous, mutant=options.mutant, keep=options.folder
    )
    tally = play((replace(part, until=until) for part in chosen), jobs=options.jobs)
    other = second_opinion()
    builds = f"SQLite {sqlite3.sqlite_version}" + (f", images also by {other.version}" if other is not None else "")
    counts = ", ".join(f"{name} {number:,}" for name, number in sorted(tally.counts.items()))
    write(f"{monotonic() - began:.0f} s: {counts}; {builds}\n")
    if tally.first is not None:
        write(f"the first finding came with image {tally.first:,}\n")
    write(f"{len(tally.problems):,} problems\n")
    for problem in tally.problems[:20]:
        write(f"  {problem}\n")
    last = options.seed - -(-tally.counts["images"] // _PART) - 1
    return Result(
        counts=tally.counts,
        findings=tally.problems,
        expected=bool(options.mutant),
        seeds=f"seeds {options.seed} to {max(options.seed, last)}",
    )


def broken_rules() -> Iterator[BrokenRule]:
    """What this campaign must notice."""
    for name, mutant in MUTANTS.items():
        if name is not None:
            until_noticed = partial(_images_until_noticed, name)
            yield BrokenRule("power", name, sentence(mutant.broken), "images", _MOST, until_noticed, needs=why_not())


def _images_until_noticed(mutant: str) -> int | None:
    tally = play(parts(_MOST, seed=1, mutant=mutant))
    return None if not tally.problems else tally.first or 0
