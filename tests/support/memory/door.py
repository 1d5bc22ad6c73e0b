"""The life of a worker's door to a disk: what is asked is queued, and applied as one batch at the commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from durable_sqlite._records import Claimed, Hold, News, RunRow, State, WorkerRow
from durable_sqlite._sqlite.transactions import Given, given
from durable_sqlite.errors import EngineClosed, LeaseLost
from durable_sqlite.journal import Lease
from tests.support.disk import Disk

__all__ = ["Door", "lost"]

T = TypeVar("T")


class Door:
    """One worker's door to a disk.

    Args:
        disk: What survives.
        delay: Seconds of the loop's time until a commit; None: at the loop's next turn.
        crash_at: At which commit of this life the process dies; the first is the one that enrols it.
        crash_lands: That last commit is on the disk, though nobody was told.
        on_crash: Called at the crash. Whatever was asked then, or is asked later, is never answered.
    """

    def __init__(
        self,
        disk: Disk,
        *,
        delay: float | None = None,
        crash_at: int | None = None,
        crash_lands: bool = False,
        on_crash: Callable[[], None] | None = None,
    ) -> None:
        self.disk = disk
        self.me = 0
        self.commits = 0
        self.crashed = False
        self._delay = delay
        self._crash_at = crash_at
        self._crash_lands = crash_lands
        self._on_crash = on_crash
        self._queue: list[tuple[Callable[[], Any], bool, asyncio.Future[Any]]] = []
        self._timer: asyncio.Handle | None = None
        self._lease: Lease | None = None
        self._closed = True

    async def open(self, name: str, at: int, lease: Lease | None = None) -> None:
        """Enrol."""

        self._closed = False
        self._lease = lease
        await self._submit(lambda: self._enrol(name, at), drives=False)

    def _enrol(self, name: str, at: int) -> None:
        self.disk.last_worker += 1
        self.me = self.disk.last_worker
        row = WorkerRow(self.me, name, 1, at)
        if self._lease is not None:
            row = replace(row, host=self._lease.host, lease=self._lease.length)
        self.disk.enrolled[self.me] = row

    async def assured(self) -> None:
        """Nobody stands still here."""

    async def rejoin(self, name: str, at: int) -> None:
        """Give everything back, and enrol as another worker."""

        def act() -> None:
            self._release(at)
            self._enrol(name, at)

        await self._submit(act, drives=False)

    async def close(self, at: int) -> None:
        """Give everything back and sign off."""
        if self._closed:
            return

        released = self._submit(lambda: self._release(at), drives=False)
        self._closed = True
        await released

    def _release(self, at: int) -> None:
        for row in list(self.disk.runs.values()):
            if row.owner == self.me:
                self.disk.free(row, at, deaths=0)
        self.disk.enrolled.pop(self.me, None)

    def stop(self) -> None:
        """Commit what is queued, and let go."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._commit()

    def _submit(self, act: Callable[[], T | Given[T] | BaseException], *, drives: bool = True) -> asyncio.Future[T]:
        """Queue a write; with `drives`, it is refused once this worker was struck off."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if self.crashed:
            return future
        if self._closed:
            future.set_exception(EngineClosed("the journal is not open"))
            return future
        self._queue.append((act, drives, future))
        if self._timer is None:
            if self._delay is None:
                self._timer = loop.call_soon(self._commit)
            else:
                self._timer = loop.call_later(self._delay, self._commit)
        return future

    def _submit_held(self, hold: Hold, act: Callable[[RunRow], T | Exception]) -> asyncio.Future[T]:
        """Queue a write about a run that this worker drives."""

        def guarded() -> T | Exception:
            row = self._held(hold)
            return lost(hold) if row is None else act(row)

        return self._submit(guarded)

    def _submit_from(self, caller: Hold | None, act: Callable[[], T | Exception]) -> asyncio.Future[T]:
        """Queue a client's write, which may come from a body."""
        if caller is None:
            return self._submit(act, drives=False)
        return self._submit_held(caller, lambda _row: act())

    def _take(self, no: int, at: int) -> Claimed:
        row = self.disk.runs[no]
        # Its deadline ends a pause: the body is told, and cleans up.
        over = row.due_at is not None and row.due_at <= at
        row = self.disk.put(
            row,
            state=State.RUNNING,
            owner=self.me,
            epoch=row.epoch + 1,
            due_at=None,
            pause=None if over else row.pause,
            updated_at=at,
        )
        return Claimed(row, Hold(no, row.epoch))

    def _retake(self, hold: Hold, at: int) -> News | LeaseLost:
        """Take a run at rest that nobody has driven since."""
        row = self.disk.runs.get(hold.run)
        at_rest = {State.SUSPENDED, State.PENDING, State.PAUSED}
        if row is None or row.epoch != hold.epoch or row.state not in at_rest:
            return lost(hold)
        row = self._take(row.no, at).row
        return News(row.no, self.disk.unheard(row), row.pause)

    def _held(self, hold: Hold) -> RunRow | None:
        row = self.disk.runs.get(hold.run)
        return row if row is not None and (row.owner, row.epoch) == (self.me, hold.epoch) else None

    def _commit(self) -> None:
        self._timer = None
        queue, self._queue = self._queue, []
        self.commits += 1
        crash = self.commits == self._crash_at
        if crash and not self._crash_lands:
            self._crash()
            return
        self.disk.begin()
        # Before open has enrolled, there is nobody to be fenced.
        fenced = self.me != 0 and self._fenced()
        if self.me in self.disk.enrolled and not fenced:
            before = self.disk.enrolled[self.me]
            self.disk.enrolled[self.me] = replace(before, moved=before.moved + 1)
        answers = [_struck_off() if fenced and drives else self._apply(act) for act, drives, _future in queue]
        self.disk.commits += 1
        if crash:
            self._crash()
            return
        for (_act, _drives, future), answer in zip(queue, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(given(answer))

    def _apply(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except AssertionError as error:
            self.disk.violations.append(str(error))
            return error

    def _fenced(self) -> bool:
        return self.me not in self.disk.enrolled or self.me in self.disk.fenced

    def _crash(self) -> None:
        self.crashed = True
        if self._on_crash is not None:
            self._on_crash()

    async def _alive(self) -> None:
        """Before each read."""
        if self.crashed:
            await asyncio.get_running_loop().create_future()
        if self._closed:
            raise EngineClosed("the journal is not open")


def lost(hold: Hold) -> LeaseLost:
    """Why a write with this hold was refused."""
    return LeaseLost(f"run number {hold.run} is driven elsewhere; this write came from epoch {hold.epoch}")


def _struck_off() -> LeaseLost:
    return LeaseLost("this worker was struck off")
