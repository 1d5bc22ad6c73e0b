"""What a command says when it cannot do what was asked: what, what next, and the exit code. Errors become words here."""

from __future__ import annotations

import errno
import sqlite3

__all__ = [
    "BUSY",
    "DONE",
    "FAILED",
    "FAULT",
    "INTERRUPTED",
    "NO_OUTPUT",
    "NO_SUCH_RUN",
    "PARKED",
    "REFUSED",
    "USAGE",
    "WAITS",
    "Trouble",
    "code_of_state",
    "trouble_of",
]

DONE = 0
FAILED = 1
"""The run failed or was cancelled; or `doctor` found something wrong."""
USAGE = 2
NO_SUCH_RUN = 3
WAITS = 4
PARKED = 5
REFUSED = 6
"""The run or the journal is in a state that does not allow this."""
FAULT = 70
"""An error of this library."""
NO_OUTPUT = 74
"""What was to be printed could not be written."""
BUSY = 75
"""The journal is locked, or a live worker drives the run."""
INTERRUPTED = 130

_OF_STATE = {"completed": DONE, "failed": FAILED, "cancelled": FAILED, "parked": PARKED}

# By name, so that a command that only looks need not import the errors; a subclass goes the way of its nearest base.
_OF_ERROR = {
    "UnknownRun": NO_SUCH_RUN,
    "RunFailed": FAILED,
    "RunCancelled": FAILED,
    "RunParked": PARKED,
    "RunError": REFUSED,
    "StorageStalled": BUSY,
    "LeaseLost": BUSY,
    "JournalError": REFUSED,
    "UsageError": USAGE,
    "DefinitionError": USAGE,
    "PayloadError": USAGE,
    "DurableError": REFUSED,
}

_NOT_ALLOWED = (
    "see that you may write the journal and its folder: each engine that is open keeps a small file of its own there"
)
_MOVES = {
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.EROFS: _NOT_ALLOWED,
    errno.ENOSPC: "free some space, and try again",
    errno.EDQUOT: "free some space, or raise the quota, and try again",
}
_BUSY_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_DAMAGE_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Trouble(Exception):
    """A command cannot do what was asked.

    Args:
        what: What is wrong, and where, in one sentence without a full stop.
        then: What to do next, a line each.
        code: The exit code.
    """

    def __init__(self, what: str, *then: str, code: int = USAGE) -> None:
        super().__init__(what)
        self.what = what
        self.then = then
        self.code = code


def code_of_state(state: str) -> int:
    """The exit code of a command that followed a run until it stood like this."""
    return _OF_STATE.get(state, WAITS)


def _odd_text(error: Exception) -> Trouble | None:
    """What is wrong with a text that cannot be the name of anything."""
    if isinstance(error, UnicodeEncodeError):
        what = f"{error.object!a} holds a character that is none ({error.object[error.start]!a})"
        return Trouble(what, "type it anew", code=USAGE)
    if isinstance(error, ValueError) and str(error) == "embedded null byte":
        return Trouble("a name holds a zero byte, which none can", "type it anew", code=USAGE)
    return None


def trouble_of(error: Exception, *, journal: str | None = None) -> Trouble:
    """Any error as words for a person, and an exit code.

    Args:
        error: What was raised.
        journal: The path of the journal, where one was being used.
    """
    if isinstance(error, Trouble):
        return error
    if isinstance(error, sqlite3.Error):
        return _of_sqlite(error, journal or "the journal")
    if (odd := _odd_text(error)) is not None:
        return odd
    for base in type(error).__mro__:
        if base.__module__ == "durable_sqlite.errors" and base.__name__ in _OF_ERROR:
            return Trouble(str(error), code=_OF_ERROR[base.__name__])
    if isinstance(error, OSError):
        what = error.strerror or str(error)
        where = "" if error.filename is None else f"{error.filename}: "
        then = [_MOVES[error.errno]] if error.errno in _MOVES else []
        return Trouble(f"{where}{what}", *then, code=BUSY if error.errno == errno.EAGAIN else REFUSED)
    return Trouble(
        f"this is an error of durable_sqlite itself: {type(error).__name__}: {error}",
        "run it again with DURABLE_SQLITE_TRACEBACK=1 to see where, and report it with what you see",
        code=FAULT,
    )


def _of_sqlite(error: sqlite3.Error, journal: str) -> Trouble:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    told = f"{name}: {error}"
    if code & 0xFF in _BUSY_CODES:
        return Trouble(f"{journal} is locked by another program ({told})", "try again in a moment", code=BUSY)
    if code & 0xFF in _DAMAGE_CODES:
        return Trouble(
            f"{journal} is damaged, or no SQLite database ({told})",
            "see what can still be read with `durable_sqlite doctor`, and restore a backup",
            code=REFUSED,
        )
    if code & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH):
        return Trouble(
            f"{journal} cannot be opened ({told})",
            "see that you may read it, and that its folder may be written: SQLite keeps the -wal and -shm files there",
            code=REFUSED,
        )
    return Trouble(f"{journal} could not be read ({told})", code=REFUSED)
