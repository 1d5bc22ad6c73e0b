"""The limit beside a scenario: the smallest plain `sqlite3` program that makes the same facts durable."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.stopwatch import Stopwatch, Took
from benchmarks.warm import warm_file
from benchmarks.witness import WITNESS

__all__ = ["bare", "insert"]

BATCH = 100
"""Rows in a commit, where many runs can share one."""


@contextmanager
def bare(folder: Path) -> Generator[sqlite3.Connection]:
    """A connection to a new file with a table of outcomes, at full durability."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE entries (run TEXT, key TEXT, payload BLOB, PRIMARY KEY (run, key)) WITHOUT ROWID")
    connection.execute("CREATE TABLE bookings (id INTEGER PRIMARY KEY, number INTEGER NOT NULL)")
    warm_file(folder / "bare.db")
    yield connection
    WITNESS.look()
    connection.close()


def insert(folder: Path, rows: int, rows_in_a_commit: int = BATCH, *, booked: bool = False) -> Took:
    """Insert so many rows, with a row of the application's own beside each if asked for."""
    with bare(folder) as connection:
        watch = Stopwatch()
        for first in range(0, rows, rows_in_a_commit):
            connection.execute("BEGIN IMMEDIATE")
            for row in range(first, min(rows, first + rows_in_a_commit)):
                connection.execute("INSERT INTO entries VALUES (?, ?, ?)", ("run", f"increment#{row}", b"1234"))
                if booked:
                    connection.execute("INSERT INTO bookings (number) VALUES (?)", (row,))
            connection.execute("COMMIT")
        return watch.took()
