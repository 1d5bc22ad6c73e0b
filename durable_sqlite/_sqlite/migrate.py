"""Brings a journal's schema up to date: numbered files, forward only, each in one transaction."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from ..errors import JournalError, JournalTooNew

__all__ = ["Migration", "cut", "find", "migrate", "read"]

_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    number: int
    name: str
    statements: tuple[str, ...]


def cut(script: str) -> Iterator[str]:
    """Cut a script into its statements, as SQLite itself sees where they end.

    Raises:
        ValueError: The last statement is not finished.
    """
    statement = ""
    *parts, rest = script.split(";")
    for part in parts:
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""
    unfinished = _COMMENT.sub("", statement + rest).strip()
    if unfinished:
        raise ValueError(f"its last statement does not end; a semicolon ends one: {unfinished[:200]}")


def find(package: Traversable | None = None, checkout: Path | None = None) -> Traversable:
    """The folder of migrations: inside the installed package, or at the top of the checkout of an editable install.

    Raises:
        JournalError: There is none, so the installation is incomplete.
    """
    inside = (package or resources.files("durable_sqlite")) / "migrations"
    if inside.is_dir():
        return inside
    beside = (checkout or Path(__file__).parents[2]) / "migrations"
    # Any folder may happen to be named so: only one with our first file is ours.
    if (beside / "0001_foundation.sql").is_file():
        return beside
    raise JournalError(f"this installation has no migrations, neither in {inside} nor in {beside}: install it again")


def read(folder: Traversable) -> list[Migration]:
    """All migrations of a folder by number.

    Raises:
        ValueError: Their numbers are not 1, 2, 3 …
    """
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    found = [Migration(int(file.name[:4]), file.name, tuple(cut(file.read_text(encoding="utf-8")))) for file in files]
    if [each.number for each in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"migrations must be numbered without a gap: {[each.name for each in found]}")
    return found


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchall()[0][0]
    return version


def migrate(
    connection: sqlite3.Connection, migrations: Sequence[Migration], *, path: str, failpoint: Callable[[str], None]
) -> None:
    """Apply what the journal lacks; a crash leaves it before or after each migration, never between.

    Raises:
        JournalTooNew: A newer version of this library wrote the journal.
    """
    version = _version(connection)
    if version > len(migrations):
        raise JournalTooNew(
            f"{path} has schema {version}, this version of durable_sqlite knows {len(migrations)}: "
            "upgrade durable_sqlite, or open another journal"
        )
    for migration in migrations[version:]:
        _apply(connection, migration, failpoint)


def _apply(connection: sqlite3.Connection, migration: Migration, failpoint: Callable[[str], None]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Re-check inside: another process may have applied it between the look and the lock.
        if _version(connection) < migration.number:
            for statement in migration.statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {migration.number}")
        failpoint("migrate.before_commit")
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise
    failpoint("migrate.after_commit")
