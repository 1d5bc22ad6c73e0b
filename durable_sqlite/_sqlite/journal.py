"""The port on one SQLite file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeVar

from .._records import (
    CancelRequest,
    Claimed,
    End,
    Entry,
    FailedAttempt,
    Hold,
    IfExists,
    Intent,
    Memory,
    NewRun,
    Resumed,
    Resumption,
    RunQuery,
    RunRow,
    Settlement,
    Started,
    Suspension,
    Wait,
    WorkerRow,
)
from ..errors import EngineClosed, JournalError, JournalMismatch
from . import connect, migrate, queries, statements, verbs
from .faults import Fault, fault_of, translate
from .link import Guardian, JobConnection, Link
from .patience import LOGGER, Patience, Pauses
from .rows import Tables
from .writer import Settings, Writer

__all__ = ["SqliteJournal"]

T = TypeVar("T")


def _nothing(_name: str) -> None:
    """The failpoint that never fails."""


class SqliteJournal:
    """One worker's door to a journal in an SQLite file.

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
        if self.path != connect.MEMORY:
            await self._inspect()
        pauses = Pauses(asyncio.get_running_loop().time, self._sleep, self._chance)
        writer = self._writer = Writer(self._settings())
        try:
            await writer.link.open()
            writer.me = await self._patiently(
                pauses, lambda: writer.link.run(lambda connection: self._prepare(connection, name, at))
            )
            writer.witness()
            await self._open_reader(pauses)
        except BaseException as error:
            writer.finish()
            await self._let_go()
            if isinstance(error, sqlite3.Error):
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

    def _settings(self) -> Settings:
        return Settings(
            path=self.path,
            sql=self._sql,
            new_link=lambda farewell: Link(self._address(), connection=self._connection, farewell=farewell),
            configure=partial(connect.configure, synchronous=self._synchronous),
            failpoint=self._failpoint,
            checkpoint_bytes=self._checkpoint_bytes,
        )

    def _address(self) -> str:
        return connect.MEMORY if self.path == connect.MEMORY else connect.uri(self.path, "mode=rw")

    def _prepare(self, connection: sqlite3.Connection, name: str, at: int) -> int:
        """Bring the file up to date and enrol; the worker's number."""
        known = migrate.read(migrate.find())
        failpoint = self._failpoint or _nothing
        connect.prepare(connection, known, path=self.path, synchronous=self._synchronous, failpoint=failpoint)
        tables = Tables(connection, self._sql)
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._check_codec(tables)
            number = connection.execute(self._sql["enrol"], {"name": name, "pid": os.getpid(), "at": at}).lastrowid
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise
        assert number is not None
        return number

    def _check_codec(self, tables: Tables) -> None:
        tables.change("meta_keep", {"name": "codec", "value": self._codec})
        ((kept,),) = tables.all("meta_value", {"name": "codec"})
        if kept != self._codec:
            raise JournalMismatch(
                f"{self.path} was created with the codec {kept or 'none'!r}, this engine has {self._codec or 'none'!r}: "
                "open it with the first one"
            )

    async def _open_reader(self, pauses: Pauses) -> None:
        if self.path == connect.MEMORY:
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
            # ends, all else in it hears of it in the same turn, and what is given back then is still taken.
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
        self._dismiss()

    def _links(self) -> list[Link]:
        writing = None if self._writer is None else self._writer.link
        return [link for link in (self._reader, writing) if link is not None]

    def _abandon(self) -> None:
        for link in self._links():
            link.abandon()

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
        released = writer.submit(partial(verbs.release, at=at), drives=False)
        writer.finish()
        await asyncio.wait([life])
        if released.exception() is None:
            failpoint("close.after_release")
        if writer.link.is_open:
            await writer.checkpoint("TRUNCATE")
        for link in self._links():
            await link.close()
        self._dismiss()

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

    # Writes of clients -----------------------------------------------------------------------------------------------

    def _submit(self, act: Callable[[verbs.Desk], T | Exception], *, drives: bool = True) -> asyncio.Future[T]:
        return self._open_writer().submit(act, drives=drives)

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise EngineClosed(f"the journal {self.path} is not open")
        return self._writer

    def start(self, new: NewRun, if_exists: IfExists, *, drive: bool) -> asyncio.Future[Started]:
        """Store a run; with `drive`, this worker holds it from its first moment on."""
        return self._submit(lambda desk: verbs.start(desk, new, if_exists, drive=drive), drives=False)

    def cancel(self, run_id: str, request: CancelRequest) -> asyncio.Future[RunRow]:
        """Ask a run to end; the run afterwards."""
        return self._submit(lambda desk: verbs.cancel(desk, run_id, request), drives=False)

    def resume(self, run_id: str, how: Resumption) -> asyncio.Future[Resumed]:
        """Make a failed or parked run pending again."""
        return self._submit(lambda desk: verbs.resume(desk, run_id, how), drives=False)

    def settle(self, run_id: str, how: Settlement) -> asyncio.Future[RunRow]:
        """Decide what is in doubt, and make the run pending again."""
        return self._submit(lambda desk: verbs.settle(desk, run_id, how), drives=False)

    def discard(self, run_id: str, at: int) -> asyncio.Future[RunRow]:
        """Mark a dead letter as seen to."""
        return self._submit(lambda desk: verbs.discard(desk, run_id, at), drives=False)

    # Writes of the worker --------------------------------------------------------------------------------------------

    def claim(
        self, workflows: Collection[str], now: int, limit: int, *, suspects: bool
    ) -> asyncio.Future[list[Claimed]]:
        """Take up to `limit` runs that are pending, or suspended and due, oldest due first."""
        return self._submit(lambda desk: verbs.claim(desk, workflows, now, limit, suspects=suspects))

    def reclaim(self, hold: Hold, at: int) -> asyncio.Future[None]:
        """Take a suspended run again whose body this worker still has."""
        return self._submit(lambda desk: verbs.reclaim(desk, hold, at))

    def record(self, hold: Hold, entry: Entry) -> asyncio.Future[None]:
        """Append one outcome."""
        return self._submit(lambda desk: verbs.record(desk, hold, entry))

    def intend(self, hold: Hold, intent: Intent) -> asyncio.Future[None]:
        """Note that an at-most-once step is about to begin."""
        return self._submit(lambda desk: verbs.intend(desk, hold, intent))

    def fail(self, hold: Hold, attempt: FailedAttempt) -> asyncio.Future[None]:
        """Keep a failed attempt, and when the next one may begin."""
        return self._submit(lambda desk: verbs.fail(desk, hold, attempt))

    def amend(
        self, hold: Hold, changed: Sequence[tuple[str, str, bytes]], removed: Sequence[str]
    ) -> asyncio.Future[None]:
        """Rewrite entries as a person accepted it."""
        return self._submit(lambda desk: verbs.amend(desk, hold, changed, removed))

    def settle_changes(self, hold: Hold) -> asyncio.Future[None]:
        """Note that the replay for which changes were accepted is over."""
        return self._submit(lambda desk: verbs.settle_changes(desk, hold))

    def suspend(self, hold: Hold, waits: Sequence[Wait], at: int) -> asyncio.Future[Suspension]:
        """Give the run back until one of `waits` is over, unless news has come for it."""
        return self._submit(lambda desk: verbs.suspend(desk, hold, waits, at))

    def end(self, hold: Hold, end: End) -> asyncio.Future[None]:
        """Stop the run for good, or park it."""
        return self._submit(lambda desk: verbs.end(desk, hold, end))

    def give_back(self, hold: Hold, at: int) -> asyncio.Future[None]:
        """Make a run pending again without counting a death."""
        return self._submit(lambda desk: verbs.give_back(desk, hold, at))

    def take_over(
        self, dead: Sequence[int], max_recoveries: int, parked_result: bytes, at: int
    ) -> asyncio.Future[list[RunRow]]:
        """Free the runs that dead workers drove, and strike those workers off; the runs that were freed or parked."""
        return self._submit(lambda desk: verbs.take_over(desk, dead, max_recoveries, parked_result, at))

    # Reads -----------------------------------------------------------------------------------------------------------

    async def _read(self, look: queries.Look[T]) -> T:
        """Look at one state of the journal; wait for as long as the storage is in trouble."""
        writer = self._open_writer()
        reader = self._reader
        if reader is None:
            return await writer.submit(look, drives=False)
        patience = Patience(Pauses(asyncio.get_running_loop().time, self._sleep, self._chance), self.path)
        while True:
            try:
                seen = await reader.run(lambda connection: queries.snapshot(Tables(connection, self._sql), look))
            except sqlite3.Error as error:
                fault = fault_of(error)
                if fault is Fault.REFUSED:
                    raise translate(error, path=self.path) from error
                await patience.wait(fault, error)
            else:
                patience.over()
                return seen

    async def run(self, run_id: str) -> RunRow | None:
        """The run of this id, or None."""
        return await self._read(lambda tables: queries.run(tables, run_id))

    async def runs(self, query: RunQuery) -> list[RunRow]:
        """The runs that a query asks for."""
        return await self._read(lambda tables: queries.runs(tables, query))

    async def count(self, query: RunQuery) -> int:
        """How many runs a query asks for; its limit is ignored."""
        return await self._read(lambda tables: queries.count(tables, query))

    async def entries(self, run: int) -> list[Entry]:
        """All entries of a run by their order, `removed` ones included."""
        return await self._read(lambda tables: queries.entries(tables, run))

    async def memory(self, run: int) -> Memory:
        """All that is known of what a run has done and waits for."""
        return await self._read(lambda tables: queries.memory(tables, run))

    async def waits(self, run: int) -> list[Wait]:
        """What a run waited for when it was last suspended."""
        return await self._read(lambda tables: queries.waits(tables, run))

    async def next_due(self, workflows: Collection[str]) -> int | None:
        """When the next suspended run of these workflows is due, or None."""
        return await self._read(lambda tables: queries.next_due(tables, workflows))

    async def backlog(self) -> list[tuple[str, str, int]]:
        """Name, origin and number of the pending or due-to-come runs, by workflow."""
        return await self._read(queries.backlog)

    async def workers(self) -> list[WorkerRow]:
        """All other workers that are enrolled, dead or alive."""
        me = self._open_writer().me
        return await self._read(lambda tables: queries.workers(tables, me))
