"""A journal as a command that only looks opens it: nothing is created, migrated or written, whoever else has it open."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Mapping
from types import TracebackType

from .._sqlite.statements import parse
from ._light import TYPE_CHECKING, NamedTuple
from ._settings import Setting
from ._trouble import BUSY, NO_SUCH_RUN, REFUSED, USAGE, Trouble

if TYPE_CHECKING:
    from typing import Any, Self, TypeVar

    T = TypeVar("T")

__all__ = ["Journal", "RunKey", "Tables", "address", "known_version", "statements"]

APPLICATION_ID = 0x44755271
"""Of every journal; `_sqlite.connect` has the same, and imports more than a look needs."""

_PATIENCE = 2.0  # seconds that SQLite waits for a lock
_TRIES = 3
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~/")
_SHOWN = 10  # runs that are listed where a text fits several


class RunKey(NamedTuple):
    """A run that was found by what a person typed."""

    no: int
    id: str


def statements() -> Mapping[str, str]:
    """The statements of the command line by name."""
    with open(os.path.join(os.path.dirname(__file__), "look.sql"), encoding="utf-8") as file:  # noqa: PTH118, PTH120, PTH123
        return parse(file.read())


def known_version() -> int:
    """The number of the last migration of this version of the library."""
    package = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120
    for folder in (os.path.join(package, "migrations"), os.path.join(os.path.dirname(package), "migrations")):  # noqa: PTH118, PTH120
        if os.path.isfile(os.path.join(folder, "0001_foundation.sql")):  # noqa: PTH113, PTH118
            return max(int(name[:4]) for name in os.listdir(folder) if name.endswith(".sql"))  # noqa: PTH208
    raise Trouble("this installation has no migrations", "install durable_sqlite again", code=REFUSED)


def address(path: str, how: str) -> str:
    """The address under which SQLite opens exactly this file, whatever characters its name has."""
    whole = os.fsencode(os.path.abspath(path))  # noqa: PTH100
    return f"file:{''.join(chr(byte) if byte in _PLAIN else f'%{byte:02X}' for byte in whole)}?{how}"


def _text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


class Tables:
    """A connection that reads, and the statements that are used on it."""

    def __init__(self, connection: sqlite3.Connection, sql: Mapping[str, str]) -> None:
        self.connection = connection
        self.sql = sql

    def all(self, name: str, /, **parameters: object) -> list[Any]:
        """Every row of a named statement, fetched at once: an open cursor would hold up the WAL."""
        return self.ask(self.sql[name], parameters)

    def first(self, name: str, /, **parameters: object) -> Any:
        """The first row, or None."""
        rows = self.all(name, **parameters)
        return rows[0] if rows else None

    def ask(self, sql: str, parameters: Mapping[str, object]) -> list[Any]:
        """Every row of a statement that was put together."""
        try:
            return self.connection.execute(sql, parameters).fetchall()
        except UnicodeEncodeError as error:
            raise Trouble(f"{error.object!r} is no text, since UTF-8 cannot hold it") from None
        except UnicodeDecodeError as error:
            # What SQLite says of a file may quote it; Python wants that to be a text.
            raise sqlite3.DatabaseError("SQLite names something in the file that is no text") from error

    def pragma(self, name: str) -> Any:
        """The value of a pragma that has one."""
        ((value,),) = self.ask(f"PRAGMA {name}", {})
        return value


class Journal:
    """A journal that is only read, as a context manager.

    A journal that nobody has open has no WAL beside it. It is then read without SQLite's locks, because with them SQLite
    would leave two files behind; if it changes meanwhile, the look is repeated with them.

    Args:
        setting: Its path, and where that was found.
        note: Is told what a person should know of it.
        any_version: Read it also where it has to be migrated first.
    """

    def __init__(self, setting: Setting, note: Callable[[str], object], *, any_version: bool = False) -> None:
        self.path = setting.value
        self._source = setting.source
        self._note = note
        self._any_version = any_version
        self._sql = statements()
        self._connection: sqlite3.Connection | None = None
        self._still: tuple[int, ...] | None = None
        self.version = 0
        """Of its schema."""

    def __enter__(self) -> Self:
        self._check_file()
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        self._close()

    def read(self, look: Callable[[Tables], T]) -> T:
        """What `look` finds; all of it is of one moment."""
        for _ in range(_TRIES):
            tables = self._tables()
            tables.connection.execute("BEGIN")
            try:
                found = look(tables)
            except sqlite3.Error:
                if self._is_as_it_was():
                    raise
            except UnicodeDecodeError as error:  # SQLite quotes a damaged text in its message
                if self._is_as_it_was():
                    raise sqlite3.DatabaseError("SQLite names something in the file that is no text") from error
            else:
                if self._is_as_it_was():
                    return found
            finally:
                if tables.connection.in_transaction:
                    tables.connection.rollback()
            self._open()
        raise Trouble(f"{self.path} is opened and closed all the time", "try again in a moment", code=BUSY)

    def pulse(self) -> object:
        """Something that differs once anybody has written."""
        if not self._is_as_it_was():
            self._open()
        return self._still or self._tables().pragma("data_version"), id(self._connection)

    @property
    def is_live(self) -> bool:
        """Whether there is a WAL: somebody has it open, or died with it open."""
        return self._still is None

    def _tables(self) -> Tables:
        if self._connection is None:
            self._open()
        assert self._connection is not None
        return Tables(self._connection, self._sql)

    # Opening ---------------------------------------------------------------------------------------------------------

    def _check_file(self) -> None:
        """See that there is a journal, without a trace."""
        if not self.path or self.path.startswith(":memory:"):
            raise Trouble(f"{self.path!r} names no file ({self._source})", "a journal in memory ends with its program")
        try:
            kind = os.stat(self.path)  # noqa: PTH116
        except FileNotFoundError:
            raise Trouble(
                f"there is no journal {self.path} ({self._source}); nothing was created",
                f"a program makes it when it first opens its engine: async with Engine({self.path!r})",
                "or name another file with --db FILE",
            ) from None
        except ValueError as error:
            raise Trouble(f"{self.path!r} names no file ({error})") from None
        if not stat.S_ISREG(kind.st_mode):
            raise Trouble(f"{self.path} is no file, so it is no journal ({self._source})")
        if kind.st_size == 0:
            raise Trouble(
                f"{self.path} is empty, so it is no journal yet ({self._source}); it was not touched",
                "a program makes it one when it opens its engine",
                code=REFUSED,
            )
        # "immutable" reads the first page and nothing else: no lock, no WAL, no shared memory, no trace.
        application_id = -1
        connection = self._connect("mode=ro&immutable=1")
        try:
            application_id = Tables(connection, self._sql).pragma("application_id")
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_NOTADB:
                raise
        finally:
            connection.close()
        if application_id != APPLICATION_ID:
            what = "no SQLite database" if application_id == -1 else "an SQLite database of another application"
            raise Trouble(
                f"{self.path} is {what}, so it is no journal ({self._source}); it was not touched",
                "name the journal with --db FILE",
                code=REFUSED,
            )

    def _open(self) -> None:
        self._close()
        self._still = self._stillness()
        self._connection = self._connect("mode=ro" if self._still is None else "mode=ro&immutable=1")
        for pragma in ("query_only = ON", "trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        self._check_version()

    def _connect(self, how: str) -> sqlite3.Connection:
        connection = sqlite3.connect(address(self.path, how), uri=True, isolation_level=None, timeout=_PATIENCE)
        # What is not UTF-8 is damaged, and is shown all the same.
        connection.text_factory = _text_of
        return connection

    def _check_version(self) -> None:
        before, self.version = self.version, self._tables().pragma("user_version")
        known = known_version()
        if self.version < known and not self._any_version:
            raise Trouble(
                f"{self.path} has schema {self.version}, this version of durable_sqlite reads {known}",
                "bring it up to date with `durable_sqlite migrate`; every engine that opens it does so too",
                code=REFUSED,
            )
        if self.version > known and before == 0:
            self._note(
                f"{self.path} was written by a newer durable_sqlite (schema {self.version}, this one knows {known}): "
                "what is new in it is not shown"
            )

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _stillness(self) -> tuple[int, ...] | None:
        """What the file looks like while nobody has it open; None where somebody may have."""
        if os.path.exists(f"{self.path}-wal"):  # noqa: PTH110
            return None
        try:
            seen = os.stat(self.path)  # noqa: PTH116
        except FileNotFoundError:
            return None
        return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns

    def _is_as_it_was(self) -> bool:
        return self._still is None or self._still == self._stillness()

    # Runs ------------------------------------------------------------------------------------------------------------

    def find(self, tables: Tables, typed: str) -> RunKey:
        """The one run that is meant: by its id, a beginning or an ending of it that no other run has, or `@`, the newest.

        Raises:
            Trouble: There is none, or there are several.
        """
        if typed == "@":
            newest = tables.first("newest")
            if newest is None:
                raise self._unknown(tables, typed)
            return RunKey(*newest)
        exact = tables.first("exactly", id=typed) if typed else None
        if exact is not None:
            return RunKey(*exact)
        found: dict[int, str] = {}
        if typed:
            found = dict(tables.all("beginning", typed=typed, behind=f"{typed}\U0010ffff", limit=_SHOWN + 1))
            found |= dict(tables.all("ending", typed=typed, limit=_SHOWN + 1))
        if not found:
            raise self._unknown(tables, typed)
        if len(found) > 1:
            listed = [f"  {each}" for each in list(found.values())[:_SHOWN]]
            more = ["  …"] if len(found) > _SHOWN else []
            raise Trouble(
                f"{typed!r} fits more than one run of {self.path}", *listed, *more, "type more of it", code=USAGE
            )
        ((no, run_id),) = found.items()
        return RunKey(no, run_id)

    def _unknown(self, tables: Tables, typed: str) -> Trouble:
        if not tables.first("any_run")[0]:
            return Trouble(f"{self.path} holds no runs", code=NO_SUCH_RUN)
        return Trouble(
            f"{self.path} holds no run whose id is, begins with or ends in {typed!r}",
            "see them with `durable_sqlite list`; `@` is the newest",
            code=NO_SUCH_RUN,
        )
