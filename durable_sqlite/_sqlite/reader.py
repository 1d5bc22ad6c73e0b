"""Looks at the journal on a connection that never writes, and waits where the storage is in trouble."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ..errors import JournalGone, StorageStalled
from . import queries
from .faults import STORAGE_ERRORS, Fault, fault_of, is_of_the_connection, translate
from .files import Files
from .link import Link
from .patience import LOGGER, Patience, Pauses
from .rows import Tables

__all__ = ["Reader", "ReaderSettings"]

T = TypeVar("T")

_RENEW_AFTER = 3
"""Tries after which a connection that the storage refuses is given up for a fresh one."""

_NOTHING = "what was asked for could not be looked up. Ask again later"


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """What a reader is given.

    Args:
        path: The absolute path of the file.
        sql: The named statements.
        new_link: Makes a link that is not open yet.
        configure: Configures a connection that was opened anew.
        files: Knows which files are the right ones.
        pauses: Where pauses come from.
        patience: Seconds that somebody of the application waits for the storage.
        missing: Is awaited when the files were found to be other ones; raises what everybody is told then.
    """

    path: str
    sql: Mapping[str, str]
    new_link: Callable[[], Link]
    configure: Callable[[sqlite3.Connection], None]
    files: Files
    pauses: Pauses
    patience: float
    missing: Callable[[], Awaitable[None]]


class Reader:
    """One connection for all who look.

    It is opened read-only, and once it has looked it holds the file until it closes. So whoever else of this process closes
    a connection is not the last, and where this is the last, it cannot do what SQLite does then: write the WAL back, and
    delete what has its name.
    """

    def __init__(self, settings: ReaderSettings) -> None:
        self._settings = settings
        self.link = settings.new_link()
        self._renewing = asyncio.Lock()

    async def open(self) -> None:
        """Connect, and look once."""
        await self.link.open()

    async def begin(self) -> None:
        """Configure the connection and look for the first time; may be repeated."""
        await self.link.run(self._begin)

    def _begin(self, connection: sqlite3.Connection) -> None:
        self._settings.configure(connection)
        connection.execute("PRAGMA schema_version").fetchall()

    async def read(self, look: queries.Look[T], *, patient: bool) -> T:
        """Look at one state of the journal.

        Args:
            look: What to look at.
            patient: Wait for as long as the storage is in trouble.

        Raises:
            StorageStalled: It was for as long as the application waits.
            JournalGone: It is not the journal any more.
            JournalError: The storage refuses.
        """
        patience = Patience(self._settings.pauses, self._settings.path)
        while True:
            link = self.link
            try:
                seen = await self._in_time(link.run(lambda connection: self._look(connection, look)), patient=patient)
            except JournalGone as error:
                await self._settings.missing()
                trouble: Exception = error
                fault = Fault.STALLED
            except (*STORAGE_ERRORS, OSError) as error:
                trouble, fault = error, fault_of(error)
                if fault is Fault.REFUSED:
                    raise translate(error, path=self._settings.path) from error
            else:
                patience.over()
                return seen
            await self._wait(patience, fault, trouble, patient=patient)
            if patience.tries >= _RENEW_AFTER and is_of_the_connection(trouble):
                await self._renew(link)

    def _look(self, connection: sqlite3.Connection, look: queries.Look[T]) -> T:
        self._settings.files.verify()
        return queries.snapshot(Tables(connection, self._settings.sql), look)

    async def _in_time(self, hop: Awaitable[T], *, patient: bool) -> T:
        """The answer of the thread, unless it is stuck in a storage that does not answer."""
        limit = self._settings.patience
        time = asyncio.timeout(None if patient else limit)
        try:
            async with time:
                return await hop
        except TimeoutError as error:
            if not time.expired():
                raise
            raise StorageStalled(
                f"the storage of {self._settings.path} has not answered for {limit:g} s: {_NOTHING}. Runs wait and go on by "
                "themselves when it does; see to the disk"
            ) from error

    async def _wait(self, patience: Patience, fault: Fault, trouble: Exception, *, patient: bool) -> None:
        left = None
        if not patient:
            left = patience.meet() + self._settings.patience - self._settings.pauses.now()
            if left <= 0:
                raise patience.stalled(fault, trouble, self._settings.patience, _NOTHING) from trouble
        await patience.wait(fault, trouble, at_most=left)

    async def _renew(self, worn: Link) -> None:
        """Look on a fresh connection from now on, if one can be had; the old one is closed only then."""
        async with self._renewing:
            if self.link is not worn:
                return
            fresh = self._settings.new_link()
            try:
                await fresh.open()
                await fresh.run(self._begin_anew)
            except (sqlite3.Error, OSError, JournalGone) as error:
                LOGGER.debug("no fresh connection to %s can be had: %s", self._settings.path, error)
                await fresh.close()
                return
            self.link = fresh
        try:
            await worn.close()
        except sqlite3.Error as error:
            LOGGER.warning("a connection to %s could not be closed: %s", self._settings.path, error)

    def _begin_anew(self, connection: sqlite3.Connection) -> None:
        self._settings.files.verify()
        self._begin(connection)
