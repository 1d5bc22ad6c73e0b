"""What a journal stands on, for `doctor`: SQLite, its files, the file system, and who keeps a read transaction open."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import suppress

from ._light import NamedTuple
from ._text import age

__all__ = ["Check", "files", "has_wal_reset_bug", "library", "readers", "system"]

_OLDEST_SQLITE = (3, 37, 0)
_READ_LOCKS = range(123, 128)
"""The bytes of the -shm file on which SQLite's readers hold their locks."""
_WATCHED = 0.2  # seconds between two looks at who reads


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    level: str
    """`ok`, `note`: worth knowing; `wrong`."""
    text: str
    then: str = ""
    """What to do."""


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether a version of SQLite can damage a database when a checkpoint runs beside a commit, in WAL mode."""
    if version < (3, 7, 0) or version >= (3, 51, 3):
        return False
    return not ((3, 44, 6) <= version < (3, 45, 0) or (3, 50, 7) <= version < (3, 51, 0))


def library() -> Iterator[Check]:
    """The SQLite that is linked here, and its known bugs."""
    version, name = sqlite3.sqlite_version_info, f"SQLite {sqlite3.sqlite_version}"
    if version < _OLDEST_SQLITE:
        yield Check("sqlite", "wrong", f"{name} is too old", "use a Python that is linked with SQLite 3.37 or newer")
    elif has_wal_reset_bug(version):
        yield Check(
            "sqlite",
            "note",
            f"{name} has the WAL-reset bug: a checkpoint beside a commit may damage the file",
            "durable_sqlite itself stays clear of it; let no other program write to this file but by engine.connect(), "
            "or use SQLite 3.51.3 or newer",
        )
    else:
        yield Check("sqlite", "ok", f"{name} has no known bug that matters here")


def files(path: str) -> Iterator[Check]:
    """Who may open the journal's files."""
    for each in (path, f"{path}-wal", f"{path}-shm", f"{path}-mark"):
        try:
            mode = stat.S_IMODE(os.stat(each).st_mode)  # noqa: PTH116
        except OSError:
            continue
        if mode & 0o077:
            then = f"chmod 600 {each}, or see that only the right people can enter its folder"
            yield Check("permissions", "wrong", f"others may open {each} (mode {mode:04o})", then)
        elif each == path:
            yield Check("permissions", "ok", f"mode {mode:04o}: its owner's alone")


def system(path: str) -> Iterator[Check]:
    """The file system."""
    from .._sqlite.mounts import find, is_network  # noqa: PLC0415 - for the doctor alone

    kind = find(path)
    if kind is None:
        yield Check("file system", "note", "what it is cannot be found out here", "it has to be a local one")
    elif is_network(kind):
        then = "move the journal to a local disk: over a network SQLite's locks do not hold"
        yield Check("file system", "wrong", f"{kind} is a network file system", then)
    else:
        then = "it is empty after the next start of the machine" if kind in ("tmpfs", "ramfs") else ""
        yield Check("file system", "note" if then else "ok", kind, then)


# Readers -------------------------------------------------------------------------------------------------------------


def readers(path: str) -> Iterator[Check]:
    """Who has been reading for a while, the one that may have been longest first, as far as the system tells."""
    try:
        first = _holders(path)
    except FileNotFoundError:
        yield Check("readers", "ok", "nobody has it open")
        return
    except (OSError, ValueError):
        yield Check(
            "readers", "note", "who reads, and how long, cannot be seen on this system", "look at the WAL's size"
        )
        return
    if first:
        time.sleep(_WATCHED)
    stayed: set[int] = set()
    with suppress(OSError, ValueError):  # all have closed it meanwhile
        stayed = first & _holders(path)
    # Neither SQLite nor the system notes when a lock was taken: the age of its process is all there is to know.
    for pid, lived, name in sorted(((pid, *_process(pid)) for pid in stayed), key=lambda each: -(each[1] or 0)):
        who = f"process {pid}{f' ({name})' if name else ''}" if pid > 0 else "a process that cannot be seen from here"
        most = "" if lived is None else f", and at most {age(lived)}, as old as the process is"
        yield Check(
            "readers",
            "note",
            f"{who} reads all the time, and keeps the WAL from being written back; since when is noted nowhere: at least for "
            f"the {_WATCHED:g} s of this look{most}",
            "where it is no backup or report that ends by itself, end it",
        )
    if not stayed:
        yield Check("readers", "ok", "nobody stays in a read transaction")


def _holders(path: str) -> set[int]:
    """The processes that hold a reader's lock now.

    Raises:
        FileNotFoundError: Nobody has the journal open.
        OSError, ValueError: It cannot be seen.
    """
    seen = os.stat(f"{path}-shm")  # noqa: PTH116
    try:
        with open("/proc/locks", encoding="ascii") as file:  # noqa: PTH123
            lines = [line.split() for line in file]
    except FileNotFoundError as error:
        raise OSError("this system does not tell") from error
    place = f"{os.major(seen.st_dev):02x}:{os.minor(seen.st_dev):02x}:{seen.st_ino}"
    found: set[int] = set()
    for words in lines:
        # 1: POSIX  ADVISORY  READ 1234 fd:01:5678 123 123
        if len(words) != 8 or (words[1], words[3], words[5]) != ("POSIX", "READ", place):  # noqa: PLR2004
            continue
        if int(words[6]) in _READ_LOCKS and int(words[4]) != os.getpid():
            found.add(int(words[4]))
    return found


def _process(pid: int) -> tuple[int | None, str]:
    """For how many microseconds a process has run, and its name, where that can be seen."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            before, _, after = file.read().rpartition(")")
        with open("/proc/uptime", encoding="ascii") as file:  # noqa: PTH123
            up = float(file.read().split()[0])
        began = int(after.split()[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None, ""
    return max(round((up - began) * 1_000_000), 0), before.partition("(")[2]
