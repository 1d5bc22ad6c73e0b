"""One process: the real engine on a loop that turns when the world lets it, and threads that are queues."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import sqlite3
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Protocol

from durable_sqlite import Engine, Workflow
from durable_sqlite._clock import SystemClock
from durable_sqlite._ids import derived
from durable_sqlite.journal import Journal
from tests.support.sim_loop import Crash, SimLoop

from .storage import Mount, SimJournal, Storage

__all__ = ["LEASE", "Host", "Process", "WallClock"]

LEASE = 2.0
"""Seconds for which an engine may be silent."""

_START = 1_700_000_000_000_000  # some moment of 2023, in microseconds
_LATENCIES = (0.0, 0.0, 0.0005, 0.002, 0.03)
_PATIENCE = 3.0  # seconds for which an application waits for the storage


class Host(Protocol):
    """The machine on which processes live."""

    now: float
    """Seconds since the beginning, which never go back."""
    offset: float
    """Seconds by which the wall clock is wrong."""

    def failed(self, what: str) -> None:
        """Something came out of an engine that nobody expects."""
        ...


class WallClock(SystemClock):
    """The machine's clock, which may be set. Its naps are those of the real one."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def now(self) -> int:
        """The time in microseconds."""
        return _START + round((self._host.now + self._host.offset) * 1_000_000)


class _Loop(SimLoop):
    """Turns once at a time."""

    threads: Process

    def __init__(self, host: Host, shuffle: Random) -> None:
        super().__init__(0.0, shuffle)
        self._host = host

    def time(self) -> float:
        """The time of the machine."""
        return self._host.now

    def select(self, timeout: float | None) -> Sequence[Any]:
        """Nothing comes from outside, and no time passes."""
        return ()

    def next_at(self) -> float | None:
        """When it has something to do."""
        if self._ready:
            return self._host.now
        while self._scheduled and self._scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(self._scheduled)._scheduled = False
        return self._scheduled[0].when() if self._scheduled else None

    def turn(self) -> None:
        """Do what is ready."""
        asyncio._set_running_loop(self)
        try:
            self._run_once()
        finally:
            asyncio._set_running_loop(None)

    _ready: deque[Any]
    _scheduled: list[Any]
    _timer_cancelled_count: int


class _Engine(Engine):
    """The engine, with everything injected that is not the machine's."""

    def __init__(self, process: Process, storage: Storage, workflows: Sequence[Workflow[..., Any]], seed: str) -> None:
        super().__init__(
            storage.path,
            workflows=workflows,
            unload_after=process.chance.choice((0.0, 0.3, 5.0)),
            lease=LEASE,
            max_recoveries=1_000,
            storage_patience=_PATIENCE,
            step_threads=1,
            slow_loop=None,  # a thread would have a time of its own
            clock=WallClock(process.host),
        )
        numbers = itertools.count()

        def ids(_at: int) -> str:
            return derived(seed, str(next(numbers)))

        self._front.ids = ids
        self._chance = Random(f"{seed} jitter")
        self._failpoint = process.failpoint
        self._process = process
        self._seed = seed

    def _make_journal(self) -> Journal:
        assert self._path is not None
        return self._process.open_journal(self._path, self._seed, self._journal_options)


class Process:
    """One process, from its beginning until it ends or is killed.

    Args:
        number: Which one, counted from 0.
        host: The machine.
        storage: Its disk.
        workflows: What its engine knows.
        seed: Decides what chance decides in it.
    """

    def __init__(
        self, number: int, host: Host, storage: Storage, workflows: Sequence[Workflow[..., Any]], seed: str
    ) -> None:
        self.number = number
        self.host = host
        self.mount = Mount(storage)
        self.chance = Random(seed)
        self.connections: list[sqlite3.Connection] = []
        self.stands_until = 0.0
        """Until when nothing of it goes on."""
        self.drowsy = 0.0
        """By how many seconds its threads wake later than its loop where it stood still."""
        self.blocked_until = 0.0
        """Until when its loop does not turn; its threads do."""
        self.over = False
        """It has ended, or was killed."""
        self.open = False
        self.dies_at: tuple[str, int] | None = None
        """At which failpoint it dies, and how many are let pass before."""
        self.stands_after_commit = 0.0
        """For how many seconds it stands still as soon as it has committed something."""
        self.loop = _Loop(host, Random(f"{seed} order"))
        self.loop.threads = self
        self.loop.set_exception_handler(self._unexpected)
        self._hops: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self.journal: SimJournal | None = None
        self.engine = _Engine(self, storage, workflows, seed)
        self._main: asyncio.Task[None] = self.begin(self._enter())

    # As the engine's threads see it ----------------------------------------------------------------------------------

    def time(self) -> float:
        """Seconds that never go back."""
        return self.host.now

    def latency(self) -> float:
        """Seconds until a thread has done its next job."""
        return self.chance.choice(_LATENCIES)

    def later(self, when: float, job: Callable[[], object]) -> None:
        """Let a thread do a job at a time."""
        if not self.over:
            heapq.heappush(self._hops, (when, next(self._numbers), job))

    def open_journal(self, path: Path, seed: str, options: dict[str, Any]) -> SimJournal:
        """The journal through which its engine writes."""
        self.journal = SimJournal(
            self.mount,
            str(path),
            failpoint=self.failpoint,
            chance=Random(f"{seed} pauses").random,
            monotonic=self.time,
            checkpoint_bytes=96 * 1024,
            **options,
        )
        return self.journal

    def failpoint(self, name: str) -> None:
        """Die here, or stand still from here on, where that was decided."""
        if name == "commit.after" and self.stands_after_commit:
            self.stand(self.stands_after_commit)
            self.stands_after_commit = 0.0
        if self.dies_at is not None and self.dies_at[0] == name:
            self.dies_at = (name, self.dies_at[1] - 1) if self.dies_at[1] else None
            if self.dies_at is None:
                raise Crash

    # As the world sees it --------------------------------------------------------------------------------------------

    @property
    def worker(self) -> int:
        """The number under which it is enrolled; 0 where it is not."""
        writer = None if self.journal is None else self.journal._writer
        return 0 if writer is None else writer.batch.me

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let it do something more."""
        return self.loop.create_task(work)

    async def _enter(self) -> None:
        await self.engine.__aenter__()
        self.open = True

    def next_turn(self) -> float | None:
        """When its loop turns next."""
        at = self.loop.next_at()
        return None if at is None or self.over else max(at, self.stands_until, self.blocked_until)

    def next_hop(self) -> float | None:
        """When one of its threads has a job to do."""
        return None if self.over or not self._hops else max(self._hops[0][0], self.stands_until + self.drowsy)

    def stand(self, length: float) -> None:
        """Let nothing of it go on for so long."""
        self.stands_until = max(self.stands_until, self.host.now + length)
        self.drowsy = self.chance.choice((0.0, 0.05))

    def turn(self) -> None:
        """Let its loop turn once."""
        self._or_die(self.loop.turn)

    def hop(self) -> None:
        """Let a thread do its next job."""
        self._or_die(heapq.heappop(self._hops)[2])

    def _or_die(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Crash:
            self.kill()
            return
        if self._main.done() and not self.over:
            self.over = self._has_failed_to_open()

    def _has_failed_to_open(self) -> bool:
        if self._main.cancelled() or (error := self._main.exception()) is None:
            return False
        if self.open:
            raise error
        self.kill()  # the storage was in trouble: the program ends
        return True

    def close(self) -> None:
        """Let it close its engine, and end."""

        async def leave() -> None:
            await self.engine.close()
            self.kill()

        self.open = False
        self.begin(leave())

    def interrupt(self) -> None:
        """Let it end as by Ctrl-C: all tasks are cancelled, nothing is closed."""

        async def leave() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in sorted(others, key=_age):
                task.cancel()
            await asyncio.wait(others)
            self.kill()

        self.open = False
        self.begin(leave())

    def kill(self) -> None:
        """Nothing of it goes on, and what it has not committed is lost."""
        if self.over:
            return
        self.over, self.open = True, False
        self._hops.clear()
        for connection in self.connections:
            with suppress(sqlite3.Error):
                sqlite3.Connection.close(connection)

    def put_away(self) -> None:
        """Put away what it left in memory. A kill runs nothing of it, so nothing of it may be noticed."""
        self.kill()
        self.loop.set_exception_handler(lambda _loop, _context: None)
        asyncio._set_running_loop(self.loop)
        try:
            self._let_go()
            for task in asyncio.all_tasks(self.loop):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                coro: Any = task.get_coro()
                with suppress(RuntimeError):  # it waits while it is closed
                    coro.close()
        finally:
            asyncio._set_running_loop(None)
        self.loop.close()

    def let_lock_go(self) -> None:
        """Let the system release what it held: it is dead."""
        session = self.engine._session
        if session is not None and session._lifeline is not None:
            session._lifeline.forget()
        writer = None if self.journal is None else self.journal._writer
        if writer is not None and writer.batch.mark is not None:
            writer.batch.mark.close()

    def _let_go(self) -> None:
        self.let_lock_go()
        self.engine._let_go()
        session = self.engine._session
        if session is not None:
            session._closed = True
            session._threads.close()
            session.worker.abandon()

    def _unexpected(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not self.over:
            self.host.failed(f"{context.get('message')}: {context.get('exception')!r}")


def _age(task: asyncio.Task[Any]) -> tuple[bool, int, str]:
    """An order that repeats itself: named ones first, then as they were created, which their names tell."""
    name, _, number = task.get_name().rpartition("-")
    return (True, int(number), "") if name == "Task" and number.isdigit() else (False, 0, task.get_name())
