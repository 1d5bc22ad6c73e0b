"""A connection on a thread of its own, driven by the public API of aiosqlite alone.

aiosqlite runs one method of the connection in one hop to its thread. `commit()` is such a method, takes nothing and
gives nothing, and the class of the connection may be ours: so here `commit()` runs the next job, whatever it is, and a
whole batch of writes costs one hop.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import aiosqlite

from ..errors import EngineClosed
from .estate import Gate

__all__ = ["Guardian", "JobConnection", "Link", "aside"]

T = TypeVar("T")

Job = Callable[[sqlite3.Connection], object]

BUSY_SECONDS = 0.25
"""How long SQLite itself waits for a lock: it polls, and is not fair, so longer waits are ours."""


class JobConnection(sqlite3.Connection):
    """A connection whose `commit` runs the next job, and which says farewell before it closes."""

    def __init__(
        self,
        *args: Any,
        jobs: deque[Job],
        farewell: Callable[[sqlite3.Connection], None] | None,
        gate: Gate,
        **kwargs: Any,
    ) -> None:
        with gate:
            super().__init__(*args, **kwargs)
            gate.connection = self
        self._jobs = jobs
        self._farewell = farewell
        self._gate = gate

    def commit(self) -> None:
        """Run the next job."""
        with self._gate:
            self._jobs.popleft()(self)

    def close(self) -> None:
        """Say farewell, then close."""
        with self._gate:
            farewell, self._farewell = self._farewell, None
            if farewell is not None:
                farewell(self)
            super().close()
            self._gate.connection = None


class Link:
    """One connection and its thread.

    Args:
        database: What SQLite opens: a `file:` URI or `:memory:`.
        gate: Is held while the connection is at work.
        connection: The class of the connection.
        farewell: Runs on the thread before the connection closes, however it comes to that; must not raise.
    """

    def __init__(
        self,
        database: str,
        *,
        gate: Gate | None = None,
        connection: type[JobConnection] = JobConnection,
        farewell: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        self._jobs: deque[Job] = deque()
        self._db = aiosqlite.connect(
            database,
            factory=partial(connection, jobs=self._jobs, farewell=farewell, gate=gate or Gate()),
            uri=True,
            check_same_thread=False,  # a forked child may have to close what it has inherited
            isolation_level=None,
            timeout=BUSY_SECONDS,
            cached_statements=256,
        )
        self._open = False
        self._ended: asyncio.Future[Any] | None = None

    @property
    def is_open(self) -> bool:
        """Whether jobs may be given to it."""
        return self._open

    async def open(self) -> None:
        """Connect. Cancelled meanwhile, it waits for the connection all the same, so that somebody can close it."""
        connecting = asyncio.ensure_future(self._connect())
        try:
            await asyncio.shield(connecting)
        except asyncio.CancelledError:
            await asyncio.wait((connecting,))
            raise

    async def _connect(self) -> None:
        await self._db
        self._open = True

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a job on the connection's thread, in one hop; what is cancelled here still runs there.

        Raises:
            EngineClosed: The connection was closed.
        """
        if not self._open:
            raise EngineClosed("the journal is closed")
        answer: list[T] = []
        self._jobs.append(lambda connection: answer.append(job(connection)))
        await self._db.commit()
        return answer[0]

    async def close(self) -> None:
        """Close, and wait for the end of the thread; harmless when closed or stopped before."""
        if self._open:
            self._open = False
            await self._db.close()
        await self.ended()

    def stop(self) -> None:
        """Let go without waiting, on the running loop: the thread finishes its jobs, says farewell and ends."""
        if self._open:
            self._open = False
            self._ended = _stop(self._db)

    def abandon(self) -> None:
        """The same for a thread that has no event loop, so that nothing is left to wait for."""
        if self._open:
            self._open = False
            _stop(self._db)

    async def ended(self) -> None:
        """Wait until a stopped thread has done its last job, so that nothing calls into a loop that is closed."""
        if self._ended is not None:
            await asyncio.shield(self._ended)


def _nothing() -> None:
    """What a guardian that was dismissed abandons."""


async def aside(job: Callable[[], T]) -> T:
    """Run a job that has nothing to do with a connection, and may take long, on a thread of its own.

    Not on one of the loop's executor: that could not be shut down where the main thread has ended.
    """
    link = Link(":memory:")
    try:
        await link.open()
        return await link.run(lambda _connection: job())
    finally:
        await link.close()


def _stop(db: aiosqlite.Connection) -> asyncio.Future[Any] | None:
    # aiosqlite leaves open what the future gives.
    return db.stop()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


class Guardian:
    """Lets an interpreter exit whose engine was never closed: aiosqlite's threads are no daemons.

    A daemon thread that waits for the end of the thread that opened the journal, or of the main thread where that one
    is a daemon itself.

    Args:
        abandon: Called when the watched thread has ended and `dismiss` was not called.
        patience: Seconds after which it looks whether it was dismissed.
    """

    def __init__(self, abandon: Callable[[], None], *, patience: float = 1.0) -> None:
        here = threading.current_thread()
        self._watched = threading.main_thread() if here.daemon else here
        self._abandon = abandon
        self._patience = patience
        self._dismissed = False
        threading.Thread(target=self._watch, name="durable_sqlite guardian", daemon=True).start()

    def _watch(self) -> None:
        while not self._dismissed:
            # Not is_alive() alone: join returns at the moment of the end.
            self._watched.join(self._patience)
            if not self._watched.is_alive():
                self._abandon()
                return

    def dismiss(self) -> None:
        """The journal was closed."""
        self._dismissed = True
        self._abandon = _nothing  # the thread looks a while later, and must not keep all that was open alive until then
