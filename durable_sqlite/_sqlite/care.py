"""What a journal in a file offers besides the port: copies of it, and how it is doing."""

from __future__ import annotations

import sqlite3
import threading
from functools import partial
from pathlib import Path

from .._stats import CommitStats, JournalStats
from . import connect
from .door import Door
from .stats import stats

__all__ = ["Care"]


class Care(Door):
    """A door through which the file is also cared for."""

    async def backup(self, target: Path, *, overwrite: bool) -> None:
        """Copy the journal as it is now, while it is written to; what was acknowledged before the call is in the copy.

        Raises:
            UsageError: The target is taken, or belongs to the journal.
            JournalError: The copy could not be made; nothing is left of it.
            EngineClosed: The journal is closed, or was closed meanwhile.
        """
        writer = self._open_writer()
        self._copier.check(target, overwrite=overwrite)
        if self._is_in_memory:  # there is only this one connection
            broken_off = threading.Event()
            await writer.link.run(lambda source: self._copier.run(source, target, broken_off, overwrite=overwrite))
            return
        link = self._new_link(mode="ro")
        configure = partial(connect.configure, synchronous=self._synchronous, readonly=True)

        async def pin() -> None:
            await link.open()
            await self._patiently(lambda: link.run(configure))
            await self._patiently(lambda: link.run(_pin))

        await self._copier.copy(link, pin, target, overwrite=overwrite)

    async def stats(self) -> JournalStats:
        """What the journal holds."""
        return await self._read(partial(stats, path=self.path))

    def commits(self) -> CommitStats:
        """How this worker has written."""
        writer = self._open_writer()
        return writer.batch.meter.read(len(writer.batch))


def _pin(connection: sqlite3.Connection) -> None:
    """See the journal as it is now, until the connection is closed.

    Else SQLite would begin anew after each commit of the writer, and never come to an end.
    """
    connection.execute("BEGIN").fetchall()
    try:
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
    except sqlite3.Error:
        connection.rollback()
        raise
