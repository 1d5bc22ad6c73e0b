"""The journal of a test: the real adapter on a connection that outlives the process which the test kills.

What is different from a journal in use: nothing runs on threads, so a test repeats itself exactly; and each write has a
number and says what it is about, so that a test can kill the process just before or just after it.
"""
# A crash takes down what no door leads to.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

from .._codec import Vault, describe, dump_error
from .._sqlite import SqliteJournal, connect
from .._sqlite.desk import Desk
from .._sqlite.link import BUSY_SECONDS, Link
from .._sqlite.transactions import Given
from .._sqlite.writer import Writer
from .._tables import Work
from ..errors import DurableError
from ..journal import Lease

__all__ = ["KitJournal", "Store", "about"]

T = TypeVar("T")

_SAYS = {
    "record": "the outcome of {key}",
    "expire": "the outcome of {key}",
    "transact_step": "the outcome of {key}",
    "fail": "a failed attempt of {key}",
    "intend": "that {key} is about to begin",
    "ask": "the question {key}",
    "signal": "the message {name}",
    "answer": "the answer to {name}",
    "start": "the start of a run",
    "end": "the end of the run",
    "suspend": "that the run waits",
    "claim": "that the run is taken up",
    "reclaim": "that the run is taken up again",
    "take_over": "that the runs of the dead process are free",
}


_SUBJECTS = ("entry", "attempt", "intent", "question", "message", "answer")


class Store:
    """What survives a crash: an SQLite database in memory or in a file, through one connection.

    Args:
        path: The file; None for memory.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self.path = None if path is None else os.fspath(path)
        self.connection = sqlite3.connect(
            self.path or ":memory:", isolation_level=None, timeout=BUSY_SECONDS, cached_statements=256
        )

    def lose(self) -> None:
        """What is not committed is gone."""
        if self.connection.in_transaction:
            self.connection.rollback()

    def copy_to(self, other: Store) -> None:
        """Make another store, which is empty, the same as this one."""
        self.connection.backup(other.connection)

    def close(self) -> None:
        """Let go of it; what was in memory is gone."""
        self.connection.close()


class _Link(Link):
    """A connection without a thread: jobs run where they are asked for, one after the other."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open = False
        self._ended = None

    async def open(self) -> None:
        self._open = True

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        assert self._open  # or something would be written after the process has died
        return job(self._store.connection)

    async def close(self) -> None:
        self._open = False

    def stop(self) -> None:
        self._open = False


class KitJournal(SqliteJournal):
    """One process's life on a store.

    Args:
        store: What survives.
        ready: Is called as soon as the process has its parts, before it drives anything.
        vault: Seals what is stored.
        max_recoveries: After how many deaths in a row a run is parked.
        transaction: Is given each body of a transaction step, and may put another in its place.
        failpoint: Is called by name at each place where a crash is tried.
        options: As the adapter has them.
    """

    def __init__(
        self,
        store: Store,
        *,
        ready: Callable[[], None],
        vault: Vault,
        max_recoveries: int,
        transaction: Callable[[Work[Any]], Work[Any]],
        failpoint: Callable[[str], None],
        **options: Any,
    ) -> None:
        super().__init__(":memory:", failpoint=failpoint, sleep=_really, **options)
        self._store = store
        self._ready = ready
        self._vault = vault
        self._max_recoveries = max_recoveries
        self._transaction = transaction
        self.written: dict[int, str] = {}
        """What the write is about that is being committed: nothing, where somebody only looks."""

    async def open(self, name: str, at: int, lease: Lease | None = None) -> None:
        """Open it, and free what the process before this one has left: nobody else has it."""
        self._ready()
        await super().open(name, at, lease)
        if dead := [worker.no for worker in await self.workers()]:
            why = DurableError(f"{self._max_recoveries} processes in a row died while they drove this run")
            parked = self._vault.seal_error(dump_error(describe(why), 1), "crash_loop")
            await self.take_over(dead, self._max_recoveries, parked, at)

    async def _open(self, name: str, at: int, lease: Lease | None) -> None:
        self._lease = lease
        writer = self._writer = Writer(self._settings())
        await writer.link.open()
        writer.batch.me = self._prepare(writer, self._store.connection, name, at)
        self._life = asyncio.create_task(self._live(writer), name="durable_sqlite writer")

    def _new_link(self, farewell: Callable[[sqlite3.Connection], None] | None = None, *, mode: str = "rw") -> Link:
        del farewell, mode
        return _Link(self._store)

    def connect(self) -> sqlite3.Connection:
        """A connection of the application's own; where the journal is in memory, there is none."""
        if self._store.path is None:
            return super().connect()
        connection = connect.for_the_application(self._store.path, synchronous="normal")
        self._estate.lend(connection)
        return connection

    def die(self) -> None:
        """From now on nothing is written, whoever asks for it."""
        writer = self._open_writer()
        writer.finish()
        writer.batch.queue.clear()
        writer.batch.operations.clear()
        writer.link.stop()

    def _submit(
        self,
        act: Callable[[Desk], T | Given[T] | BaseException],
        *,
        drives: bool = True,
        blame: Callable[[sqlite3.Error], object] | None = None,
        late: Callable[[T], object] | None = None,
    ) -> asyncio.Future[T]:
        told = about(act)

        def acting(desk: Desk) -> T | Given[T] | BaseException:
            given = act(desk)
            if given != []:  # else there was nothing to take up, and nothing is written
                self.written[id(act)] = told  # by the operation: it may be applied again, by itself
            return given

        return super()._submit(acting, drives=drives, blame=blame, late=late)

    def transact_step(self, hold: Any, entry: Any, work: Work[Any]) -> asyncio.Future[Any]:
        """As the adapter does, with the body that the test has put in the place of the step's own."""
        return super().transact_step(hold, entry, self._transaction(work))


def about(act: Callable[..., object]) -> str:
    """What an operation of the journal is about, in words, as far as it can be seen from outside."""
    parts = getattr(act, "__qualname__", "a write").split(".")
    verb = parts[1] if len(parts) > 1 else parts[0]
    free: tuple[str, ...] = getattr(getattr(act, "__code__", None), "co_freevars", ())
    names: dict[str, Any] = dict(zip(free, getattr(act, "__closure__", None) or (), strict=True))
    subject = next((names[name].cell_contents for name in _SUBJECTS if name in names), None)
    key, name = getattr(subject, "key", None), getattr(subject, "name", None)
    return _SAYS.get(verb, verb).format(key=key, name=name)


async def _really(seconds: float) -> None:
    """Wait for another connection, on the machine's time."""
    time.sleep(seconds)  # noqa: ASYNC251 - the only connection waits, and nothing else goes on here
