"""The application's own tables, as far as they are on the disk of a journal in memory."""

from __future__ import annotations

import sqlite3
import time
import weakref
from collections.abc import Callable
from typing import TypeVar

from durable_sqlite._sqlite import connect, statements
from durable_sqlite._sqlite.transactions import BatchUndone, Bench, Failed, Verbs
from durable_sqlite._tables import Work

__all__ = ["UserTables"]

T = TypeVar("T")


class UserTables:
    """An SQLite database in memory; it is made when the first transaction comes.

    Each transaction is one commit of it. A process that dies at a commit of the journal dies before or after all of them.
    """

    def __init__(self) -> None:
        self.bench = Bench(statements.load(), time.monotonic)
        self._connection: sqlite3.Connection | None = None

    @property
    def connection(self) -> sqlite3.Connection:
        """Where the rows are."""
        if self._connection is None:
            self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            weakref.finalize(self, self._connection.close)
            connect.configure(self._connection, synchronous="full")
            # Something of the journal's, so that it can be refused.
            self._connection.execute("CREATE TABLE durable_runs (no INTEGER PRIMARY KEY AUTOINCREMENT)")
            self.bench.take(self._connection)
        return self._connection

    def close(self) -> None:
        """Let the rows go, whoever still holds this."""
        if self._connection is not None:
            self._connection.close()

    def attempt(self, work: Work[T], verbs: Verbs, keep: Callable[[T], bool]) -> T | Failed:
        """Call a body and commit its rows, or undo them."""
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            made = self.bench.attempt(connection, work, verbs, keep)
            connection.execute("COMMIT")
        except BatchUndone as undone:
            return Failed(undone.error)
        except sqlite3.IntegrityError as error:
            return Failed(error)
        else:
            return made
        finally:
            connection.rollback()
