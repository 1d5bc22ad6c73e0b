"""When the WAL is written back into the database, how, and whether it grows because somebody is in the way."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from ..errors import JournalGone
from .faults import Fault, fault_of, translate
from .files import Files
from .link import Link
from .patience import LOGGER

__all__ = ["WAL_ALARM_BYTES", "Checkpoints"]

WAL_ALARM_BYTES = 64 * 1024 * 1024
"""From this size on people are told that the WAL grows."""

_IN_THE_WAY = (
    "a connection has been reading for so long that it cannot be started anew: find the program that keeps a read transaction "
    "open, such as a shell after BEGIN or a cursor that was not read to its end, and let it end that"
)
_NEXT_ALARM = 600.0  # seconds
_MIB = 1024 * 1024


class Checkpoints:
    """Writes the WAL back, where nobody is in the way, and tells of a WAL that grows.

    Args:
        path: The journal's file, for messages.
        files: Knows how large the WAL is; None where there is none.
        limit: The size of the WAL from which it is written back.
        alarm: The size of the WAL from which people are told.
        now: Seconds on a clock that never goes back.
        failpoint: Called by name at the places where a crash is tried.
    """

    def __init__(
        self,
        path: str,
        files: Files | None,
        *,
        limit: int,
        alarm: int,
        now: Callable[[], float],
        failpoint: Callable[[str], None],
    ) -> None:
        self._path = path
        self._files = files
        self._limit = limit
        self._alarm = alarm
        self._now = now
        self._failpoint = failpoint
        self._at = limit
        self._restarted = False
        self._why = ""
        """Why the WAL could not be started anew the last time."""
        self._told_at: float | None = None

    async def after_commit(self, link: Link) -> None:
        """Write the WAL back if it has grown enough."""
        if self._files is None:
            return
        if self._restarted:
            # Only this batch has cut the file to its limit, and the size was taken just before.
            self._restarted = False
        elif self._files.wal_size > self._at:
            await self.write_back(link, "RESTART")
        self._see_to_size(self._files.wal_size)

    async def write_back(self, link: Link, mode: str) -> None:
        """Write the WAL back into the database; where that is not possible now, later.

        RESTART keeps the file and starts it anew, which is faster than a file that grows; SQLite cuts it to
        `journal_size_limit` then, so its size still tells how much is in it.

        Raises:
            JournalGone: It is not the database's WAL any more.
        """
        try:
            busy = await link.run(lambda connection: self._checkpoint(connection, mode))
        except JournalGone:
            raise
        except (sqlite3.Error, OSError) as error:
            told = translate(error, path=self._path)
            if fault_of(error) is not Fault.BUSY:
                LOGGER.warning("checkpoint of %s failed, it is tried again later: %s", self._path, told)
            busy = True
            self._why = f"it could not be written back: {told}"
        else:
            self._why = _IN_THE_WAY if busy else ""
        # No hurry where somebody is in the way: each try keeps writers waiting for a moment.
        seen = self._files.wal_size if self._files is not None else 0
        self._at = seen + self._limit if busy else self._limit
        self._restarted = not busy

    def _checkpoint(self, connection: sqlite3.Connection, mode: str) -> bool:
        """Whether somebody was in the way."""
        self._failpoint("checkpoint.before")
        if self._files is not None:
            self._files.check(0, closely=True)
        # SQLite waits for readers while it keeps writers out, so it must not wait long. But where it does not get the
        # write lock it goes on as PASSIVE, which on builds before 3.51.3 can damage the file beside a commit: so see
        # first that the lock can be had.
        connection.execute("PRAGMA busy_timeout = 20").fetchall()
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK").fetchall()
            ((busy, _frames, _moved),) = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        finally:
            if connection.in_transaction:
                connection.rollback()
            connection.execute("PRAGMA busy_timeout = 250").fetchall()
        self._failpoint("checkpoint.after")
        return bool(busy)

    def _see_to_size(self, size: int) -> None:
        if not self._why:
            if self._told_at is not None:
                self._told_at = None
                LOGGER.warning("the WAL of %s could be written back, and is started anew", self._path)
        elif size >= self._alarm and (self._told_at is None or self._now() - self._told_at >= _NEXT_ALARM):
            self._told_at = self._now()
            LOGGER.warning(
                "the WAL of %s has grown to %.1f MiB, because %s. Nothing is lost, but the disk fills and reads get slower",
                self._path,
                size / _MIB,
                self._why,
            )
