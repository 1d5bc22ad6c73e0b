"""Copies of a live journal: all of one moment, made beside the writer, and there under their name only when complete."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import tempfile
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path

from ..errors import EngineClosed, JournalError, UsageError
from .connect import MEMORY, uri
from .faults import name_of
from .link import Link

__all__ = ["Copier"]

_PAGES = 256
"""Pages that are copied at once: one MiB."""

_PAUSE = 0.002
"""Seconds between two such pieces: the disk is also the writer's."""


class Copier:
    """Makes backups of one journal, and breaks them off where that closes.

    Args:
        path: The journal's absolute path, or `:memory:`.
        failpoint: Called by name at the places where a crash is tried.
    """

    def __init__(self, path: str, failpoint: Callable[[str], None]) -> None:
        self._path = path
        self._failpoint = failpoint
        self._closed = threading.Event()
        self._links: set[Link] = set()

    def check(self, target: Path, *, overwrite: bool) -> None:
        """Refuse a target that is in use, or taken.

        Raises:
            UsageError: It is.
        """
        if not target.parent.is_dir():
            raise UsageError(f"the folder of the backup {target} does not exist: make it first")
        if self._path != MEMORY and _belongs(target, Path(self._path)):
            raise UsageError(f"{target} is the journal itself, or belongs to it: name another file for the backup")
        if target.is_dir():
            raise UsageError(f"{target} is a folder: name a file in it")
        for end in ("-wal", "-journal"):
            beside = target.with_name(f"{target.name}{end}")
            if os.path.lexists(beside):
                # SQLite would play it into the new file.
                raise UsageError(
                    f"{beside} is there, so a database of this name is open, or was left by a kill: name another file for the "
                    "backup"
                )
        if os.path.lexists(target) and not overwrite:
            raise UsageError(f"{target} exists: name another file, or call backup(..., overwrite=True)")

    async def copy(self, link: Link, pin: Callable[[], Awaitable[object]], target: Path, *, overwrite: bool) -> None:
        """Copy by a connection of its own, which is closed afterwards.

        Args:
            link: The connection; it is open.
            pin: Makes it see one moment from then on.
            target: Where the copy is to be.
            overwrite: Whether it may take the place of what is there.
        """
        broken_off = threading.Event()
        self._links.add(link)
        try:
            await pin()
            await link.run(lambda connection: self.run(connection, target, broken_off, overwrite=overwrite))
        finally:
            broken_off.set()  # where the caller was cancelled, the thread is still at it
            await link.close()
            self._links.discard(link)

    def stop(self) -> None:
        """Break off what is under way; its thread ends soon."""
        self._closed.set()

    @property
    def links(self) -> list[Link]:
        """The connections that copies are made by now."""
        return list(self._links)

    async def close(self) -> None:
        """Break off what is under way, and wait for its end."""
        self.stop()
        for link in self.links:
            await link.close()

    # On the connection's thread --------------------------------------------------------------------------------------

    def run(
        self, connection: sqlite3.Connection, target: Path, broken_off: threading.Event, *, overwrite: bool
    ) -> None:
        """Copy into a file beside the target, and rename that once it is on the disk.

        Raises:
            JournalError: It could not be written; nothing is left of it.
            EngineClosed: It was broken off; likewise.
            UsageError: The target was made by somebody in the meantime; likewise.
        """
        if self._closed.is_set():
            raise EngineClosed("the journal is closed")
        try:
            # For its owner alone from the first byte on.
            descriptor, part = tempfile.mkstemp(prefix=f"{target.name}.", suffix=".part", dir=target.parent)
            os.close(descriptor)
        except OSError as error:
            raise self._not_made(target, error) from error
        try:
            self._fill(connection, part, broken_off)
            self._failpoint("backup.filled")
            _sync(part)
            self._failpoint("backup.synced")
            _publish(part, target, overwrite=overwrite)
            self._failpoint("backup.renamed")
            _sync(str(target.parent))
        except (sqlite3.Error, OSError) as error:
            raise self._not_made(target, error) from error
        finally:
            for end in ("", "-wal", "-shm", "-journal"):
                with suppress(FileNotFoundError):
                    os.unlink(f"{part}{end}")  # noqa: PTH108 - made of strings above

    def _fill(self, connection: sqlite3.Connection, part: str, broken_off: threading.Event) -> None:
        def breathe(_status: int, _remaining: int, _total: int) -> None:
            self._failpoint("backup.step")
            if self._closed.is_set() or broken_off.wait(_PAUSE):
                raise EngineClosed("the backup was broken off; nothing is left of it")

        with closing(sqlite3.connect(uri(part, "mode=rw"), uri=True, isolation_level=None)) as copy:
            # Whoever fails here begins anew: nothing of this file has to survive before it is synced as a whole.
            copy.execute("PRAGMA journal_mode = OFF").fetchall()
            copy.execute("PRAGMA synchronous = OFF").fetchall()
            connection.backup(copy, pages=_PAGES, progress=breathe)
            # One file that also opens where nothing can be written; the next engine switches the WAL on again.
            copy.execute("PRAGMA journal_mode = DELETE").fetchall()

    def _not_made(self, target: Path, error: sqlite3.Error | OSError) -> JournalError:
        why = (error.strerror or str(error)) if isinstance(error, OSError) else f"{name_of(error)}: {error}"
        return JournalError(f"the backup of {self._path} to {target} was not made ({why}); nothing is left of it")


def _belongs(target: Path, journal: Path) -> bool:
    """Whether this is a name of the journal, or of a file that is kept beside it."""
    with suppress(FileNotFoundError):
        if target.samefile(journal):
            return True
    name = target.name.removeprefix(journal.name)
    return (
        target.parent.samefile(journal.parent)
        and target.name.startswith(journal.name)
        and (name in {"", "-wal", "-shm", "-journal", "-mark"} or name.startswith("-worker-"))
    )


def _publish(part: str, target: Path, *, overwrite: bool) -> None:
    """Give the finished file its name, at once or not at all."""
    if not overwrite:
        try:
            os.link(part, target)
        except FileExistsError:
            raise UsageError(f"{target} exists by now, and the backup was not made: name another file") from None
        except OSError:
            # A file system without second names.
            if os.path.lexists(target):
                raise UsageError(f"{target} exists by now, and the backup was not made: name another file") from None
        else:
            return
    os.replace(part, target)  # noqa: PTH105 - both are in the folder of the target


def _sync(path: str) -> None:
    """Bring a file or a folder to the disk. No connection has it open, so closing it drops no lock of SQLite."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        if (whole := getattr(fcntl, "F_FULLFSYNC", None)) is not None:  # macOS: only this reaches the disk
            fcntl.fcntl(descriptor, whole)
    finally:
        os.close(descriptor)
