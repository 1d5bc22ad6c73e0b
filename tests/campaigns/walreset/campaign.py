"""Plays rounds and counts what was found."""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from durable_sqlite._sqlite import SqliteJournal
from durable_sqlite._sqlite.link import JobConnection
from durable_sqlite.cli._standing import has_wal_reset_bug
from durable_sqlite.errors import JournalError
from tests.campaigns.registry import BrokenRule, Result
from tests.support.journals import begin, entry

from .careless import Careless
from .duel import duel

__all__ = ["Tally", "broken_rules", "play", "register"]

_MOST = 60  # rounds of a duel in which carelessness has to show


@dataclass(slots=True)
class Tally:
    """What a campaign has seen."""

    rounds: int = 0
    commits: int = 0
    checkpoints: int = 0
    problems: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class Life:
    """One process of a round."""

    path: str
    number: int
    seed: int
    commits: int
    careless: bool


@dataclass(frozen=True, slots=True)
class Told:
    """What one process was told: these of its writes are acknowledged."""

    run: str
    acknowledged: dict[str, int]
    """The sizes of what was written, by key."""
    checkpoints: int
    error: str = ""


def live(life: Life) -> Told:
    """Write, one commit after the other, with a checkpoint after every few of them."""
    return asyncio.run(_live(life))


async def _live(life: Life) -> Told:
    chance = Random(life.seed * 1_000 + life.number)
    passed: list[str] = []
    acknowledged: dict[str, int] = {}
    journal = SqliteJournal(
        life.path,
        synchronous="normal",  # faster, and what is looked for here has nothing to do with power cuts
        failpoint=passed.append,
        checkpoint_bytes=chance.choice((1, 30_000, 120_000)),
        connection=Careless if life.careless else JobConnection,
    )
    run, error = f"run-{life.number}", ""
    await journal.open(f"worker {life.number}", 1)
    try:
        _, hold = await begin(journal, run)
        for seq in range(1, life.commits + 1):
            size = chance.choice((10, 500, 4_000, 20_000))
            await journal.record(hold, entry(f"s#{seq}", seq=seq, payload=bytes([seq % 256]) * size))
            acknowledged[f"s#{seq}"] = size
            if chance.random() < 0.1:
                await journal.memories([hold.run])
    except JournalError as damage:
        error = str(damage)
    await journal.close(2)
    return Told(run, acknowledged, passed.count("checkpoint.after"), error)


def play(seeds: Sequence[int], *, processes: int = 3, commits: int = 400, careless: bool = False) -> Tally:
    """Play a round for each seed: several processes on a fresh file, then a look at what is in it."""
    tally = Tally()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool, tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            path = Path(folder) / f"{seed}.db"
            lives = [Life(str(path), number, seed, commits, careless) for number in range(processes)]
            told = list(pool.map(live, lives))
            tally.rounds += 1
            tally.commits += sum(len(each.acknowledged) for each in told)
            tally.checkpoints += sum(each.checkpoints for each in told)
            tally.problems += [f"seed {seed}: {problem}" for problem in problems(path, told)]
            path.unlink()
    return tally


def problems(path: Path, told: Sequence[Told]) -> list[str]:
    """What is damaged or missing."""
    found = [each.error for each in told if each.error]
    try:
        with closing(sqlite3.connect(path)) as connection:
            ((sound,),) = connection.execute("PRAGMA integrity_check(1)").fetchall()
            if sound != "ok":
                found.append(sound)
            for each in told:
                sql = (
                    "SELECT key, payload FROM durable_entries JOIN durable_runs ON durable_runs.no = durable_entries.run "
                    "WHERE durable_runs.id = ?"
                )
                stored = dict(connection.execute(sql, (each.run,)).fetchall())
                for key, size in each.acknowledged.items():
                    if stored.get(key) != bytes([int(key[2:]) % 256]) * size:
                        found.append(f"{each.run}, {key}: acknowledged, and is missing or another one")
    except sqlite3.DatabaseError as error:
        found.append(str(error))
    return found


def broken_rules() -> Iterator[BrokenRule]:
    """What this campaign must notice, where the bug is that the rules of checkpoints evade."""
    yield BrokenRule(
        "walreset",
        "passive-checkpoints",
        "Checkpoints are PASSIVE, beside anybody's commit, and the file is mapped.",
        "rounds",
        _MOST,
        _rounds_until_noticed,
        needs=None
        if has_wal_reset_bug(sqlite3.sqlite_version_info)
        else f"SQLite {sqlite3.sqlite_version} has no such bug",
    )


def _rounds_until_noticed() -> int | None:
    with tempfile.TemporaryDirectory() as folder:
        rounds, _, trouble = duel(Path(folder) / "duel.db", _MOST, careless=True)
    return rounds if trouble else None


def register(campaigns: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this campaign to the command line."""
    parser = campaigns.add_parser("walreset", help="commits and checkpoints of several processes at once")
    parser.add_argument("--minutes", type=float, default=5.0, help="for how long")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=3, help="how many processes write at once")
    parser.add_argument("--commits", type=int, default=400, help="how many commits each makes in a round")
    parser.add_argument("--careless", action="store_true", help="break the rules, and tell what comes of it")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> Result:
    began = time.perf_counter()
    end = began + options.minutes * 60
    whole, seed = Tally(), options.seed
    with tempfile.TemporaryDirectory() as folder:
        half = began + options.minutes * 30
        rounds, commits, trouble = duel(
            Path(folder) / "duel.db",
            sys.maxsize,
            careless=options.careless,
            go_on=lambda: time.perf_counter() < half,
        )
    sys.stdout.write(
        f"SQLite {sqlite3.sqlite_version}, a duel: {rounds:,} rounds, {commits:,} commits; {len(trouble):,} problems\n"
    )
    while time.perf_counter() < end:
        part = play(
            range(seed, seed + 5), processes=options.processes, commits=options.commits, careless=options.careless
        )
        seed += 5
        whole.rounds += part.rounds
        whole.commits += part.commits
        whole.checkpoints += part.checkpoints
        whole.problems += part.problems
    sys.stdout.write(
        f"many processes: {whole.rounds:,} rounds in {time.perf_counter() - half:.0f} s, {whole.commits:,} commits, "
        f"{whole.checkpoints:,} checkpoints; {len(whole.problems):,} problems\n"
    )
    problems_seen = [*trouble, *whole.problems]
    for problem in problems_seen[:20]:
        sys.stdout.write(f"  {problem}\n")
    return Result(
        counts={
            "rounds of a duel": rounds,
            "commits in duels": commits,
            "rounds of many processes": whole.rounds,
            "commits of many processes": whole.commits,
            "checkpoints": whole.checkpoints,
        },
        findings=problems_seen,
        expected=options.careless and bool(problems_seen),  # with luck, carelessness goes well
        seeds=f"seeds {options.seed} to {seed - 1}",
    )
