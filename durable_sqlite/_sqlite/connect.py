"""How a journal is opened: refused untouched when it is not ours, created private, configured for durability."""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast
from urllib.parse import quote

from ..errors import JournalError, NotAJournal
from .authorizer import Beside
from .faults import STORAGE_ERRORS, translate
from .migrate import Migration, migrate
from .mounts import find_network

__all__ = [
    "APPLICATION_ID",
    "CHECKPOINT_BYTES",
    "MEMORY",
    "Synchronous",
    "configure",
    "for_the_application",
    "inspect",
    "prepare",
    "uri",
]

Synchronous = Literal["full", "normal"]

APPLICATION_ID = 0x44755271  # "DuRq", read as a signed number of 32 bits
MEMORY = ":memory:"
CHECKPOINT_BYTES = 4 * 1024 * 1024
_PATIENCE = 5.0  # seconds
_JOURNAL_HEADER = struct.Struct(">8s8xI")  # of SQLite's rollback journal: magic, and how many pages there were before
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_OLDEST_SQLITE = (3, 37, 0)  # STRICT tables


def uri(path: str, mode: str) -> str:
    """The address under which SQLite opens exactly this file, whatever characters its name has."""
    return f"file:{quote(os.fsencode(path))}?{mode}"


def inspect(path: str, failpoint: Callable[[str], None], *, network: bool = False) -> None:
    """Create the file if it is not there; refuse it untouched if it is not a journal.

    Raises:
        NotAJournal: The file is something else.
        JournalError: It cannot be created or opened at all, or is on a network file system and `network` is not said.
    """
    if not network and (kind := find_network(path)) is not None:
        raise JournalError(
            f"{path} is on a network file system ({kind}), where SQLite's locks and its WAL cannot be relied on: writes that "
            "were acknowledged could vanish. Name a file on a local disk; Engine(network=True) opens it all the same"
        )
    try:
        if _create(path):
            failpoint("open.created")
            return
        # A creation that was cut short leaves an empty file behind, and another process may be in the middle of one:
        # there is nothing in it that could be harmed.
        if Path(path).stat().st_size == 0 or _is_undone(path):
            return
        # "immutable" reads the first page and nothing else: no lock, no WAL, no shared memory, no trace.
        with closing(sqlite3.connect(uri(path, "mode=ro&immutable=1"), uri=True)) as connection:
            # In the middle of a checkpoint, and for as long as one stays cut short by a kill, that page tells of more
            # pages than there are: SQLite calls that damage, unless it is told to look on. The WAL has them all.
            connection.execute("PRAGMA writable_schema = ON").fetchall()
            _check_owner(connection, path)
    except OSError as error:
        raise JournalError(
            f"{path} cannot be opened ({error.strerror}): see that its folder is there and may be written"
        ) from error
    except STORAGE_ERRORS as error:
        raise translate(error, path=path) from error


def _create(path: str) -> bool:
    """Create the file for its owner alone; False if it is there already."""
    try:
        # Closing this descriptor drops no lock of SQLite: the file is new, so no connection of this process has it.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return False
    folder = os.open(Path(path).parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True


def _is_undone(path: str) -> bool:
    """Whether the first transaction on the file was cut short: SQLite will undo it when it opens the file, down to nothing.

    Until then a power cut may have left any part of the first page, so the file itself does not tell what it is.
    """
    try:
        with Path(f"{path}-journal").open("rb") as journal:  # SQLite holds no locks on that one
            header: tuple[bytes, int] = _JOURNAL_HEADER.unpack(journal.read(_JOURNAL_HEADER.size))
    except (FileNotFoundError, struct.error):
        return False
    return header == (_JOURNAL_MAGIC, 0)


def _check_owner(connection: sqlite3.Connection, path: str) -> None:
    application_id: int = connection.execute("PRAGMA application_id").fetchall()[0][0]
    if application_id != APPLICATION_ID:
        raise NotAJournal(
            f"{path} is an SQLite database of another application (application_id {application_id:#x}); "
            "it was not touched. Name another file for the journal"
        )


def configure(connection: sqlite3.Connection, *, synchronous: Synchronous, readonly: bool = False) -> None:
    """Set what SQLite does not remember in the file."""
    for pragma in (
        f"synchronous = {synchronous.upper()}",
        "fullfsync = ON",  # macOS: only this reaches the disk. No other system knows it.
        "checkpoint_fullfsync = ON",
        "foreign_keys = ON",
        "trusted_schema = OFF",
        "cell_size_check = ON",
        "temp_store = MEMORY",
        "mmap_size = 0",  # with the next line: stay clear of the WAL-reset bug of SQLite before 3.51.3
        "wal_autocheckpoint = 0",
        f"journal_size_limit = {CHECKPOINT_BYTES}",
        "cache_spill = OFF",
        f"query_only = {'ON' if readonly else 'OFF'}",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()


class _Cursor(sqlite3.Cursor):
    """Says why a statement was refused: SQLite itself knows only that it was."""

    def execute(self, *args: Any) -> Self:
        with _reasons(self.connection):
            return super().execute(*args)

    def executemany(self, *args: Any) -> Self:
        with _reasons(self.connection):
            return super().executemany(*args)

    def executescript(self, sql: str, /) -> Self:
        with _reasons(self.connection):
            super().executescript(sql)
        return self


class OwnConnection(sqlite3.Connection):
    """A connection for the application's own use; as a context manager it commits or rolls back, and closes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.beside = Beside()

    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)

    def execute(self, *args: Any) -> Any:
        return self.cursor().execute(*args)

    def executemany(self, *args: Any) -> Any:
        return self.cursor().executemany(*args)

    def executescript(self, sql: str, /) -> Any:
        return self.cursor().executescript(sql)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> Literal[False]:
        try:
            if self.in_transaction:
                self.execute("COMMIT" if kind is None else "ROLLBACK")
        finally:
            self.close()
        return False


@contextmanager
def _reasons(connection: sqlite3.Connection) -> Generator[None]:
    beside = cast("OwnConnection", connection).beside
    beside.reason = None
    try:
        yield
    except sqlite3.DatabaseError as error:
        if beside.reason is not None:
            error.args = (f"{error}: {beside.reason}",)
        raise


def for_the_application(path: str, *, synchronous: Synchronous) -> OwnConnection:
    """A connection to the journal's file that leaves what is the journal's alone, and waits five seconds for a lock.

    Raises:
        JournalError: It cannot be had now. What its statements raise is sqlite3's own.
    """
    try:
        connection = sqlite3.connect(
            uri(path, "mode=rw"),
            uri=True,
            isolation_level=None,
            timeout=_PATIENCE,
            check_same_thread=False,
            factory=OwnConnection,
        )
        try:
            configure(connection, synchronous=synchronous)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise translate(error, path=path) from error
    connection.set_authorizer(connection.beside)
    return connection


def prepare(
    connection: sqlite3.Connection,
    migrations: Sequence[Migration],
    *,
    path: str,
    synchronous: Synchronous,
    failpoint: Callable[[str], None],
) -> None:
    """Make the connection a writer's one on a journal that is up to date. May be repeated after any error.

    Raises:
        JournalTooNew: A newer version of this library wrote the journal.
        JournalError: The SQLite library is too old, or the file system cannot do WAL.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise JournalError(f"SQLite {sqlite3.sqlite_version} is linked; 3.37 or newer is needed")
    _own(connection, path)
    mode: str = connection.execute("PRAGMA journal_mode = WAL").fetchall()[0][0]
    if mode not in ("wal", "memory"):
        raise JournalError(f"{path} cannot be put into WAL mode (it stays in {mode}): use a local file system")
    configure(connection, synchronous=synchronous)
    migrate(connection, migrations, path=path, failpoint=failpoint)


def _own(connection: sqlite3.Connection, path: str) -> None:
    """Sign an empty file as ours; anything else has to be signed already."""
    if connection.execute("PRAGMA page_count").fetchall()[0][0] == 0:
        # Signed before WAL is switched on, so that the first page says it from the first byte on: `inspect` reads
        # nothing else.
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    _check_owner(connection, path)
