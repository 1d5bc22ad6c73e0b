"""What code of the application may do on a connection of ours: SQLite asks here while it prepares a statement.

Set once for each connection: setting an authorizer throws all prepared statements away. So it is always there, and a flag
says whose code runs. A statement that is prepared is not asked about again; that is why the application's statements are
marked, and never meet one of ours in the connection's cache.
"""

from __future__ import annotations

import sqlite3

__all__ = ["PREFIX", "Beside", "Guard", "is_ours"]

PREFIX = "durable_"
"""The names of the journal's own tables, indexes, views and triggers begin with it."""

_SCHEMA = frozenset({"sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"})

_WRITES = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})

_FIRST_IS_A_NAME = _WRITES | {sqlite3.SQLITE_READ, sqlite3.SQLITE_REINDEX}

_RESHAPES = frozenset(
    {
        sqlite3.SQLITE_CREATE_TABLE,
        sqlite3.SQLITE_CREATE_INDEX,
        sqlite3.SQLITE_CREATE_VIEW,
        sqlite3.SQLITE_CREATE_TRIGGER,
        sqlite3.SQLITE_CREATE_VTABLE,
        sqlite3.SQLITE_DROP_TABLE,
        sqlite3.SQLITE_DROP_INDEX,
        sqlite3.SQLITE_DROP_VIEW,
        sqlite3.SQLITE_DROP_TRIGGER,
        sqlite3.SQLITE_DROP_VTABLE,
        sqlite3.SQLITE_ALTER_TABLE,
    }
)

_TEMPORARY = frozenset(
    {
        sqlite3.SQLITE_CREATE_TEMP_TABLE,
        sqlite3.SQLITE_CREATE_TEMP_INDEX,
        sqlite3.SQLITE_CREATE_TEMP_VIEW,
        sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
    }
)

# They only tell. Tables for full text and for ranges ask for the last two by themselves.
_TELLING = frozenset(
    {
        "table_info",
        "table_xinfo",
        "table_list",
        "index_list",
        "index_info",
        "index_xinfo",
        "foreign_key_list",
        "data_version",
        "page_size",
    }
)

_ARGUMENT_SETS = frozenset({"data_version", "page_size"})

_ALONE = "it is one part of a commit that others share, so it can neither begin nor end one. Raise an exception to undo its rows"
_ONE_FILE = (
    "in WAL mode a commit is atomic in each file for itself, so rows in two files cannot be one commit. Keep the tables in "
    "the journal's file, or write to the other file in a step"
)
_PASSING = "it would stay on the journal's connection, where others meet it. Make an ordinary table, and drop it"


def is_ours(name: str | None) -> bool:
    """Whether what has this name is the journal's own."""
    return name is not None and name.lower().startswith(PREFIX)


class Guard:
    """The authorizer of a connection on which code of the application runs now and then."""

    def __init__(self) -> None:
        self.on = False
        """Whether it is the application's code that runs."""
        self.reason: str | None = None
        """Why the last statement was refused, where it was."""
        self.reshapes = False
        """The last statement that was prepared makes, changes or drops something."""

    def reset(self) -> None:
        """Before a statement."""
        self.reason = None
        self.reshapes = False

    def __call__(
        self, action: int, first: str | None, second: str | None, _database: str | None, _inside: str | None
    ) -> int:
        """What SQLite asks."""
        if not self.on:
            return sqlite3.SQLITE_OK
        reason = self._why_not(action, first, second)
        if reason is None:
            return sqlite3.SQLITE_OK
        if self.reason is None:
            self.reason = reason
        return sqlite3.SQLITE_DENY

    def _why_not(self, action: int, first: str | None, second: str | None) -> str | None:
        if _is_free(action, first, second):
            return None
        if action in _FIRST_IS_A_NAME:
            return _not_ours(first) or (self._system(first) if action in _WRITES else None)
        if action in _RESHAPES:
            self.reshapes = True
            # Of a change, the first is the name of the database.
            return (None if action == sqlite3.SQLITE_ALTER_TABLE else _not_ours(first)) or _not_ours(second)
        return _beyond(action, first, second)

    def _system(self, table: str | None) -> str | None:
        """SQLite's own tables are written when a table is made or dropped, and then only."""
        if table is None or not table.startswith("sqlite_") or table in _SCHEMA or self.reshapes:
            return None
        return f"{table} is SQLite's own, and counts for the journal too: a transaction may read it, and not write it"


_JOURNAL_SETTINGS = frozenset(
    {
        "journal_mode",
        "wal_checkpoint",
        "wal_autocheckpoint",
        "locking_mode",
        "synchronous",
        "mmap_size",
        "application_id",
        "user_version",
        "schema_version",
        "writable_schema",
    }
)


class Beside:
    """The authorizer of a connection that is the application's own: it may read what is the journal's, and not change it."""

    def __init__(self) -> None:
        self.reason: str | None = None
        """Why something was refused last, until somebody took it."""

    def __call__(
        self, action: int, first: str | None, second: str | None, _database: str | None, _inside: str | None
    ) -> int:
        """What SQLite asks."""
        reason = self._why_not(action, first, second)
        if reason is None:
            return sqlite3.SQLITE_OK
        self.reason = reason
        return sqlite3.SQLITE_DENY

    def _why_not(self, action: int, first: str | None, second: str | None) -> str | None:
        match action:
            case sqlite3.SQLITE_ATTACH:
                return f"ATTACH is refused: {_ONE_FILE}"
            case sqlite3.SQLITE_PRAGMA if (second and first in _JOURNAL_SETTINGS) or first == "wal_checkpoint":
                return f"PRAGMA {first} is refused: the engine sees to what it sets"
            case _ if (action in _WRITES and is_ours(first)) or (
                action in _RESHAPES and (is_ours(first) or is_ours(second))
            ):
                return f"whatever begins with {PREFIX} is the journal's own: it may be read, and not changed"
            case _:
                return None


def _not_ours(name: str | None) -> str | None:
    if not is_ours(name):
        return None
    return (
        f"{name} is refused in a transaction: whatever begins with {PREFIX} is the journal's own, to be neither read nor "
        "changed there. Start and signal runs by the transaction, and look at them by the engine"
    )


def _is_free(action: int, first: str | None, second: str | None) -> bool:
    """Whether it touches nothing by itself."""
    match action:
        case sqlite3.SQLITE_SELECT | sqlite3.SQLITE_RECURSIVE:
            return True
        case sqlite3.SQLITE_FUNCTION:
            return second != "load_extension"
        case sqlite3.SQLITE_PRAGMA:
            return first in _TELLING and not (second and first in _ARGUMENT_SETS)
        case _:
            return False


def _beyond(action: int, first: str | None, second: str | None) -> str:
    """Why it is refused to do something else than to use tables."""
    match action:
        case sqlite3.SQLITE_PRAGMA:
            return f"PRAGMA {first} is refused in a transaction: what it sets holds for the whole journal"
        case sqlite3.SQLITE_TRANSACTION | sqlite3.SQLITE_SAVEPOINT:
            return f"{first} is refused in a transaction: {_ALONE}"
        case sqlite3.SQLITE_ATTACH | sqlite3.SQLITE_DETACH:
            what = "ATTACH" if action == sqlite3.SQLITE_ATTACH else "DETACH"
            return f"{what} is refused in a transaction: {_ONE_FILE}"
        case _ if action in _TEMPORARY:
            return f"{first} is refused in a transaction, because it is temporary: {_PASSING}"
        case _:
            what = "ANALYZE" if action == sqlite3.SQLITE_ANALYZE else second or first or f"action {action}"
            return f"{what} is refused in a transaction: it reaches beyond the application's own tables"
