"""What one opening of a journal holds of its file, and what becomes of that when the process forks.

A forked child has copies of the parent's connections, and must neither use nor close them. That alone is not enough where
the child opens the same file itself: SQLite keeps one record of its locks for each file of a process, the child has a copy
of that too, and so takes locks for granted that only the parent holds. Its writes would go into a file that the parent,
when it closes, deletes as nobody else's; tried, and an acknowledged write was gone.

So forks wait for a moment in which no thread is inside SQLite. A child that never opens the file forgets what it has
inherited. One that does closes that first, under a lock of its own, after a look whether all files are the same still;
then SQLite's record of them ends, and a new one begins. Where it cannot be so, the child is refused.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from weakref import WeakSet, ref

from .._context import NOWHERE
from .._fork import at_fork, pin
from ..errors import JournalError

__all__ = ["Estate", "Gate", "settle"]

_PATIENCE = 5.0
"""Seconds for which a fork waits until a connection's thread is out of SQLite."""

_SHARED_FIRST, _SHARED_SIZE = 0x4000_0002, 510
"""The bytes of the database that everyone who has it open holds a read lock on: part of SQLite's file format."""

_Identity = tuple[tuple[int, int], ...]


class Gate:
    """Held by one connection's thread for as long as it is inside SQLite, so that nobody forks meanwhile."""

    def __init__(self) -> None:
        self.connection: sqlite3.Connection | None = None
        """What is open."""
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._inside = threading.get_ident()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._inside = 0
        self._lock.release()

    def shut(self) -> bool:
        """Keep the thread out; False if it is this very thread, or does not come out in time."""
        return self._inside != threading.get_ident() and self._lock.acquire(timeout=_PATIENCE)

    def open(self) -> None:
        """Let the thread in again."""
        self._lock.release()


@dataclass(frozen=True, slots=True)
class _Moment:
    """How it stood when a thread forked."""

    shut: list[Gate]
    quiet: bool
    files: _Identity


@dataclass(frozen=True, slots=True)
class _Legacy:
    """What a child has of one opening of a journal in its parent."""

    path: str
    files: _Identity
    connections: list[sqlite3.Connection] = field(default_factory=list[sqlite3.Connection])
    quiet: bool = True
    """No thread was inside SQLite, and nothing was lent."""


class Estate:
    """All that one opening of a journal has open of its file.

    Args:
        path: The file; None for a journal in memory.
        owner: What is kept for ever in a forked child, with all that it holds.
    """

    def __init__(self, path: str | None, owner: object) -> None:
        self.inherited = False
        """Whether this process was forked from the one that opened the journal, so that nothing here may be touched."""
        self.opening = False
        """Whether connections come and go that no gate knows of."""
        self._path = path
        self._owner = ref(owner)
        self._gates: WeakSet[Gate] = WeakSet()
        self._lent: WeakSet[sqlite3.Connection] = WeakSet()
        self._moments: dict[int, _Moment] = {}
        at_fork(before=self._before, parent=self._after, child=self._in_child)

    def gate(self) -> Gate:
        """A gate for one connection more."""
        gate = Gate()
        self._gates.add(gate)
        return gate

    def lend(self, connection: sqlite3.Connection) -> None:
        """Note a connection that the application uses, from whatever thread."""
        self._lent.add(connection)

    def _before(self) -> None:
        if self.inherited:
            return
        gates = [gate for gate in self._gates if gate.connection is not None]
        shut = [gate for gate in gates if gate.shut()]
        quiet = len(shut) == len(gates) and not self.opening and not any(map(_is_open, self._lent))
        self._moments[threading.get_ident()] = _Moment(shut, quiet, _identity(self._path))

    def _after(self) -> None:
        moment = self._moments.pop(threading.get_ident(), None)
        for gate in moment.shut if moment is not None else ():
            gate.open()

    def _in_child(self) -> None:
        if self.inherited:
            return  # by this process's parent as well
        self.inherited = True
        # None: it was made by another thread while this one was about to fork.
        moment = self._moments.pop(threading.get_ident(), None) or _Moment([], quiet=False, files=())
        connections = [gate.connection for gate in self._gates if gate.connection is not None]
        for thing in (self, self._owner(), *connections, *self._lent):
            pin(thing)
        if self._path is not None and (connections or not moment.quiet):
            NOWHERE.legacies.append(_Legacy(self._path, moment.files, connections, moment.quiet))


def _is_open(connection: sqlite3.Connection) -> bool:
    try:
        _ = connection.in_transaction
    except sqlite3.ProgrammingError:
        return False
    return True


def _identity(path: str | None) -> _Identity:
    """Which files a database and what belongs to it are now; nothing where one of them is missing."""
    if path is None:
        return ()
    try:
        found = [os.stat(f"{path}{end}") for end in ("", "-wal", "-shm")]  # noqa: PTH116 - as quick as can be
    except FileNotFoundError:
        return ()
    return tuple((one.st_dev, one.st_ino) for one in found)


def settle(path: str) -> None:
    """Put away what a parent process had open of this file, so that it can be opened here.

    Raises:
        JournalError: It cannot be put away safely; nothing was touched.
    """
    here = _database(path)
    mine = [legacy for legacy in NOWHERE.legacies if legacy.path == path or legacy.files[:1] == here]
    if not mine or not here:
        return
    # Opened for the lock, which goes with it when it is closed: by then nothing else of this process has the file open.
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        # As SQLite has it of whoever reads: for as long as it is held, nobody deletes the WAL or begins a new one.
        fcntl.lockf(descriptor, fcntl.LOCK_SH, _SHARED_SIZE, _SHARED_FIRST)
        now = _identity(path)
        if not all(legacy.quiet and legacy.files == now for legacy in mine):
            raise JournalError(
                f"{path} was open in the process that this one was forked from, in a way that cannot be put right here: it was "
                "in use by the application or in a transaction at that moment, or was closed or replaced since. Open the "
                "engine right after the fork, close what engine.connect() gave before it, or start this process by `spawn` "
                "or `forkserver`"
            )
        for legacy in mine:
            for connection in legacy.connections:
                with suppress(sqlite3.Error):
                    sqlite3.Connection.close(connection)
            NOWHERE.legacies.remove(legacy)
    finally:
        os.close(descriptor)


def _database(path: str) -> _Identity:
    with suppress(FileNotFoundError):
        found = os.stat(path)  # noqa: PTH116
        return ((found.st_dev, found.st_ino),)
    return ()
