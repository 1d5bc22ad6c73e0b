"""The application's own tables: numbered files, forward only, each in one transaction, under the guard of its code."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .._records import IfExists, NewMessage, NewRun, Sent, Started
from .._tables import Budget, Door, Work
from ..errors import JournalMismatch, UsageError
from .migrate import cut
from .transactions import Bench, Failed

__all__ = ["SchemaFile", "apply", "read"]

_NAME = re.compile(r"(\d{4})_\w+\.sql")
_BUDGET = 3_600.0  # seconds: a schema is changed once, before anything else is done


@dataclass(frozen=True, slots=True)
class SchemaFile:
    """One step of the application's schema."""

    number: int
    path: Path
    digest: bytes
    statements: tuple[str, ...]


def read(folder: Path) -> list[SchemaFile]:
    """All files of a folder by number.

    Raises:
        UsageError: It is not there, or its files are not numbered 1, 2, 3 …, or one of them ends in the middle of a statement.
    """
    if not folder.is_dir():
        raise UsageError(f"the schema's folder {folder} does not exist: make it, with files such as 0001_orders.sql")
    found: list[SchemaFile] = []
    for path in sorted(folder.glob("*.sql")):
        named = _NAME.fullmatch(path.name)
        if named is None or int(named[1]) != len(found) + 1:
            wanted = f"{len(found) + 1:04}_….sql"
            raise UsageError(
                f"{path} is out of order: schema files are named 0001_orders.sql and so on, and {wanted} is next"
            )
        text = path.read_text(encoding="utf-8")
        try:
            statements = tuple(cut(text))
        except ValueError as error:
            raise UsageError(f"{path}: {error}") from None
        found.append(
            SchemaFile(len(found) + 1, path, hashlib.blake2b(text.encode(), digest_size=16).digest(), statements)
        )
    return found


def apply(
    connection: sqlite3.Connection, files: Sequence[SchemaFile], bench: Bench, sql: Mapping[str, str], at: int
) -> None:
    """Apply what the journal lacks; a crash leaves it before or after each file, never between. May be repeated.

    Raises:
        JournalMismatch: A file was changed after it was applied, or more was applied than there are files.
        UsageError: A statement is refused.
        sqlite3.Error: The storage is in trouble.
    """
    applied = _applied(connection, sql)
    _compare(applied, files)
    for file in files[len(applied) :]:
        _apply(connection, file, bench, sql, at)


def _applied(connection: sqlite3.Connection, sql: Mapping[str, str]) -> dict[int, tuple[str, bytes]]:
    return {number: (name, digest) for number, name, digest in connection.execute(sql["schema_applied"]).fetchall()}


def _compare(applied: Mapping[int, tuple[str, bytes]], files: Sequence[SchemaFile]) -> None:
    for number, (name, digest) in applied.items():
        if number > len(files):
            raise JournalMismatch(
                f"the journal has applied {name}, which is not among the {len(files)} schema files: a newer application wrote "
                "it. Bring the file back, or open the journal with that application"
            )
        if files[number - 1].digest != digest:
            raise JournalMismatch(
                f"{files[number - 1].path} was changed after it was applied (as {name}): put it back as it was, and make the "
                "change in a new file"
            )


def _apply(connection: sqlite3.Connection, file: SchemaFile, bench: Bench, sql: Mapping[str, str], at: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Re-check inside: another process may have applied it between the look and the lock.
        if file.number not in _applied(connection, sql):
            work = Work(partial(_run, file), Budget(f"the schema file {file.path.name}", _BUDGET))
            made = bench.attempt(connection, work, _NoRuns(), bool)
            if isinstance(made, Failed):
                raise made.error  # noqa: TRY301 - what it undoes is undone below
            values = {"number": file.number, "name": file.path.name, "digest": file.digest, "at": at}
            connection.execute(sql["schema_apply"], values)
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def _run(file: SchemaFile, door: Door) -> bool:
    for number, statement in enumerate(file.statements, start=1):
        try:
            door.execute(statement, ())
        except (sqlite3.Error, UsageError) as error:
            first = next(line for line in statement.splitlines() if not line.startswith("--"))
            raise UsageError(
                f"{file.path}, statement {number} ({first[:80]}): {error}. Nothing of this file was applied"
            ) from error
    return True


class _NoRuns:
    """A schema starts no runs and sends no messages."""

    def start(self, new: NewRun, if_exists: IfExists, message: NewMessage | None) -> Started:
        """Refuse."""
        del new, if_exists, message
        raise UsageError("a schema starts no runs")

    def signal(self, run_id: str, message: NewMessage) -> Sent:
        """Refuse."""
        del run_id, message
        raise UsageError("a schema sends no messages")
