"""What a step costs as the journal grows, and as the run grows."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
from contextlib import closing
from pathlib import Path
from time import perf_counter

from benchmarks.bodies import count, increment
from benchmarks.ours import runs_of_open
from benchmarks.shape import OURS, Figures, Scenario, Side, most
from benchmarks.witness import WITNESS
from durable_sqlite import Engine, step, workflow

__all__ = ["SCENARIO"]

LARGEST = "µs a step in the largest journal"
JOURNALS = "cost of a step in the largest journal beside that in the smallest"
RUNS = "cost of a late step of a long run beside that of an early one"
TEMPLATE = 99
"""Steps of the run that is copied to fill a journal."""
TURNS = 15
STEPS = 5
BLOCK = 50
"""Steps that are timed at once."""
AT_ONCE = 100
TOOK: dict[str, list[float]] = {}
"""Seconds that the blocks of a run took."""
TURN: dict[str, asyncio.Event] = {}
"""Whose turn it is."""


def _fill(journal: Path, entries: int) -> None:
    """Copy the one run of a journal until it holds so many entries: they are there, and nobody will ask for them."""
    with closing(sqlite3.connect(journal, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        ((run,),) = connection.execute("SELECT no FROM durable_runs WHERE id = 'template'").fetchall()
        columns = ", ".join(_others(connection, "durable_runs", {"no", "id"}))
        fields = ", ".join(_others(connection, "durable_entries", {"run"}))
        copies = max(1, entries // (TEMPLATE + 1))
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            f"WITH RECURSIVE copy(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM copy WHERE n < ?) "
            f"INSERT INTO durable_runs (id, {columns}) SELECT 'copy-' || n, {columns} FROM copy, durable_runs WHERE no = ?",
            (copies, run),
        )
        connection.execute(
            f"INSERT INTO durable_entries (run, {fields}) SELECT r.no, {_of('e', fields)} "
            f"FROM durable_runs AS r, durable_entries AS e WHERE r.id LIKE 'copy-%' AND e.run = ?",
            (run,),
        )
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _others(connection: sqlite3.Connection, table: str, but: set[str]) -> list[str]:
    return [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})").fetchall() if name not in but]


def _of(table: str, fields: str) -> str:
    return ", ".join(f"{table}.{field.strip()}" for field in fields.split(","))


def _turns(largest: int) -> int:
    return TURNS if largest >= 100 * AT_ONCE else 2


async def _journals(folder: Path, largest: int) -> dict[int, float]:
    """Median seconds of a step in journals of three sizes, measured in turn."""
    sizes = {number: folder / f"{number}.db" for number in (largest // 100, largest // 10, largest)}
    for number, journal in sizes.items():
        async with Engine(journal):
            await count.options(id="template").start(TEMPLATE)
        async with Engine(journal, workflows=[count]) as engine:
            await engine.join()
        await asyncio.to_thread(_fill, journal, number)
    took: dict[int, list[float]] = {number: [] for number in sizes}
    for _ in range(_turns(largest)):
        for number, journal in sizes.items():
            async with Engine(journal):
                await count(3)
                runs = AT_ONCE if largest >= 100 * AT_ONCE else 2
                took[number].append((await runs_of_open(runs, STEPS)).seconds / (runs * STEPS))
                WITNESS.look()
    return {number: statistics.median(times) for number, times in took.items()}


@step
async def my_turn(name: str, turn: int) -> int:
    """Wait until this run may go on."""
    await TURN[name].wait()
    TURN[name].clear()
    return turn


@workflow
async def goes_on(name: str, before: int, turns: int) -> None:
    """So many steps, then blocks of steps whose time is taken, each at its turn."""
    done = 0
    while done < before:
        done += len(await asyncio.gather(*(increment(number) for number in range(min(AT_ONCE, before - done)))))
    for turn in range(turns):
        await my_turn(name, turn)
        began = perf_counter()
        await asyncio.gather(*(increment(number) for number in range(BLOCK)))
        TOOK[name].append(perf_counter() - began)


async def _runs(folder: Path, longest: int) -> dict[str, float]:
    """Median seconds of a block at the beginning of a run and far into another one, measured in turn."""
    lengths = {"early": 9, "late": longest}
    TOOK.update({name: [] for name in lengths})
    TURN.update({name: asyncio.Event() for name in lengths})
    async with Engine(folder / "runs.db", max_entries=2 * longest + 10_000) as engine:
        turns = _turns(10 * longest)
        runs = [await goes_on.start(name, before, turns) for name, before in lengths.items()]
        for turn in range(1, turns + 1):
            for name in lengths:
                TURN[name].set()
                while len(TOOK[name]) < turn:
                    await asyncio.sleep(0.005)
        for run in runs:
            await run
        await engine.join()
    return {name: statistics.median(times) for name, times in TOOK.items()}


def _ours(folder: Path, largest: int) -> Figures:
    journals = asyncio.run(_journals(folder, largest))
    runs = asyncio.run(_runs(folder, largest // 10))
    smallest, *_, greatest = journals.values()
    return {
        LARGEST: 1e6 * greatest,
        JOURNALS: greatest / smallest,
        RUNS: runs["late"] / runs["early"],
        **{f"µs a step in a journal of {number:,} entries": 1e6 * took for number, took in journals.items()},
        "µs a step, from the 10th of a run": 1e6 * runs["early"] / BLOCK,
        f"µs a step, from the {largest // 10:,}th of a run": 1e6 * runs["late"] / BLOCK,
    }


SCENARIO = Scenario(
    name="growth",
    work="the cost of a step in journals of 10,000, 100,000 and 1,000,000 entries; and as the 10th and the 100,000th of its run",
    size=1_000_000,
    quick=2_000,
    sides=(Side(OURS, _ours),),
    floors=(
        most("times the cost in the smallest journal, in the largest", 1.3, lambda sides: sides[OURS][JOURNALS]),
        most("times the cost of an early step, of the 100,000th", 1.3, lambda sides: sides[OURS][RUNS]),
    ),
    main=LARGEST,
    rounds=1,
    notes=(
        "The journals are filled with copies of a run's rows, and measured in turn: 100 new runs of 5 steps. Of the runs, "
        "blocks of 50 steps at once are measured in turn."
    ),
)
