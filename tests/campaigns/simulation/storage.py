"""The one disk under all processes, and what is wrong with it: locks, no room, I/O errors with either outcome."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from durable_sqlite._sqlite import SqliteJournal, connect
from durable_sqlite._sqlite.link import JobConnection
from tests.sqlite.faults import FULL, IOERR

__all__ = ["Mount", "SimJournal", "Storage"]


class Storage:
    """What is wrong with the disk.

    Args:
        path: The journal's file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.full = False
        """No COMMIT finds room."""
        self.stuck = False
        """Nothing that writes even begins."""
        self.faults = 0
        """How often a statement was refused."""
        self._shell = sqlite3.connect(path, isolation_level=None, timeout=0)

    def lock(self) -> None:
        """A foreign program takes the write lock."""
        with suppress(sqlite3.OperationalError):  # it has it already
            self._shell.execute("BEGIN IMMEDIATE")

    def unlock(self) -> None:
        """It lets go."""
        self._shell.rollback()

    def close(self) -> None:
        """The foreign program ends."""
        self._shell.close()


class Mount:
    """The disk as one process sees it.

    Args:
        storage: The disk.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.doubts: list[bool] = []
        """What becomes of the next COMMITs, each of which fails: whether it is stored all the same."""
        self.unreadable = False
        """No look at the tables comes back."""

    def execute(self, connection: sqlite3.Connection, sql: str, call: Callable[[str], Any]) -> Any:
        """Execute a statement, unless it fails."""
        storage = self._storage
        if sql.startswith("COMMIT"):
            if storage.full:
                storage.faults += 1
                connection.rollback()
                raise FULL
            if self.doubts:
                storage.faults += 1
                if self.doubts.pop(0):
                    call(sql)
                else:
                    connection.rollback()
                raise IOERR
        elif sql.startswith("BEGIN IMMEDIATE") and storage.stuck:
            storage.faults += 1
            raise FULL
        elif self.unreadable and sql.lstrip().startswith(("SELECT", "WITH", "--")) and not connection.in_transaction:
            storage.faults += 1
            raise IOERR
        elif sql.startswith("PRAGMA busy_timeout"):
            sql = "PRAGMA busy_timeout = 0"  # SQLite would wait in the machine's time
        return call(sql)

    def connection(self) -> type[JobConnection]:
        """The class of the connections through which the process sees it."""
        mount = self

        class Connection(JobConnection):
            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                execute = super().execute
                cursor: sqlite3.Cursor = mount.execute(self, sql, lambda said: execute(said, parameters))
                return cursor

        return Connection

    def plain_connection(self) -> type[sqlite3.Connection]:
        """The same for what no link opens."""
        mount = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                execute = super().execute
                cursor: sqlite3.Cursor = mount.execute(self, sql, lambda said: execute(said, parameters))
                return cursor

        return Connection


class SimJournal(SqliteJournal):
    """The journal's real adapter, whose connections all see the disk through one process's mount."""

    def __init__(self, mount: Mount, path: str, **options: Any) -> None:
        super().__init__(path, connection=mount.connection(), **options)
        self._plain = mount.plain_connection()

    def _connect_vigil(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._address(), uri=True, isolation_level=None, timeout=0, factory=self._plain)
        connect.configure(connection, synchronous="normal")
        return connection
