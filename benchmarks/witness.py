"""Tells at what durability a process writes, whichever library opens its connections.

Python reports every SQLite connection that is opened to audit hooks; so a connection can be asked in its own process, while it
is open, for what is in force on it. Nothing is taken from what a library was told or says about itself.
"""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

__all__ = ["WITNESS", "Witness"]

_FULL = 2

_NO_FACTS = frozenset({"durable_sqlite lease"})
"""Threads whose connections store nothing that is acknowledged: only that a worker lives, and a lease lost is taken anew."""


class Witness:
    """Knows the connections that are opened while it watches, and what was in force on them when it looked."""

    def __init__(self) -> None:
        self._connections: list[tuple[sqlite3.Connection, str]] = []
        self._watches = self._listens = False
        self._logs: dict[Path, int] = {}
        self.seen: set[str] = set()
        """What was in force, such as `wal, synchronous=2`."""
        self._grown = 0
        self.weak = False
        """Whether a commit could have been acknowledged before it was on disk."""

    @contextmanager
    def watching(self) -> Generator[None]:
        """Forget what was seen before, and watch."""
        if not self._listens:
            sys.addaudithook(self._hear)  # it can never be taken back
            self._listens = True
        self.seen.clear()
        self.weak, self._watches, self._grown = False, True, 0
        yield
        self._watches = False
        self._connections.clear()
        self._logs.clear()

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._watches and event == "sqlite3.connect/handle" and isinstance(arguments[0], sqlite3.Connection):
            self._connections.append((arguments[0], threading.current_thread().name))

    def note_log(self, database: Path) -> None:
        """From now on the log beside this database should not grow: it has its full length."""
        self._logs[database] = _length(database)

    @property
    def grown(self) -> int:
        """By how many bytes the logs have grown since they were noted, as it was at the last look."""
        return self._grown

    def look(self) -> None:
        """Ask all connections that are open, belong to a file, and may write."""
        self._grown = sum(_length(database) - before for database, before in self._logs.items())
        for known in [*self._connections]:
            connection, thread = known
            try:
                # Our own connections call back into Python, which must not happen while another thread asks them.
                with getattr(connection, "_gate", None) or nullcontext():
                    if thread not in _NO_FACTS and self._ask(connection, "query_only") == 0 and self._file(connection):
                        self._note(self._ask(connection, "journal_mode"), self._ask(connection, "synchronous"))
            except sqlite3.ProgrammingError:
                self._connections.remove(known)  # it is closed, or belongs to a thread that is done with it

    def _note(self, mode: object, synchronous: object) -> None:
        self.seen.add(f"{mode}, synchronous={synchronous}")
        self.weak |= not isinstance(synchronous, int) or synchronous < _FULL

    @staticmethod
    def _ask(connection: sqlite3.Connection, pragma: str) -> object:
        # not by the connection's own row factory, which is the library's
        cursor = connection.cursor()
        cursor.row_factory = None
        [(answer,)] = cursor.execute(f"PRAGMA {pragma}").fetchall()
        return answer

    @staticmethod
    def _file(connection: sqlite3.Connection) -> str:
        cursor = connection.cursor()
        cursor.row_factory = None
        return str(cursor.execute("PRAGMA database_list").fetchall()[0][2])


def _length(database: Path) -> int:
    """Of the log beside a database, which is only asked for its size: to open it would drop SQLite's locks."""
    try:
        return database.with_name(f"{database.name}-wal").stat().st_size
    except FileNotFoundError:
        return 0


WITNESS: Final = Witness()
"""That of this process."""
