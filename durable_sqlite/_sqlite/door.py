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

from ..errors import EngineClosed, JournalDamaged, JournalError, JournalMismatch, UsageError, again
from ..journal import Lease
from . import connect, driving, migrate, queries, statements, sums, user_schema
from .backup import Copier
from .checkpoints import WAL_ALARM_BYTES
from .desk import Desk
from .estate import Estate, settle
from .faults import STORAGE_ERRORS, Fault, fault_of, translate
from .files import Files
from .link import BUSY_SECONDS, Guardian, JobConnection, Link, aside
from .mark import Mark, mark_file
from .past import compare
from .patience import LOGGER, Patience, Pauses
from .reader import Reader, ReaderSettings
from .rows import Tables
from .transactions import Bench, Given
from .verify import Hop, remember_schema
from .vigil import Vigil, VigilSettings
from .writer import Settings, Writer

__all__ = ["Door"]

T = TypeVar("T")

_LOOKS = 100  # how often in the time of a lease it is seen whether that is certain again


def _nothing(_name: object) -> None:
    """The failpoint that never fails, and who hears of nothing."""


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
        alarm_bytes: The size of the WAL from which people are told that it grows.
        monotonic: Seconds on a clock that never goes back: how long transactions take, and how long the storage.
        schema: A folder of numbered SQL files for the application's own tables.
        patience: Seconds after which those who ask for the application are told that the storage does not answer.
        network: Open the file even if it is on a network file system.
        broken: Called on the loop, once, with the reason when nothing can be written any more.
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
        alarm_bytes: int = WAL_ALARM_BYTES,
        monotonic: Callable[[], float] = time.monotonic,
        schema: Path | None = None,
        patience: float = 30.0,
        network: bool = False,
        broken: Callable[[JournalError], None] = _nothing,
    ) -> None:
        name = os.fspath(path)
        self.path = name if name == connect.MEMORY else str(Path(name).absolute())
        self._synchronous: connect.Synchronous = synchronous
        self._codec = codec
        self._failpoint = failpoint
        # Random: it spreads retries, and keeps no secret.
        self._pauses = Pauses(monotonic, sleep, chance or Random().random)  # noqa: S311
        self._patience = patience
        self._network = network
        self._broken = broken
        self._connection = connection
        self._checkpoint_bytes = checkpoint_bytes
        self._alarm_bytes = alarm_bytes
        self._sql = statements.load()
        self._bench = Bench(self._sql, monotonic)
        self._schema = schema
        self._estate = Estate(None if self._is_in_memory else self.path, self)
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._copier = Copier(self.path, failpoint or _nothing)
        self._guardian: Guardian | None = None
        self._lease: Lease | None = None
        self._vigil: Vigil | None = None
        self._vigil_ended: asyncio.Future[None] | None = None
        self._life: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    # Life ------------------------------------------------------------------------------------------------------------

    async def open(self, name: str, at: int, lease: Lease | None = None) -> None:
        """Open or create the journal and enrol this worker under `name`; its lease is kept from then on.

        Raises:
            NotAJournal: The file is something else; it was not touched.
            JournalTooNew: Written by a newer version of this library.
            JournalMismatch: It was created with another codec.
            JournalError: It cannot be opened, or is open here already.
        """
        if self._writer is not None:
            raise JournalError(f"this journal object was opened before: make another for {self.path}")
        self._estate.opening = True
        try:
            await self._open(name, at, lease)
        finally:
            self._estate.opening = False

    async def _open(self, name: str, at: int, lease: Lease | None) -> None:
        if not self._is_in_memory:
            settle(self.path)
            await self._inspect()
        self._lease = lease
        writer = self._writer = Writer(self._settings())
        try:
            await writer.link.open()
            writer.batch.me = await self._patiently(
                lambda: writer.link.run(lambda connection: self._prepare(writer, connection, name, at))
            )
            writer.witness()
            await self._open_reader(writer)
        except BaseException as error:
            writer.finish()
            await self._let_go()
            if isinstance(error, STORAGE_ERRORS):
                raise translate(error, path=self.path) from error
            raise
        self._guardian = Guardian(self._abandon)
        self._keep_lease(writer)
        self._life = asyncio.create_task(self._live(writer), name="durable_sqlite writer")

    def _keep_lease(self, writer: Writer) -> None:
        lease = self._lease
        if lease is None or self._is_in_memory:
            return
        loop = asyncio.get_running_loop()
        ended = self._vigil_ended = loop.create_future()

        def on_loop(call: Callable[..., object], *args: object) -> None:
            with suppress(RuntimeError):  # the loop is closed, and nobody drives anything any more
                loop.call_soon_threadsafe(call, *args)

        self._vigil = Vigil(
            VigilSettings(
                connect=self._connect_vigil,
                gate=self._estate.gate(),
                sql=self._sql,
                lease=lease.length / 1_000_000,
                me=lambda: writer.batch.me,
                commits=lambda: writer.batch.commits,
                at=lease.at,
                ticked=lease.ticked,
                lapsed=partial(on_loop, lease.lapsed),
                ended=partial(on_loop, ended.set_result, None),
                needed=lambda: not loop.is_closed(),
            )
        )
        self._vigil.begin()

    def _connect_vigil(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._address(),
            uri=True,
            isolation_level=None,
            timeout=BUSY_SECONDS,
            check_same_thread=False,  # a forked child may have to close what it has inherited
        )
        # A renewal that a power cut takes back renewed nothing that is left.
        connect.configure(connection, synchronous="normal")
        return connection

    async def _end_vigil(self) -> None:
        if self._vigil is not None and self._vigil_ended is not None:
            self._vigil.end()
            await asyncio.shield(self._vigil_ended)

    def _struck(self) -> None:
        if self._lease is not None:
            self._lease.lapsed("it did not renew its lease in time, and others have taken its runs over")

    async def _inspect(self) -> None:
        await aside(partial(connect.inspect, self.path, self._failpoint or _nothing, network=self._network))

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
            new_link=self._new_link,
            configure=self._configure,
            failpoint=self._failpoint,
            checkpoint_bytes=self._checkpoint_bytes,
            alarm_bytes=self._alarm_bytes,
            bench=self._bench,
            struck=self._struck,
            pauses=self._pauses,
            patience=self._patience,
            broken=self._broken,
        )

    def _new_link(self, farewell: Callable[[sqlite3.Connection], None] | None = None, *, mode: str = "rw") -> Link:
        gate = self._estate.gate()
        return Link(self._address(mode), gate=gate, connection=self._connection, farewell=farewell)

    def _configure(self, connection: sqlite3.Connection) -> None:
        """Make a connection the writer's; once, because this throws away what it has prepared."""
        connect.configure(connection, synchronous=self._synchronous)
        self._bench.take(connection)
        sums.arm(connection)

    @property
    def _is_in_memory(self) -> bool:
        return self.path == connect.MEMORY

    def _address(self, mode: str = "rw") -> str:
        return connect.MEMORY if self._is_in_memory else connect.uri(self.path, f"mode={mode}")

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
        mark = writer.batch.mark = writer.batch.mark or self._open_mark()
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._check_codec(tables)
            number = self._enrol(connection, name, at)
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

    def _enrol(self, connection: sqlite3.Connection, name: str, at: int) -> int:
        facts: dict[str, object] = {"name": name, "pid": os.getpid(), "at": at, "host": "", "lease": 15_000_000}
        if self._lease is not None:
            facts |= {"host": self._lease.host, "lease": self._lease.length}
        number = connection.execute(self._sql["enrol"], facts).lastrowid
        assert number is not None
        return number

    async def assured(self) -> None:
        """Wait until nobody else can have taken this worker's runs; where somebody has, for ever."""
        while self._lease is not None and self._vigil is not None and not self._vigil.is_sure:
            await self._pauses.sleep(self._lease.length / 1_000_000 / _LOOKS)

    async def rejoin(self, name: str, at: int) -> None:
        """Give back what this worker still holds, and begin anew as another one."""
        writer = self._open_writer()
        await writer.between(lambda connection: self._begin_anew(writer, connection, name, at))

    def _begin_anew(self, writer: Writer, connection: sqlite3.Connection, name: str, at: int) -> None:
        number: int | None
        connection.execute("BEGIN IMMEDIATE")
        try:
            ((number,),) = connection.execute(self._sql["enrolled"], {"name": name}).fetchall() or ((None,),)
            tables = Desk(connection, self._sql, writer.batch.me, fenced=False)
            if number is None:  # else an earlier try of this landed, though its COMMIT failed
                driving.release(tables, at)
                number = self._enrol(connection, name, at)
            ((identity,),) = tables.all("meta_value", {"name": "identity"})
            tables.change("sign_workers", {"identity": identity})
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise
        writer.batch.me, writer.batch.commits = number, 0
        if writer.batch.mark is not None:
            writer.batch.mark.take(identity, number)

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
        connection = connect.for_the_application(self.path, synchronous=self._synchronous)
        self._estate.lend(connection)
        return connection

    async def _open_reader(self, writer: Writer) -> None:
        if writer.files is not None:
            reader = self._reader = self._new_reader(writer, writer.files)
            await reader.open()
            await self._patiently(reader.begin)

    def _new_reader(self, writer: Writer, files: Files) -> Reader:
        return Reader(
            ReaderSettings(
                path=self.path,
                sql=self._sql,
                new_link=lambda: self._new_link(mode="ro"),
                configure=partial(connect.configure, synchronous=self._synchronous, readonly=True),
                files=files,
                pauses=self._pauses,
                patience=self._patience,
                missing=writer.look_at_files,
            )
        )

    async def _patiently(self, hop: Callable[[], Awaitable[T]]) -> T:
        """Try again for as long as another process holds the lock."""
        patience = Patience(self._pauses, self.path)
        while True:
            try:
                return await hop()
            except sqlite3.Error as error:
                if fault_of(error) is not Fault.BUSY:
                    raise
                await patience.wait(Fault.BUSY, error)

    async def _live(self, writer: Writer) -> None:
        try:
            await writer.serve()
            if writer.broken is not None:
                await self._leave_alone()
        except asyncio.CancelledError:
            if self._estate.inherited:
                return
            # The loop ends, or `stop` was called. The end of a program is no outcome: let go, quietly. Where the loop
            # ends, all else in it hears of it in the same turn, and what is given back then is still taken. Where both are
            # so, the second cancellation comes here.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            writer.finish()
            await self._let_go()
            writer.fail(EngineClosed(f"the journal {self.path} was let go before this write was committed"))
        except Exception as error:  # noqa: BLE001 - nobody awaits this task: its end is everybody's answer
            if self._estate.inherited:
                return  # it went on in a forked child, where asyncio has no loop for it
            LOGGER.exception("the writer of %s is broken", self.path)
            writer.stop_for_good(JournalError(f"the writer of {self.path} is broken: {error!r}. Open the journal anew"))
            await self._leave_alone()

    async def _let_go(self) -> None:
        """Stop the threads, which still commit what is queued, and wait for their end."""
        self._copier.stop()
        await self._end_vigil()
        # The reader last: where the files were taken away, it cannot do anything to those that have their names now.
        for link in reversed(self._links()):
            link.stop()
            await link.ended()
        self._shut(self._writer)

    async def _leave_alone(self) -> None:
        """Close without touching the files, which are others' by now."""
        await self._end_vigil()
        for link in reversed(self._links()):
            try:
                await link.close()
            except sqlite3.Error as error:
                LOGGER.warning("a connection to %s could not be closed: %s", self.path, error)
        self._shut(self._writer)

    def _links(self) -> list[Link]:
        """The connections; the writer's closes last where all is well, and puts the files away."""
        reading = None if self._reader is None else self._reader.link
        writing = None if self._writer is None else self._writer.link
        return [link for link in (*self._copier.links, reading, writing) if link is not None]

    def _abandon(self) -> None:
        if self._vigil is not None:
            self._vigil.end()
        self._copier.stop()
        for link in self._links():
            link.abandon()

    def _shut(self, writer: Writer | None) -> None:
        if writer is not None and writer.batch.mark is not None:
            writer.batch.mark.close()
        self._dismiss()

    def _dismiss(self) -> None:
        if self._vigil is not None:
            self._vigil.end()
        if self._guardian is not None:
            self._guardian.dismiss()

    async def close(self, at: int) -> None:
        """Commit what is queued, give every run that this worker drives back, and sign off."""
        if self._writer is None or self._life is None or self._estate.inherited:
            return
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(self._writer, self._life, at), name="durable_sqlite close")
        await asyncio.shield(self._closing)

    async def _close(self, writer: Writer, life: asyncio.Task[None], at: int) -> None:
        failpoint = self._failpoint or _nothing
        await self._copier.close()
        failpoint("close.before_release")
        released = writer.submit(partial(driving.release, at=at), drives=False)
        writer.finish()
        await asyncio.wait([life])
        if (error := released.exception()) is None:
            failpoint("close.after_release")
        elif writer.broken is None:
            LOGGER.error("%s is closed, and its runs could not be given back: %s", self.path, error)
        await self._end_vigil()
        if writer.link.is_open:
            await writer.checkpoint("TRUNCATE")
        if writer.broken is not None:
            await self._leave_alone()
            return
        for link in self._links():
            try:
                await link.close()
            except sqlite3.Error as error:
                LOGGER.warning("a connection to %s could not be closed: %s", self.path, error)
        self._shut(writer)

    def stop(self) -> None:
        """Let go without waiting, as the end of the program does: what is queued is still committed."""
        if self._writer is None or self._life is None or self._estate.inherited:
            return
        self._copier.stop()
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
        late: Callable[[T], object] | None = None,
    ) -> asyncio.Future[T]:
        """Let the writer do it; `drives` says that a worker which was struck off may not do it any more.

        What drives no run was asked for by the application, and does not wait for ever.
        """
        return self._open_writer().submit(act, drives=drives, blame=blame, late=late)

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise EngineClosed(f"the journal {self.path} is not open")
        return self._writer

    @asynccontextmanager
    async def _aside(self) -> AsyncGenerator[Hop]:
        """A way to look that holds up nobody: on a connection of its own, where there can be one."""
        writer = self._open_writer()
        if writer.files is None:
            yield partial(self._read, patient=False)
            return
        reader = self._new_reader(writer, writer.files)
        try:
            await reader.open()
            await self._patiently(reader.begin)
            yield partial(reader.read, patient=False)
        finally:
            await reader.link.close()

    async def _read(self, look: queries.Look[T], *, patient: bool = True) -> T:
        """Look at one state of the journal; `patient` is who waits for as long as the storage is in trouble."""
        writer = self._open_writer()
        if writer.broken is not None:
            raise again(writer.broken)
        if self._reader is None:
            return await writer.submit(partial(_look_between, look), drives=False, patient=patient)
        return await self._reader.read(look, patient=patient)


def _look_between(look: queries.Look[T], desk: Desk) -> T:
    """Look in the middle of a batch: what is changed after it in the same commit has a number of its own."""
    seen = look(desk)
    desk.tick = 0
    return seen
