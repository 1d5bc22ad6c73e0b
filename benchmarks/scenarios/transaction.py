"""Transaction steps: a row of the application and the outcome in one commit, beside plain steps."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.limits import insert
from benchmarks.ours import runs_of, timed
from benchmarks.shape import OURS, Figures, Scenario, Side, least, ratio
from benchmarks.stopwatch import agree, rates
from durable_sqlite import Engine, Tx, transaction, workflow

__all__ = ["SCENARIO"]

STEPS = 30
RATE = "steps a second"


@transaction
def book(tx: Tx, number: int) -> int:
    """One row of the application's own."""
    tx.execute("INSERT INTO bookings (number) VALUES (?)", (number,))
    return number + 1


@workflow
async def book_all(steps: int) -> int:
    """So many bookings one after another."""
    number = 0
    for _ in range(steps):
        number = await book(number)
    return number


def _make_table(tx: Tx) -> None:
    tx.execute("CREATE TABLE bookings (id INTEGER PRIMARY KEY, number INTEGER NOT NULL)")


def _ours(folder: Path, runs: int) -> Figures:
    async def before(engine: Engine) -> None:
        await engine.transact(_make_table)
        await book_all(3)

    async def work() -> None:
        agree(await asyncio.gather(*(book_all(STEPS) for _ in range(runs))), [STEPS] * runs)

    return rates("step", runs * STEPS, timed(folder, work, before))


def _plain(folder: Path, runs: int) -> Figures:
    return rates("step", runs * STEPS, runs_of(folder, runs, STEPS))


def _limit(folder: Path, runs: int) -> Figures:
    return rates("step", runs * STEPS, insert(folder, runs * STEPS, booked=True))


SCENARIO = Scenario(
    name="transaction",
    work="100 runs of 30 transaction steps with a row of the application each; the limit: both rows, 100 steps to a commit",
    size=100,
    quick=3,
    sides=(Side(OURS, _ours), Side("plain", _plain), Side("limit", _limit)),
    floors=(least("of plain steps (`concurrent`)", 0.5, ratio(RATE, "plain")),),
    main=RATE,
    rounds=7,
    notes="*plain* is the work of `concurrent`, measured in turn with it.",
)
