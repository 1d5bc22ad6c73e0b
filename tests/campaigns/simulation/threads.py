"""What the engine does in threads, done by queues in virtual time: the world says whose turn it is."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar, cast
from unittest.mock import patch

from durable_sqlite import _session
from durable_sqlite._sqlite import door, files, journal, writer
from durable_sqlite._sqlite.estate import Gate
from durable_sqlite._sqlite.link import Job, JobConnection
from durable_sqlite._sqlite.vigil import Vigil, VigilSettings
from durable_sqlite.errors import EngineClosed

__all__ = ["Threads", "no_threads"]

T = TypeVar("T")


class Threads(Protocol):
    """The threads of one process, as its loop knows them."""

    connections: list[sqlite3.Connection]
    """All that were ever opened in it."""
    over: bool
    """Its process has ended: nothing of it goes on."""

    def time(self) -> float:
        """Seconds that never go back."""
        ...

    def latency(self) -> float:
        """Seconds until a thread has done its next job."""
        ...

    def later(self, when: float, job: Callable[[], object]) -> None:
        """Let a thread do a job at a time."""
        ...


def _here() -> Threads:
    return cast("Threads", cast("Any", asyncio.get_running_loop()).threads)


async def _hop(threads: Threads, when: float, job: Callable[[], T]) -> T:
    """Let a thread do a job, which is done even if nobody waits for it any more."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            value = job()
        except Exception as error:
            loop.call_soon_threadsafe(_refuse, answer, error)
        else:
            loop.call_soon_threadsafe(_answer, answer, value)

    threads.later(when, run)
    return await answer


def _answer(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _refuse(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


class _Link:
    """A connection on a thread of its own; stands in for the one that drives aiosqlite."""

    def __init__(
        self,
        database: str,
        *,
        gate: Gate | None = None,
        connection: type[JobConnection] = JobConnection,
        farewell: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        self._threads = _here()
        self._jobs: deque[Job] = deque()
        self._database = database
        self._factory = partial(connection, jobs=self._jobs, farewell=farewell, gate=gate or Gate())
        self._connection: JobConnection | None = None
        self._free = 0.0
        self._open = False
        self._closing: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether jobs may be given to it."""
        return self._open

    def _next(self) -> float:
        """When its thread has done one job more: one after the other."""
        self._free = max(self._free, self._threads.time()) + self._threads.latency()
        return self._free

    async def open(self) -> None:
        """Connect."""
        connecting = asyncio.ensure_future(_hop(self._threads, self._next(), self._begin))
        try:
            await asyncio.shield(connecting)
        except asyncio.CancelledError:
            await asyncio.wait((connecting,))
            raise

    def _begin(self) -> None:
        self._connection = connection = self._factory(
            self._database, uri=True, isolation_level=None, timeout=0, cached_statements=256
        )
        self._threads.connections.append(connection)
        self._open = True

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a job on the thread."""
        if not self._open or self._connection is None:
            raise EngineClosed("the journal is closed")
        answer: list[T] = []
        self._jobs.append(lambda connection: answer.append(job(connection)))
        await _hop(self._threads, self._next(), self._connection.commit)
        return answer[0]

    async def close(self) -> None:
        """Close, and wait for the end of the thread."""
        if self._open and self._connection is not None:
            self._open = False
            await _hop(self._threads, self._next(), self._connection.close)
        await self.ended()

    def stop(self) -> None:
        """Let go without waiting."""
        if self._open and self._connection is not None and not self._threads.over:
            self._open = False
            closing = _hop(self._threads, self._next(), self._connection.close)
            self._closing = asyncio.get_running_loop().create_task(closing)

    def abandon(self) -> None:
        """The same."""
        self.stop()

    async def ended(self) -> None:
        """Wait until a stopped thread has done its last job."""
        if self._closing is not None:
            await asyncio.shield(self._closing)


class _Vigil(Vigil):
    """The keeper of a lease, whose thread wakes in virtual time."""

    def __init__(self, settings: VigilSettings) -> None:
        self._threads = threads = _here()
        super().__init__(replace(settings, now=threads.time))
        self._lease = settings.lease

    def begin(self) -> None:
        """Watch until `end`."""

        def first() -> None:
            try:
                with self._settings.gate:
                    self._connect()
            except sqlite3.Error:
                pass
            self._again(self._lease / 5)

        self._threads.later(self._threads.time() + self._threads.latency(), first)

    def _again(self, pause: float) -> None:
        self._threads.later(self._threads.time() + pause, self._wake)

    def _wake(self) -> None:
        if not self._stop.is_set():
            self._again(self.turn())

    def end(self) -> None:
        """Watch no longer."""
        if not self._stop.is_set():
            self._stop.set()
            self._threads.later(self._threads.time(), self.close)

    def _connect(self) -> sqlite3.Connection:
        connection = super()._connect()
        self._threads.connections.append(connection)
        return connection


class _Guardian:
    """Nobody waits for the end of the interpreter."""

    def __init__(self, _abandon: Callable[[], None]) -> None:
        pass

    def dismiss(self) -> None:
        """The journal was closed."""


async def _aside(job: Callable[[], T]) -> T:
    threads = _here()
    return await _hop(threads, threads.time() + threads.latency(), job)


def _timeless(_path: str) -> tuple[int, int]:
    """When a WAL was written to is the machine's time: the mark has to do."""
    return 0, 0


@contextmanager
def no_threads() -> Generator[None, None, None]:
    """Let engines on a loop that has `threads` begin no real ones, and poll as seldom as fits a lease of a few seconds."""
    with ExitStack() as stack:
        for module, name, stand_in in (
            (door, "Link", _Link),
            (door, "Vigil", _Vigil),
            (door, "Guardian", _Guardian),
            (door, "aside", _aside),
            (writer, "aside", _aside),
            (door, "BUSY_SECONDS", 0),
            (files, "_LOOK_EVERY", 1),  # else the time of the folder, which is the machine's, would decide
            (journal, "written_at", _timeless),
            (_session, "_LISTEN_OFTEN", 0.1),
            (_session, "_LISTEN_SELDOM", 0.4),
            (_session, "LOOK_EVERY", 0.4),
        ):
            stack.enter_context(patch.object(module, name, stand_in))
        yield
