"""Looks at a journal's file without opening it as an engine does: nothing is created, migrated or written."""

from __future__ import annotations

import os
import sqlite3
from types import TracebackType
from typing import Self, TypeVar

from ..errors import JournalError, JournalMismatch, JournalTooNew, NotAJournal
from . import queries
from .connect import configure, inspect, uri
from .faults import STORAGE_ERRORS, translate
from .migrate import find, read
from .rows import Tables
from .statements import load

__all__ = ["Glance"]

T = TypeVar("T")

_PATIENCE = 2.0  # seconds that SQLite waits for a lock
_TRIES = 3


def _nothing(_: str) -> None:
    """The failpoint of what makes nothing."""


class Glance:
    """A journal that is only read, whoever else has it open; a context manager, for one thread.

    A journal that nobody has open has no WAL beside it. It is then read without SQLite's locks, because with them SQLite
    would leave two files behind; if it changes meanwhile, the look is repeated with them.

    Args:
        path: The absolute path of the file.
        codec: The name of the codec that whoever looks has; empty for none.

    Raises:
        NotAJournal: The file is something else.
        JournalError: There is none, or it cannot be read, or an older version of this library wrote it.
        JournalTooNew: A newer version wrote it.
        JournalMismatch: It was created with another codec.
    """

    def __init__(self, path: str, codec: str) -> None:
        self._path = path
        self._codec = codec
        self._sql = load()
        self._connection: sqlite3.Connection | None = None
        self._still: tuple[int, ...] | None = None

    def __enter__(self) -> Self:
        try:
            size = os.stat(self._path).st_size  # noqa: PTH116 - a path here is a text, as SQLite has it
        except OSError as error:
            raise JournalError(f"there is no journal {self._path} ({error.strerror}); nothing was created") from error
        if size == 0:
            raise NotAJournal(f"{self._path} is empty, so it is no journal yet; it was not touched")
        inspect(self._path, _nothing, network=True)
        try:
            self.read(self._check)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self._close()

    def read(self, look: queries.Look[T]) -> T:
        """What `look` finds; all of it is of one moment.

        Raises:
            JournalError: The file cannot be read.
        """
        for _ in range(_TRIES):
            try:
                found = queries.snapshot(Tables(self._opened(), self._sql), look)
            except STORAGE_ERRORS as error:
                if self._is_as_it_was():
                    raise translate(error, path=self._path) from error
            else:
                if self._is_as_it_was():
                    return found
            self._close()
        raise JournalError(f"{self._path} is opened and closed all the time: try again in a moment")

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._still = self._stillness()
            how = "mode=ro" if self._still is None else "mode=ro&immutable=1"
            self._connection = sqlite3.connect(uri(self._path, how), uri=True, isolation_level=None, timeout=_PATIENCE)
            configure(self._connection, synchronous="full", readonly=True)
        return self._connection

    def _check(self, tables: Tables) -> None:
        ((version,),) = tables.connection.execute("PRAGMA user_version").fetchall()
        known = len(read(find()))
        if version > known:
            raise JournalTooNew(
                f"{self._path} has schema {version}, this version of durable_sqlite knows {known}: use a newer one"
            )
        if version < known:
            raise JournalError(
                f"{self._path} has schema {version}, this version of durable_sqlite reads {known}: bring it, or a copy of it, "
                "up to date with `durable_sqlite migrate`"
            )
        kept = tables.first("meta_value", {"name": "codec"})
        name = "" if kept is None else kept[0]
        if name != self._codec:
            raise JournalMismatch(
                f"{self._path} was created with the codec {name or 'none'!r}, and is looked at with "
                f"{self._codec or 'none'!r}: give the codec that wrote it"
            )

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _stillness(self) -> tuple[int, ...] | None:
        """What the file looks like while nobody has it open; None where somebody may have."""
        if os.path.exists(f"{self._path}-wal"):  # noqa: PTH110
            return None
        try:
            seen = os.stat(self._path)  # noqa: PTH116
        except FileNotFoundError:
            return None
        return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns

    def _is_as_it_was(self) -> bool:
        return self._still is None or self._still == self._stillness()
