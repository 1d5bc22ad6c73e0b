"""One that writes the WAL back and one that commits, in the arrangement in which damage was seen on the builds concerned.

The database is large, and whoever writes the WAL back has read it whole. A few pages are written and moved back, so that the
next commit may begin the WAL anew; then both go on at once.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from durable_sqlite._sqlite import connect
from durable_sqlite._sqlite.checkpoints import Checkpoints
from durable_sqlite._sqlite.link import JobConnection, Link

from .careless import Reckless

__all__ = ["duel"]

_PAGES = 65_536  # of 4 KiB
_SHAKEN = 20  # pages that are written in each round


def _nothing(_name: str) -> None:
    """The failpoint that never fails."""


class _Canary:
    """Commits one row after the other, on a thread of its own, for as long as it is let."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.committed = 0
        self.trouble: list[str] = []

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._connection.execute("INSERT INTO canary VALUES (?)", (self.committed + 1,))
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                    continue
                self.trouble.append(str(error))
                return
            self.committed += 1


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=1, check_same_thread=False)
    connect.configure(connection, synchronous="normal")
    return connection


def _fill(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.executescript(
            "CREATE TABLE payload (id INTEGER PRIMARY KEY, data BLOB); CREATE TABLE canary (id INTEGER PRIMARY KEY); BEGIN;"
            f"WITH RECURSIVE s (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM s WHERE n < {_PAGES})"
            "INSERT INTO payload SELECT n, zeroblob(3900) FROM s; COMMIT"
        )
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def duel(
    path: Path, rounds: int, *, careless: bool, go_on: Callable[[], bool] = lambda: True
) -> tuple[int, int, list[str]]:
    """Play so many rounds; how many were played, how many commits there were, and what was damaged or is missing."""
    _fill(path)
    return asyncio.run(_duel(path, rounds, Reckless if careless else JobConnection, go_on))


async def _duel(
    path: Path, rounds: int, kind: type[JobConnection], go_on: Callable[[], bool]
) -> tuple[int, int, list[str]]:
    played = 0
    link = Link(connect.uri(str(path), "mode=rw"), connection=kind)
    limit = connect.CHECKPOINT_BYTES
    checkpoints = Checkpoints(str(path), None, limit=limit, alarm=limit, now=lambda: 0.0, failpoint=_nothing)
    await link.open()
    await link.run(lambda connection: connect.configure(connection, synchronous="normal"))
    with closing(_opened(path)) as helper, closing(_opened(path)) as writer:
        canary = _Canary(writer)
        try:
            while played < rounds and not canary.trouble and go_on():
                played += 1
                await link.run(
                    lambda all_: all_.execute("SELECT count(*) FROM payload WHERE data IS NOT NULL").fetchall()
                )
                helper.execute(f"UPDATE payload SET data = randomblob(3900) WHERE id <= {_SHAKEN}")
                # PASSIVE, and nobody commits meanwhile: it leaves the WAL as it is, to be begun anew by the next commit.
                helper.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                await _both(canary, checkpoints, link)
                ((found,),) = helper.execute("SELECT count(*) FROM canary").fetchall()
                if found < canary.committed:
                    canary.trouble.append(f"{canary.committed} commits were acknowledged, {found} are there")
            helper.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            ((sound,),) = helper.execute("PRAGMA quick_check(1)").fetchall()
            if sound != "ok":
                canary.trouble.append(sound)
        except sqlite3.DatabaseError as error:
            canary.trouble.append(str(error))
    await link.close()
    return played, canary.committed, canary.trouble


async def _both(canary: _Canary, checkpoints: Checkpoints, link: Link) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=canary.run, args=(stop,))
    thread.start()
    try:
        await checkpoints.write_back(link, "RESTART")
    finally:
        stop.set()
        thread.join()
