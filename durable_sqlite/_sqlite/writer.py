"""Group commit: whatever is queued becomes one transaction, in one hop to the connection's thread.

Two sides share this object. The loop queues operations, waits out obstacles and answers; the thread takes what is
queued, applies and commits it. A batch that could not be committed stays where it is, so nothing is lost on the way.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import EngineClosed, JournalError, LeaseLost
from .connect import MEMORY
from .desk import Desk
from .faults import Fault, fault_of, translate
from .files import Files
from .link import Link
from .mark import Mark
from .patience import LOGGER, Patience, Pauses
from .transactions import BatchUndone, Bench, Given, given

__all__ = ["Obstacle", "Settings", "Writer"]

T = TypeVar("T")

_LARGEST_BATCH = 1000
"""Operations in one transaction at most: others also want the write lock."""

_LONGEST_BATCH = 0.25
"""Seconds after which the bodies of a batch have had the write lock for long enough: what is applied is committed."""

_LOOK_AFTER = 1.0
"""Seconds after which it is seen whether a body that was called has returned."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a batch could not be committed now."""

    fault: Fault
    error: BaseException


@dataclass(slots=True)
class _Operation:
    act: Callable[[Desk], Any]
    future: asyncio.Future[Any]
    drives: bool
    """It is about driving runs, so a fenced worker may not do it."""
    blame: Callable[[sqlite3.Error], object] | None
    """The answer where COMMIT fails and it is to blame; only a body can be."""

    @property
    def once(self) -> bool:
        """Nothing would tell afterwards that it was done: it must not be applied a second time."""
        return self.blame is not None and not self.drives


@dataclass(frozen=True, slots=True)
class Settings:
    """What a writer is given.

    Args:
        path: The absolute path of the file, or `:memory:`.
        sql: The named statements.
        new_link: Makes a link that is not open yet, from the farewell of its connection.
        configure: Configures a connection that was opened anew.
        failpoint: Called by name at the places where a crash is tried.
        checkpoint_bytes: The size of the WAL from which it is written back.
        bench: Where bodies of transactions are called.
    """

    path: str
    sql: Mapping[str, str]
    new_link: Callable[[Callable[[sqlite3.Connection], None]], Link]
    configure: Callable[[sqlite3.Connection], None]
    failpoint: Callable[[str], None] | None
    checkpoint_bytes: int
    bench: Bench


class Writer:
    """The one door through which this worker writes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._closing = False
        self.link = settings.new_link(self._farewell)
        self.me = 0
        self.mark: Mark | None = None
        """Where the number of each commit is noted."""
        # Shared with the thread; deques, because their ends may be used from both sides.
        self._queue: deque[_Operation] = deque()
        self._done: deque[tuple[_Operation, Any]] = deque()
        # The thread's own.
        self._batch: list[_Operation] = []
        self._singly = 0
        self._commits = 0
        self._doubt: list[tuple[_Operation, Any]] | None = None
        self._files = None if settings.path == MEMORY else Files(settings.path)
        # The loop's own.
        self._checkpoint_at = settings.checkpoint_bytes
        self._restarted = False
        self._bodies = 0
        self._watch: asyncio.TimerHandle | None = None
        self._told: object = None

    # The loop's side -------------------------------------------------------------------------------------------------

    def submit(
        self,
        act: Callable[[Desk], T | Given[T] | BaseException],
        *,
        drives: bool,
        blame: Callable[[sqlite3.Error], object] | None = None,
    ) -> asyncio.Future[T]:
        """Queue an operation: the order of the calls is the order of the writes, the future is done after the commit."""
        future: asyncio.Future[T] = self._loop.create_future()
        if self._closing:
            future.set_exception(EngineClosed("the journal is closed"))
        else:
            self._queue.append(_Operation(act, future, drives, blame))
            self._bodies += blame is not None
            self._news.set()
        return future

    async def serve(self, pauses: Pauses) -> None:
        """Write until `finish`, then write what is left and return."""
        patience = Patience(pauses, self._settings.path)
        while not self._closing or self._queue:
            await self._news.wait()
            self._news.clear()
            while self._queue or self._batch:
                await self._flush(patience)
                if self._restarted:
                    # Only this batch has cut the file to its limit, and the size was taken just before.
                    self._restarted = False
                elif self._files is not None and self._files.wal_size > self._checkpoint_at:
                    await self.checkpoint("RESTART")

    def finish(self) -> None:
        """Take no more operations; `serve` returns when those that were taken are written."""
        self._closing = True
        self._news.set()

    async def _flush(self, patience: Patience) -> None:
        if self._bodies:
            self._watch = self._loop.call_later(_LOOK_AFTER, self._look_at_body)
        obstacle = await self.link.run(self._apply)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._answer()
        if obstacle is None:
            patience.over()
        elif obstacle.fault is Fault.DOUBT:
            await self._look_again(obstacle, patience)
        else:
            await patience.wait(obstacle.fault, obstacle.error)

    def _answer(self) -> None:
        while self._done:
            operation, answer = self._done.popleft()
            self._bodies -= operation.blame is not None
            if operation.future.done():  # its caller was cancelled; the write stands
                continue
            if isinstance(answer, BaseException):
                operation.future.set_exception(answer)
            else:
                operation.future.set_result(given(answer))

    def _look_at_body(self) -> None:
        """Tell of a body that does not return: the thread cannot, and nothing else is written meanwhile."""
        running = self._settings.bench.running
        if running is not None and running is not self._told:
            budget, since = running
            took = self._settings.bench.now() - since
            if took > budget.sql:
                self._told = running
                LOGGER.warning(
                    "%s has been running for %.1f s, and nothing else can be written until it returns: compute and wait "
                    "outside of transactions",
                    budget.what,
                    took,
                )
        self._watch = self._loop.call_later(_LOOK_AFTER, self._look_at_body)

    async def _look_again(self, obstacle: Obstacle, patience: Patience) -> None:
        """After a COMMIT that failed: open the file anew, and see whether the batch is in it."""
        LOGGER.warning("COMMIT of %s failed (%s): looking whether it landed", self._settings.path, obstacle.error)
        while True:
            await self.link.close()
            await patience.wait(obstacle.fault, obstacle.error)
            self.link = self._settings.new_link(self._farewell)
            try:
                await self.link.open()
                await self.link.run(self._settle)
            except sqlite3.Error as error:
                obstacle = Obstacle(Fault.STALLED, error)
            else:
                self._answer()
                return

    def fail(self, error: BaseException) -> None:
        """Answer everybody who is left with `error`: silence would be worse."""
        self._closing = True
        self._done.extend((operation, error) for operation in [*self._batch, *self._queue])
        self._batch.clear()
        self._queue.clear()
        self._answer()

    # Checkpoints -----------------------------------------------------------------------------------------------------

    async def checkpoint(self, mode: str) -> None:
        """Write the WAL back into the database; where that is not possible now, later.

        RESTART keeps the file and starts it anew, which is faster than a file that grows; SQLite cuts it to
        `journal_size_limit` then, so its size still tells how much is in it.
        """
        try:
            busy = await self.link.run(lambda connection: self._checkpoint(connection, mode))
        except sqlite3.Error as error:
            if fault_of(error) is not Fault.BUSY:
                LOGGER.warning("checkpoint of %s failed, it is tried again later: %s", self._settings.path, error)
            busy = True
        # A reader is in the way: no hurry, ask again when the WAL was seen to have grown.
        seen = self._files.wal_size if self._files is not None else 0
        self._checkpoint_at = seen if busy else self._settings.checkpoint_bytes
        self._restarted = not busy

    def _checkpoint(self, connection: sqlite3.Connection, mode: str) -> bool:
        """Whether somebody was in the way."""
        self._fail("checkpoint.before")
        # SQLite waits for readers while it keeps writers out, so it must not wait long. But where it does not get the
        # write lock it goes on as PASSIVE, which on builds before 3.51.3 can damage the file beside a commit: so see
        # first that the lock can be had.
        connection.execute("PRAGMA busy_timeout = 20").fetchall()
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
            ((busy, _frames, _moved),) = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        finally:
            connection.execute("PRAGMA busy_timeout = 250").fetchall()
        self._fail("checkpoint.after")
        return bool(busy)

    def witness(self) -> None:
        """Remember which files are written, now that they are open."""
        if self._files is not None:
            self._files.remember()

    # The thread's side -----------------------------------------------------------------------------------------------

    def _fail(self, name: str) -> None:
        if self._settings.failpoint is not None:
            self._settings.failpoint(name)

    def _apply(self, connection: sqlite3.Connection) -> Obstacle | None:
        """Commit what is queued: all at once, or one by one where one of them failed."""
        # No more than were queued at the start, or a busy application would never be answered.
        for _ in range(min(len(self._queue), _LARGEST_BATCH - len(self._batch))):
            self._batch.append(self._queue.popleft())
        while self._batch:
            obstacle = self._transact(connection, self._batch[:1] if self._singly else self._batch)
            if obstacle is not None:
                return obstacle
        return None

    def _transact(self, connection: sqlite3.Connection, group: list[_Operation]) -> Obstacle | None:
        answers: list[Any] = []
        until: float | None = None
        try:
            connection.execute("BEGIN IMMEDIATE")
            bumped = connection.execute(self._settings.sql["bump"], {"me": self.me}).fetchall()
            fenced = not bumped
            desk = Desk(connection, self._settings.sql, self.me, fenced)
            for operation in group:
                refused = fenced and operation.drives
                if operation.blame is None:
                    answers.append(_struck_off() if refused else operation.act(desk))
                    continue
                now = self._settings.bench.now()
                until = now + _LONGEST_BATCH if until is None else until
                if now >= until:
                    break
                answers.append(_struck_off() if refused else operation.act(desk))
            group = group[: len(answers)]
            self._fail("commit.before")
            if self._files is not None:
                self._files.check(len(group))
        except BatchUndone as undone:
            self._finish_one(len(answers), undone.answer)
            return None
        except Exception as error:  # noqa: BLE001 - whatever one operation raises is that operation's answer
            return self._failed(connection, group, error)
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            return self._not_committed(connection, group, answers, error)
        self._fail("commit.after")
        self._commits += not fenced
        if self.mark is not None and bumped:
            self.mark.write(bumped[0][0])
        self._finish(list(zip(group, answers, strict=True)))
        return None

    def _finish(self, done: list[tuple[_Operation, Any]]) -> None:
        del self._batch[: len(done)]
        self._singly = max(0, self._singly - len(done))
        self._done.extend(done)

    def _finish_one(self, index: int, answer: object) -> None:
        """Answer one of the batch; the others are still to be applied."""
        operation = self._batch.pop(index)
        self._singly = max(0, self._singly - 1)
        self._done.append((operation, answer))

    def _failed(
        self, connection: sqlite3.Connection, group: list[_Operation], error: Exception, *, committing: bool = False
    ) -> Obstacle | None:
        try:
            connection.rollback()
        except sqlite3.Error as broken:
            self._doubt = []
            return Obstacle(Fault.DOUBT, broken)
        fault = fault_of(error) if isinstance(error, sqlite3.Error) else Fault.REFUSED
        if fault is not Fault.REFUSED:
            return Obstacle(fault, error)
        if len(group) > 1:
            # One of them is the culprit. Apart, each gets its own answer.
            self._singly = len(group)
        elif group[0].blame is not None and committing and isinstance(error, sqlite3.Error):
            self._finish_one(0, group[0].blame(error))
        else:
            self._finish_one(0, translate(error, path=self._settings.path))
        return None

    def _not_committed(
        self, connection: sqlite3.Connection, group: list[_Operation], answers: list[Any], error: sqlite3.Error
    ) -> Obstacle | None:
        if isinstance(error, sqlite3.IntegrityError):
            # Not doubtful: a constraint that was deferred until now, and somebody here broke it.
            return self._failed(connection, group, error, committing=True)
        self._doubt = list(zip(group, answers, strict=True))
        return Obstacle(Fault.DOUBT, error)

    def _settle(self, connection: sqlite3.Connection) -> None:
        """On a connection opened anew: the worker's count of commits tells whether the last one landed."""
        self._settings.configure(connection)
        ((batch, fenced),) = connection.execute(self._settings.sql["batch"], {"me": self.me}).fetchall() or ((0, 1),)
        doubt, self._doubt = self._doubt, None
        if doubt is not None and batch > self._commits:
            self._commits = batch
            self._finish(doubt)
        elif doubt and fenced:
            # A worker that is fenced leaves no trace of its commits. Its clients' writes are then applied again, which
            # finds them done: they attach, or change nothing. Of a body's rows nobody knows that.
            for index in reversed([index for index, (each, _) in enumerate(doubt) if each.once]):
                self._finish_one(index, self._unknown())
        self.witness()

    def _unknown(self) -> JournalError:
        return JournalError(
            f"COMMIT to {self._settings.path} failed, and this worker was struck off, so nobody knows whether the transaction "
            "took effect: look at its rows before you try again"
        )

    def _farewell(self, connection: sqlite3.Connection) -> None:
        """The connection closes: commit what is still queued, with one try."""
        if self._doubt is not None:
            return
        try:
            obstacle = self._apply(connection)
        except Exception:  # noqa: BLE001 - never raise here: the thread must go on to its end
            LOGGER.exception("the last writes to %s failed", self._settings.path)
        else:
            if obstacle is not None:
                left = len(self._batch)
                LOGGER.error("%d writes to %s were not committed: %s", left, self._settings.path, obstacle.error)
        try:
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:
            LOGGER.debug("the event loop is closed, nobody waits for an answer")


def _struck_off() -> LeaseLost:
    return LeaseLost("this worker was struck off, and others drive its runs: the write was refused, nothing changed")
