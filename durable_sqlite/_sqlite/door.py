"""One worker's door to a journal in an SQLite file: how it opens and closes, and how it writes and reads."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeVar

from ..errors import EngineClosed, JournalDamaged, JournalError, JournalMismatch, UsageError
from . import connect, driving, migrate, queries, statements, sums, user_schema
from .desk import Desk
from .faults import STORAGE_ERRORS, Fault, fault_of, translate
from .link import Guardian, JobConnection, Link
from .mark import Mark, mark_file
from .past import compare
from .patience import LOGGER, Patience, Pauses
from .rows import Tables
from .transactions import Bench, Given
from .verify import Hop, remember_schema
from .writer import Settings, Writer

__all__ = ["Door"]

T = TypeVar("T")


def _nothing(_name: str) -> None:
    """The failpoint that never fails."""


class Door:
    """One worker's door to a journal in an SQLite file: its life, and how it writes and reads.

    Args:
        path: The file, created for its owner alone if it is not there; `:memory:` for one that ends with the object.
        synchronous: `full`: what is acknowledged survives a power cut. `normal`: faster, and a power cut may take back
            the last acknowledged writes; a killed process takes nothing back in either.
        codec: The name of the payload codec. A journal keeps the one it was created with.
        failpoint: Called by name at each place where a crash is tried.
        sleep: Waits between tries.
        chance: A number from 0 to 1, for the length of those waits.
        connection: The class of the connections.
        checkpoint_bytes: The size of the WAL from which it is written back.
        monotonic: Seconds on a clock that never goes back: how long transactions take.
        schema: A folder of numbered SQL files for the application's own tables.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: connect.Synchronous = "full",
        codec: str = "",
        failpoint: Callable[[str], None] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        chance: Callable[[], float] | None = None,
        connection: type[JobConnection] = JobConnection,
        checkpoint_bytes: int = connect.CHECKPOINT_BYTES,
        monotonic: Callable[[], float] = time.monotonic,
        schema: Path | None = None,
    ) -> None:
        name = os.fspath(path)
        self.path = name if name == connect.MEMORY else str(Path(name).absolute())
        self._synchronous: connect.Synchronous = synchronous
        self._codec = codec
        self._failpoint = failpoint
        self._sleep = sleep
        self._chance = chance or Random().random  # noqa: S311 - spreads retries, keeps no secret
        self._connection = connection
        self._checkpoint_bytes = checkpoint_bytes
        self._sql = statements.load()
        self._bench = Bench(self._sql, monotonic)
        self._schema = schema
        self._writer: Writer | None = None
        self._reader: Link | None = None
        self._guardian: Guardian | None = None
        self._life: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    # Life ------------------------------------------------------------------------------------------------------------

    async def open(self, name: str, at: int) -> None:
        """Open or create the journal and enrol this worker under `name`.

        Raises:
            NotAJournal: The file is something else; it was not touched.
            JournalTooNew: Written by a newer version of this library.
            JournalMismatch: It was created with another codec.
            JournalError: It cannot be opened, or is open here already.
        """
        if self._writer is not None:
            raise JournalError(f"this journal object was opened before: make another for {self.path}")
        if not self._is_in_memory:
            await self._inspect()
        pauses = Pauses(asyncio.get_running_loop().time, self._sleep, self._chance)
        writer = self._writer = Writer(self._settings())
        try:
            await writer.link.open()
            writer.me = await self._patiently(
                pauses, lambda: writer.link.run(lambda connection: self._prepare(writer, connection, name, at))
            )
            writer.witness()
            await self._open_reader(pauses)
        except BaseException as error:
            writer.finish()
            await self._let_go()
            if isinstance(error, STORAGE_ERRORS):
                raise translate(error, path=self.path) from error
            raise
        self._guardian = Guardian(self._abandon)
        self._life = asyncio.create_task(self._live(writer, pauses), name="durable_sqlite writer")

    async def _inspect(self) -> None:
        # On a thread of our own kind. The loop's executor could not be shut down where the main thread has ended.
        aside = Link(connect.MEMORY)
        try:
            await aside.open()
            await aside.run(lambda _connection: connect.inspect(self.path, self._failpoint or _nothing))
        finally:
            await aside.close()

    def _open_mark(self) -> Mark | None:
        """The mark beside the journal, but for a journal in memory. The journal is opened without it where it must."""
        if self._is_in_memory:
            return None
        try:
            return Mark(mark_file(self.path))
        except OSError as error:
            LOGGER.warning(
                "%s cannot be opened (%s): commits that get lost may not be noticed", mark_file(self.path), error
            )
            return None

    def _settings(self) -> Settings:
        return Settings(
            path=self.path,
            sql=self._sql,
            new_link=lambda farewell: Link(self._address(), connection=self._connection, farewell=farewell),
            configure=self._configure,
            failpoint=self._failpoint,
            checkpoint_bytes=self._checkpoint_bytes,
            bench=self._bench,
        )

    def _configure(self, connection: sqlite3.Connection) -> None:
        """Make a connection the writer's; once, because this throws away what it has prepared."""
        connect.configure(connection, synchronous=self._synchronous)
        self._bench.take(connection)
        sums.arm(connection)

    @property
    def _is_in_memory(self) -> bool:
        return self.path == connect.MEMORY

    def _address(self) -> str:
        return connect.MEMORY if self._is_in_memory else connect.uri(self.path, "mode=rw")

    def _prepare(self, writer: Writer, connection: sqlite3.Connection, name: str, at: int) -> int:
        """Bring the file up to date and enrol; the worker's number."""
        known = migrate.read(migrate.find())
        failpoint = self._failpoint or _nothing
        connect.prepare(connection, known, path=self.path, synchronous=self._synchronous, failpoint=failpoint)
        self._bench.take(connection)
        if self._schema is not None:
            user_schema.apply(connection, user_schema.read(self._schema), self._bench, self._sql, at)
        tables = Tables(connection, self._sql)
        sums.fill(tables)
        sums.arm(connection)
        mark = writer.mark = writer.mark or self._open_mark()
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._check_codec(tables)
            number = connection.execute(self._sql["enrol"], {"name": name, "pid": os.getpid(), "at": at}).lastrowid
            assert number is not None
            remember_schema(tables)
            identity, told = compare(tables, mark, name, at)
            connection.execute("COMMIT")
        except (TypeError, ValueError) as error:
            connection.rollback()
            raise JournalDamaged(f"what {self.path} keeps of itself is damaged ({error}): restore a backup") from error
        except BaseException:
            connection.rollback()
            raise
        if mark is not None:
            mark.take(identity, number)
        for what in told:
            LOGGER.error("%s: %s", self.path, what)
        return number

    def _check_codec(self, tables: Tables) -> None:
        tables.change("meta_keep", {"name": "codec", "value": self._codec})
        ((kept,),) = tables.all("meta_value", {"name": "codec"})
        if kept != self._codec:
            raise JournalMismatch(
                f"{self.path} was created with the codec {kept or 'none'!r}, this engine has {self._codec or 'none'!r}: "
                "open it with the first one"
            )

    def connect(self) -> sqlite3.Connection:
        """A connection to the same file for reads and writes of the application's own, from any thread.

        Raises:
            UsageError: The journal is in memory only, where every connection has a database of its own.
        """
        if self._is_in_memory:
            raise UsageError(
                "a journal in memory has one connection, which is its own: use a file, or engine.transact()"
            )
        return connect.for_the_application(self.path, synchronous=self._synchronous)

    async def _open_reader(self, pauses: Pauses) -> None:
        if self._is_in_memory:
            return
        reader = self._reader = Link(self._address(), connection=self._connection)
        await reader.open()
        readonly = partial(connect.configure, synchronous=self._synchronous, readonly=True)
        await self._patiently(pauses, lambda: reader.run(readonly))

    async def _patiently(self, pauses: Pauses, hop: Callable[[], Awaitable[T]]) -> T:
        """Try again for as long as another process holds the lock."""
        patience = Patience(pauses, self.path)
        while True:
            try:
                return await hop()
            except sqlite3.Error as error:
                if fault_of(error) is not Fault.BUSY:
                    raise
                await patience.wait(Fault.BUSY, error)

    async def _live(self, writer: Writer, pauses: Pauses) -> None:
        try:
            await writer.serve(pauses)
        except asyncio.CancelledError:
            # The loop ends, or `stop` was called. The end of a program is no outcome: let go, quietly. Where the loop
            # ends, all else in it hears of it in the same turn, and what is given back then is still taken. Where both are
            # so, the second cancellation comes here.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            writer.finish()
            await self._let_go()
            writer.fail(EngineClosed(f"the journal {self.path} was let go before this write was committed"))
        except Exception as error:  # noqa: BLE001 - nobody awaits this task: its end is everybody's answer
            LOGGER.exception("the writer of %s is broken", self.path)
            writer.fail(JournalError(f"the writer of {self.path} is broken: {error!r}"))

    async def _let_go(self) -> None:
        """Stop the threads, which still commit what is queued, and wait for their end."""
        links = self._links()
        for link in links:
            link.stop()
        for link in links:
            await link.ended()
        self._shut(self._writer)

    def _links(self) -> list[Link]:
        writing = None if self._writer is None else self._writer.link
        return [link for link in (self._reader, writing) if link is not None]

    def _abandon(self) -> None:
        for link in self._links():
            link.abandon()

    def _shut(self, writer: Writer | None) -> None:
        if writer is not None and writer.mark is not None:
            writer.mark.close()
        self._dismiss()

    def _dismiss(self) -> None:
        if self._guardian is not None:
            self._guardian.dismiss()

    async def close(self, at: int) -> None:
        """Commit what is queued, give every run that this worker drives back, and sign off."""
        if self._writer is None or self._life is None:
            return
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(self._writer, self._life, at), name="durable_sqlite close")
        await asyncio.shield(self._closing)

    async def _close(self, writer: Writer, life: asyncio.Task[None], at: int) -> None:
        failpoint = self._failpoint or _nothing
        failpoint("close.before_release")
        released = writer.submit(partial(driving.release, at=at), drives=False)
        writer.finish()
        await asyncio.wait([life])
        if released.exception() is None:
            failpoint("close.after_release")
        if writer.link.is_open:
            await writer.checkpoint("TRUNCATE")
        for link in self._links():
            await link.close()
        self._shut(writer)

    def stop(self) -> None:
        """Let go without waiting, as the end of the program does: what is queued is still committed."""
        if self._writer is None or self._life is None:
            return
        if self._life.get_loop().is_closed():
            # In a thread of its own: where no loop runs, aiosqlite would look for one here, and might make one.
            threading.Thread(target=self._abandon, name="durable_sqlite stop").start()
            self._dismiss()
        else:
            self._writer.finish()
            # Where the end of the loop was faster, a second cancellation would break off the wait for the threads.
            if not self._life.cancelling():
                self._life.cancel()

    # What the verbs of the port stand on -----------------------------------------------------------------------------

    def _submit(
        self,
        act: Callable[[Desk], T | Given[T] | BaseException],
        *,
        drives: bool = True,
        blame: Callable[[sqlite3.Error], object] | None = None,
    ) -> asyncio.Future[T]:
        """Let the writer do it; `drives` says that a worker which was struck off may not do it any more."""
        return self._open_writer().submit(act, drives=drives, blame=blame)

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise EngineClosed(f"the journal {self.path} is not open")
        return self._writer

    @asynccontextmanager
    async def _aside(self) -> AsyncGenerator[Hop]:
        """A way to look that holds up nobody: on a connection of its own, where there can be one."""
        self._open_writer()
        if self._is_in_memory:
            yield self._read
            return
        aside = Link(self._address())
        try:
            await aside.open()
            await aside.run(partial(connect.configure, synchronous=self._synchronous, readonly=True))
            yield partial(self._read_on, aside)
        finally:
            await aside.close()

    async def _read(self, look: queries.Look[T]) -> T:
        """Look at one state of the journal; wait for as long as the storage is in trouble."""
        writer = self._open_writer()
        if self._reader is None:
            return await writer.submit(partial(_look_between, look), drives=False)
        return await self._read_on(self._reader, look)

    async def _read_on(self, reader: Link, look: queries.Look[T]) -> T:
        patience = Patience(Pauses(asyncio.get_running_loop().time, self._sleep, self._chance), self.path)
        while True:
            try:
                seen = await reader.run(lambda connection: queries.snapshot(Tables(connection, self._sql), look))
            except STORAGE_ERRORS as error:
                fault = fault_of(error)
                if fault is Fault.REFUSED:
                    raise translate(error, path=self.path) from error
                await patience.wait(fault, error)
            else:
                patience.over()
                return seen


def _look_between(look: queries.Look[T], desk: Desk) -> T:
    """Look in the middle of a batch: what is changed after it in the same commit has a number of its own."""
    seen = look(desk)
    desk.tick = 0
    return seen
