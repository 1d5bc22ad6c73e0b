"""A program that is killed while it moves money: accounts, bookings and orders in the journal's own file."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import threading
from collections import Counter
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from durable_sqlite import Engine, Retry, Tx, _session, _sqlite, _worker, current_step, transaction, workflow

__all__ = ["SUM", "TRANSFERS", "Books", "Death", "books", "live"]

SUM = 3_000
TRANSFERS = 5

OPENS = (_session, _sqlite, _worker)
"""What opening an engine imports, so that a child that is forked from here has it."""

_ACCOUNTS = ("ann", "bob", "cay")


def set_up(tx: Tx) -> None:
    """Accounts and books without any rule that would hide a second booking."""
    tx.execute("CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, cents INTEGER NOT NULL)")
    tx.execute("CREATE TABLE IF NOT EXISTS bookings (no INTEGER PRIMARY KEY, run TEXT, key TEXT, cents INTEGER)")
    tx.execute("CREATE TABLE IF NOT EXISTS orders (run TEXT)")
    tx.execute("CREATE TABLE IF NOT EXISTS shipments (run TEXT)")
    tx.executemany("INSERT OR IGNORE INTO accounts VALUES (?, ?)", [(name, SUM // 3) for name in _ACCOUNTS])


class Hiccup(Exception):
    """The first attempt of the third transfer fails when half of it is done."""


@transaction(retry=Retry(max_attempts=3, initial_delay=0, jitter=0, on=Hiccup))
def transfer(tx: Tx, debit: str, credit: str, cents: int) -> int:
    """Move money, and give the number of the booking."""
    here = current_step()
    tx.execute("UPDATE accounts SET cents = cents - ? WHERE name = ?", (cents, debit))
    if here.attempt == 1 and here.key == "transfer#3":
        raise Hiccup
    tx.execute("UPDATE accounts SET cents = cents + ? WHERE name = ?", (cents, credit))
    booked = tx.execute("INSERT INTO bookings (run, key, cents) VALUES (?, ?, ?)", (here.run_id, here.key, cents))
    return booked.lastrowid or 0


@workflow
async def pass_on(cents: int) -> list[int]:
    """Five transfers, two of them beside each other."""
    booked = [await transfer("ann", "bob", cents)]
    booked += await asyncio.gather(transfer("bob", "cay", cents + 1), transfer("cay", "ann", cents + 2))
    return [*booked, await transfer("ann", "cay", cents + 3), await transfer("cay", "bob", cents + 4)]


@transaction
def ship(tx: Tx) -> None:
    """Note the shipment."""
    tx.execute("INSERT INTO shipments VALUES (?)", (current_step().run_id,))


@workflow
async def fulfil() -> None:
    """What an order starts."""
    await ship()


def accept(tx: Tx, run_id: str) -> None:
    """Take an order: a row, and the run that fulfils it, in an order that differs from one to the next."""
    if run_id.endswith(("0", "2", "4", "6", "8")):
        tx.execute("INSERT INTO orders VALUES (?)", (run_id,))
    tx.start(fulfil.options(id=run_id))
    if run_id.endswith(("1", "3", "5", "7", "9")):
        tx.execute("INSERT INTO orders VALUES (?)", (run_id,))


# How it dies ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Death:
    """When a process kills itself; it counts, and never does, by 0."""

    point: int = 0
    """At the n-th failpoint that is passed."""
    event: int = 0
    """At the n-th call or return of a function, in Python or in C, of whatever thread."""


class _Mortal:
    def __init__(self, death: Death) -> None:
        self._death = death
        self._points: list[str] = []
        self._events = 0

    def failpoint(self, name: str) -> None:
        self._points.append(name)
        if len(self._points) == self._death.point:
            _die()

    def __enter__(self) -> None:
        threading.setprofile(self._event)
        sys.setprofile(self._event)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _event(self, _frame: FrameType, _event: str, _argument: Any) -> None:
        self._events += 1
        if self._events == self._death.event:
            _die()

    def report(self, file: str) -> None:
        Path(file).write_text("\n".join([str(self._events), *self._points]), encoding="utf-8")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def live(journal: str, death: Death, run_ids: list[str], orders: list[str], report: str = "") -> None:
    """One life: run the transfers of `run_ids`, accept `orders`, go on with whatever is left, and perhaps be killed."""
    mortal = _Mortal(death)

    async def main() -> None:
        # Kills come early on purpose, with nothing done in between: no run is to be parked for that.
        engine = Engine(journal, workflows=[pass_on, fulfil], unload_after=0, max_recoveries=1_000_000)
        engine._failpoint = mortal.failpoint
        async with engine:
            await engine.transact(set_up)
            for run_id in run_ids:
                await pass_on.options(id=run_id).start(10)
            known = await engine.transact(lambda tx: tx.fetch_all(str, "SELECT run FROM orders"))
            for run_id in orders:
                if run_id not in known:
                    await engine.transact(accept, run_id)
            while True:
                await engine.join()
                # What is running now is another process's; if that dies, the next one to open goes on with it.
                if not await engine.count(state=["pending", "suspended"]):
                    return
                await asyncio.sleep(0.001)

    with mortal if death.event or report else nullcontext():
        asyncio.run(main())
    if report:
        mortal.report(report)


# What it leaves ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Books:
    """One look into the file: what the application's tables hold, and what the journal does."""

    sum: int
    bookings: dict[tuple[str, str], int]
    """Numbers of bookings, by run and key."""
    recorded: dict[tuple[str, str], int]
    """The same as the journal has it."""
    orders: Counter[str]
    started: set[str]
    """Runs that orders have started."""
    shipments: Counter[str]
    shipped: set[str]
    """Runs whose shipment the journal has."""

    def check(self, where: str) -> None:
        """Rows and journal say the same, whatever was going on."""
        assert self.sum == SUM, where
        assert self.bookings == self.recorded, where
        assert self.orders == Counter(self.started), where
        assert self.shipments == Counter(self.shipped), where


_NOTHING = Books(SUM, {}, {}, Counter(), set(), Counter(), set())


def books(journal: Path) -> Books:
    """Look at one state of a file, from outside."""
    if not journal.exists():
        return _NOTHING
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        connection.execute("BEGIN")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
        if "accounts" not in tables:
            return _NOTHING

        def column(sql: str) -> list[Any]:
            return [value for (value,) in connection.execute(sql)]

        entries = (
            "SELECT r.id, e.key, json(CAST(e.payload AS TEXT)) FROM durable_entries e "
            "JOIN durable_runs r ON r.no = e.run WHERE e.name = '{}' AND e.outcome = 'value'"
        )
        rows = connection.execute("SELECT run, key, no FROM bookings").fetchall()
        bookings = {(run, key): no for run, key, no in rows}
        assert len(bookings) == len(rows), f"booked twice: {rows}"
        return Books(
            sum=sum(column("SELECT cents FROM accounts")),
            bookings=bookings,
            recorded={(run, key): int(no) for run, key, no in connection.execute(entries.format("transfer"))},
            orders=Counter(column("SELECT run FROM orders")),
            started=set(column("SELECT id FROM durable_runs WHERE workflow = 'fulfil'")),
            shipments=Counter(column("SELECT run FROM shipments")),
            shipped={run for run, _, _ in connection.execute(entries.format("ship"))},
        )
