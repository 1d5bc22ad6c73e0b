"""Lets a database reach its steady state before anything is timed.

A commit that makes the WAL longer waits for the file system to store the new length as well, and costs two to four times as much
as one that writes over what is there. SQLite lets the WAL grow to about a thousand pages and then begins again at its start. A
side that writes little would be timed while its log grows, and one that writes much would not: so all begin with a log that
has its full length.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from benchmarks.witness import WITNESS
from durable_sqlite import Engine, Tx

__all__ = ["warm_engine", "warm_file"]

_PAGES = 1_300
"""More than the thousand at which SQLite, and our own writer, write the log back."""

_TABLE = "CREATE TABLE bench_scratch (filling BLOB)"
_ROW = "INSERT INTO bench_scratch VALUES (zeroblob(4000))"


def warm_file(database: Path) -> None:
    """Let the log of a database in WAL mode grow to its full length, and begin again at its start."""
    with closing(sqlite3.connect(database, isolation_level=None, timeout=30)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_TABLE)
        for _ in range(_PAGES):
            connection.execute(_ROW)
        connection.execute("COMMIT")
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()[0]
        assert not busy, "somebody reads the database: its log does not begin again"
    WITNESS.note_log(database)


def _fill(tx: Tx) -> None:
    tx.execute(_TABLE)
    for _ in range(_PAGES):
        tx.execute(_ROW)


async def warm_engine(engine: Engine) -> None:
    """The same for a journal, through its engine, whose own writer writes the log back."""
    assert engine.path is not None
    await engine.transact(_fill)
    WITNESS.note_log(engine.path)
