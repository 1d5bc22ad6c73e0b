"""What a storage error means: the one place where errors of sqlite3 are read.

Judged by the code, never by the text. An error that time heals is waited for; what is left is one operation's own.
"""

from __future__ import annotations

import sqlite3
from enum import Enum, auto

from ..errors import JournalDamaged, JournalError, JournalGone, NotAJournal

__all__ = [
    "Fault",
    "fault_of",
    "is_conflict",
    "is_damage",
    "is_full",
    "is_interrupt",
    "is_of_the_connection",
    "is_unreadable",
    "name_of",
    "translate",
]

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_STALLED = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_INTERRUPT,
    }
)
_OF_THE_CONNECTION = frozenset(
    {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}
)

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


STORAGE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What sqlite3 raises: the second where SQLite quotes a damaged text in its message."""

_LOCKED = (
    "another connection holds the lock of {path}",
    "Let the program that holds it end its transaction, and try again",
)
_NOT_WRITABLE = (
    "{path} cannot be written",
    "See that the file and its folder may be written and that the file system is not read-only, and try again",
)
_UNFORESEEN = (
    "the storage of {path} gave an answer that waiting does not heal",
    "Nothing of this call was stored. If nothing but this library writes to the file, please report it",
)
_MEANINGS = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_PROTOCOL: _LOCKED,
    sqlite3.SQLITE_FULL: ("there is no room for {path}", "Free some space or raise the quota, and try again"),
    sqlite3.SQLITE_IOERR: (
        "the disk under {path} does not do what it is told",
        "Look into the system's log for what is wrong with it, and try again",
    ),
    sqlite3.SQLITE_READONLY: _NOT_WRITABLE,
    sqlite3.SQLITE_PERM: _NOT_WRITABLE,
    sqlite3.SQLITE_CANTOPEN: (
        "{path}, its -wal or its -shm cannot be opened",
        "See that its folder may be written and that this process has not too many files open, and try again",
    ),
    sqlite3.SQLITE_NOMEM: (
        "there is no memory left to work with {path}",
        "Give the process more memory, or let it do less at once",
    ),
    sqlite3.SQLITE_INTERRUPT: ("a statement on {path} was interrupted", "Nothing of it was stored; try again"),
}
"""By code: what it means, and the next move."""


class Fault(Enum):
    """What to do about a storage error."""

    BUSY = auto()
    """Somebody else holds the lock: wait for it."""
    STALLED = auto()
    """Disk full, I/O error, read-only: wait until it heals."""
    DOUBT = auto()
    """COMMIT itself failed: look whether it landed."""
    GONE = auto()
    """The files are no longer those that were opened: stop, and write nothing more."""
    REFUSED = auto()
    """It will not heal by waiting."""


def _code(error: BaseException) -> int:
    # Errors of the module itself, such as the use of a closed connection, carry no code.
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE)
    return code & 0xFF


def name_of(error: BaseException) -> str:
    """SQLite's name of the error, such as `SQLITE_FULL`."""
    name: str = getattr(error, "sqlite_errorname", type(error).__name__)
    return name


def is_interrupt(error: sqlite3.Error) -> bool:
    """Whether SQLite was told to break off."""
    return _code(error) == sqlite3.SQLITE_INTERRUPT


def is_conflict(error: sqlite3.Error) -> bool:
    """Whether two statements of one connection are in each other's way."""
    return _code(error) == sqlite3.SQLITE_LOCKED


def is_full(error: sqlite3.Error) -> bool:
    """Whether there is no room: on the disk, or for one more number."""
    return _code(error) == sqlite3.SQLITE_FULL


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is broken, and not only a virtual table in it."""
    extended: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE)
    return _code(error) in _DAMAGE and extended != sqlite3.SQLITE_CORRUPT_VTAB


def is_unreadable(error: BaseException) -> bool:
    """Whether bytes that should be text are none: the module says so itself, and has no code for it."""
    unread = isinstance(error, sqlite3.OperationalError) and not hasattr(error, "sqlite_errorcode")
    return unread or isinstance(error, UnicodeDecodeError)


def is_of_the_connection(error: BaseException) -> bool:
    """Whether a fresh connection may get on where this one does not.

    SQLite that may not write when it opens a file opens it for reading, and that connection never writes again; and a
    descriptor may be dead though the file is well.
    """
    return _code(error) in _OF_THE_CONNECTION


def fault_of(error: BaseException) -> Fault:
    """What an error outside of COMMIT means."""
    if isinstance(error, JournalGone):
        return Fault.GONE
    if isinstance(error, OSError):  # the files could not be looked at
        return Fault.STALLED
    if not isinstance(error, sqlite3.Error):
        return Fault.REFUSED
    code = _code(error)
    if code in _BUSY:
        return Fault.BUSY
    return Fault.STALLED if code in _STALLED else Fault.REFUSED


def translate(error: BaseException, *, path: str) -> BaseException:
    """The error of this library that says what a storage error means, and what to do; other errors as they are."""
    if not isinstance(error, STORAGE_ERRORS):
        return error
    said = f"{name_of(error)}: {error}"
    match _code(error):
        case sqlite3.SQLITE_NOTADB:
            told: JournalError = NotAJournal(f"{path} is not an SQLite database; it was not touched")
        case sqlite3.SQLITE_CORRUPT:
            told = JournalDamaged(f"{path} is damaged ({said}): restore a backup")
        case _ if is_unreadable(error):
            told = JournalDamaged(f"{path} is damaged ({error}): restore a backup")
        case sqlite3.SQLITE_CONSTRAINT:
            told = JournalError(f"the journal refused the write, nothing changed ({said})")
        case code:
            meaning, move = _MEANINGS.get(code, _UNFORESEEN)
            told = JournalError(f"{meaning.replace('{path}', path)} ({said}). {move}")
    told.__cause__ = error
    return told
