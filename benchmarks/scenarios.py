"""What is measured. Each function does its work in the folder it is given and returns seconds for one unit of it.

A limit is the smallest plain `sqlite3` program that makes the same facts durable, with `synchronous=FULL` in WAL mode.
"""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from durable_sqlite import Engine, Tx, step, transaction, workflow

__all__ = ["SCENARIOS", "Scenario"]

STEPS = 1_000
RUNS = 100
STEPS_EACH = 30
STARTS = 2_000
BATCH = 100


@dataclass(frozen=True, slots=True)
class Scenario:
    """One comparison."""

    unit: str
    ours: Callable[[Path], float]
    limit: Callable[[Path], float]


@step
async def increment(number: int) -> int:
    return number + 1


@workflow
async def count(steps: int) -> int:
    number = 0
    for _ in range(steps):
        number = await increment(number)
    return number


@transaction
def book(tx: Tx, number: int) -> int:
    tx.execute("INSERT INTO bookings (number) VALUES (?)", (number,))
    return number + 1


@workflow
async def book_all(steps: int) -> int:
    number = 0
    for _ in range(steps):
        number = await book(number)
    return number


def _make_table(tx: Tx) -> None:
    tx.execute("CREATE TABLE bookings (id INTEGER PRIMARY KEY, number INTEGER NOT NULL)")


def _under_an_engine(work: Callable[[], Awaitable[object]]) -> Callable[[Path], float]:
    def run(folder: Path) -> float:
        async def main() -> float:
            async with Engine(folder / "journal.db") as engine:
                await engine.transact(_make_table)
                await count(3)  # so that adapters are built and the file has its first pages
                await book_all(3)
                began = perf_counter()
                await work()
                return perf_counter() - began

        return asyncio.run(main())

    return run


async def _sequential() -> None:
    assert await count(STEPS) == STEPS


async def _concurrent() -> None:
    assert await asyncio.gather(*(count(STEPS_EACH) for _ in range(RUNS))) == [STEPS_EACH] * RUNS


async def _transaction() -> None:
    assert await asyncio.gather(*(book_all(STEPS_EACH) for _ in range(RUNS))) == [STEPS_EACH] * RUNS


async def _start() -> None:
    assert await asyncio.gather(*(count(1) for _ in range(STARTS))) == [1] * STARTS


def _bare(rows: int, rows_in_a_commit: int, *, booked: bool = False) -> Callable[[Path], float]:
    def run(folder: Path) -> float:
        connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(
            "CREATE TABLE entries (run TEXT, key TEXT, payload BLOB, PRIMARY KEY (run, key)) WITHOUT ROWID"
        )
        connection.execute("CREATE TABLE bookings (id INTEGER PRIMARY KEY, number INTEGER NOT NULL)")
        began = perf_counter()
        for first in range(0, rows, rows_in_a_commit):
            connection.execute("BEGIN IMMEDIATE")
            for row in range(first, first + rows_in_a_commit):
                connection.execute("INSERT INTO entries VALUES (?, ?, ?)", ("run", f"increment#{row}", b"1234"))
                if booked:
                    connection.execute("INSERT INTO bookings (number) VALUES (?)", (row,))
            connection.execute("COMMIT")
        took = perf_counter() - began
        connection.close()
        return took

    return run


def _importing(modules: str) -> Callable[[Path], float]:
    def run(folder: Path) -> float:
        began = perf_counter()
        subprocess.run([sys.executable, "-c", f"import {modules}"], check=True, cwd=folder)
        return perf_counter() - began

    return run


SCENARIOS = {
    "sequential": Scenario(f"one run, {STEPS} steps", _under_an_engine(_sequential), _bare(STEPS, 1)),
    "concurrent": Scenario(
        f"{RUNS} runs of {STEPS_EACH} steps", _under_an_engine(_concurrent), _bare(RUNS * STEPS_EACH, BATCH)
    ),
    "transaction": Scenario(
        f"{RUNS} runs of {STEPS_EACH} transactions with a row each",
        _under_an_engine(_transaction),
        _bare(RUNS * STEPS_EACH, BATCH, booked=True),
    ),
    "start": Scenario(f"{STARTS} runs of one step", _under_an_engine(_start), _bare(STARTS, BATCH)),
    "cold": Scenario(
        "import, beside that of pydantic and aiosqlite", _importing("durable_sqlite"), _importing("pydantic, aiosqlite")
    ),
}
