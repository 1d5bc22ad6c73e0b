"""Group commit: whatever is queued becomes one transaction, in one hop to the connection's thread.

There are two sides to it. Here is the loop's: it queues operations, waits out obstacles and answers. The thread's side, the
batch, takes what is queued, applies and commits it.

The thread works only while the loop awaits `Link.run`. While the loop waits out an obstacle it has nothing to do, so then
the loop may take an operation out of the batch, and it will never be applied.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from .._tables import Budget
from ..errors import EngineClosed, JournalError, JournalGone, StorageStalled, again
from .batch import NEVER, Batch, Never, Obstacle, Operation
from .checkpoints import Checkpoints
from .connect import MEMORY
from .desk import Desk
from .faults import Fault, fault_of, is_of_the_connection, translate
from .files import Files
from .link import Link, aside
from .patience import LOGGER, Patience, Pauses
from .transactions import Bench, Given, given

__all__ = ["Settings", "Writer"]

T = TypeVar("T")

_ANSWERS_AT_ONCE = 100
"""Operations of a commit that are answered in one turn of the loop: each answer lets a body or a caller go on."""

_LOOK_AFTER = 1.0
"""Seconds after which it is seen whether a body that was called has returned, and whether the storage answers."""

_NOTHING = "nothing of this call was stored, and nothing will be: ask again later"
_UNKNOWN = (
    "nobody knows yet whether this call took effect. Ask again with the same id or dedupe value, which finds what was stored; "
    "after a transaction, look at its rows first"
)

_REOPEN_AFTER = 3
"""Tries after which a connection that the storage refuses is given up for a fresh one."""


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
        alarm_bytes: The size of the WAL from which people are told.
        bench: Where bodies of transactions are called.
        struck: Is told on the loop that this worker was struck off, whenever it was refused something.
        pauses: Where pauses come from.
        patience: Seconds that a write of the application waits for the storage.
        broken: Called with the reason when nothing can be written any more, before those who wait are answered.
    """

    path: str
    sql: Mapping[str, str]
    new_link: Callable[[Callable[[sqlite3.Connection], None]], Link]
    configure: Callable[[sqlite3.Connection], None]
    failpoint: Callable[[str], None] | None
    checkpoint_bytes: int
    alarm_bytes: int
    bench: Bench
    struck: Callable[[], None]
    pauses: Pauses
    patience: float
    broken: Callable[[JournalError], None]


class Writer:
    """The one door through which this worker writes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._closing: float | None = None
        """Since when no more operations are taken."""
        self.broken: JournalError | None = None
        """Why nothing can be written any more."""
        self.link = settings.new_link(self._farewell)
        self.files = None if settings.path == MEMORY else Files(settings.path, settings.bench.now)
        self.batch = Batch(
            settings.path,
            self.files,
            sql=settings.sql,
            bench=settings.bench,
            configure=settings.configure,
            failpoint=settings.failpoint,
        )
        self._checkpoints = Checkpoints(
            settings.path,
            self.files,
            limit=settings.checkpoint_bytes,
            alarm=settings.alarm_bytes,
            now=settings.pauses.now,
            failpoint=self.batch.reached,
        )
        self._patience = Patience(settings.pauses, settings.path)
        self._reopening = False
        self._bodies = 0
        self._clients = 0
        """How many operations do not wait for ever."""
        self._hop_since: float | None = None
        """Since when the thread is at work."""
        self._watch: asyncio.TimerHandle | None = None
        self._told: object = None
        self._between: deque[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]] = deque()

    # The loop's side -------------------------------------------------------------------------------------------------

    def submit(
        self,
        act: Callable[[Desk], T | Given[T] | BaseException],
        *,
        drives: bool,
        patient: bool | None = None,
        blame: Callable[[sqlite3.Error], object] | None = None,
        late: Callable[[T], object] | None = None,
    ) -> asyncio.Future[T]:
        """Queue an operation: the order of the calls is the order of the writes, the future is done after the commit.

        Args:
            act: What to do.
            drives: It is about driving runs, so a fenced worker may not do it.
            patient: Wait for as long as the storage is in trouble; as it stands, what drives runs does.
            blame: The answer where COMMIT fails and it is to blame.
            late: Gets what it gave where its caller was told before that nobody knows.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self.broken is not None:
            future.set_exception(again(self.broken))
        elif self._closing is not None:
            future.set_exception(EngineClosed("the journal is closed"))
        else:
            patient = drives if patient is None else patient
            self.batch.queue.append(Operation(act, future, drives, patient, self._settings.pauses.now(), blame, late))
            self._bodies += blame is not None
            self._clients += not patient
            self._news.set()
            self._watch_thread()
        return future

    async def serve(self) -> None:
        """Write until `finish`, then write what is left and return; return at once where nothing can be written any more."""
        while self._closing is None or self.batch or self._between:
            await self._news.wait()
            self._news.clear()
            while self.batch or self._between:
                try:
                    await (self._run_between() if self._between else self._flush())
                except JournalError as error:
                    LOGGER.critical("%s", error)
                    self.stop_for_good(error)
                    return
        self._answer()

    def between(self, job: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Run a job that is no operation of a batch on the thread, before the next batch; again, until the storage lets it."""
        future: asyncio.Future[T] = self._loop.create_future()
        if self.broken is not None:
            future.set_exception(again(self.broken))
        elif self._closing is not None:
            future.set_exception(EngineClosed("the journal is closed"))
        else:
            self._between.append((job, future))
            self._news.set()
        return future

    async def _run_between(self) -> None:
        job, future = self._between[0]
        if future.done():  # whoever asked for it has gone
            self._between.popleft()
            return
        try:
            answer = await self._hop(self.link.run(job))
        except sqlite3.Error as error:
            obstacle = Obstacle(fault_of(error), error)
            if obstacle.fault is Fault.REFUSED:
                self._between.popleft()
                future.set_exception(translate(error, path=self._settings.path))
            elif self._is_worn_out(error):
                await self._look_again(obstacle)
            else:
                await self._wait(obstacle)
        else:
            self._patience.over()
            self._between.popleft()
            if not future.done():
                future.set_result(answer)

    def finish(self) -> None:
        """Take no more operations; `serve` returns when those that were taken are written, or cannot be in a stated time."""
        if self._closing is None:
            self._closing = self._settings.pauses.now()
        self._news.set()

    async def _flush(self) -> None:
        """Write what is queued, or wait before the next try.

        Raises:
            JournalError: Nothing can be written any more.
        """
        obstacle = await self._hop(self.link.run(self.batch.apply))
        if obstacle is not None and obstacle.fault is Fault.GONE:
            raise obstacle.error
        if self.batch.struck:
            self.batch.struck = False
            self._settings.struck()
        self._answer_in_turns()
        if obstacle is None:
            self._patience.over()
            await self._hop(self._checkpoints.after_commit(self.link))
        elif obstacle.fault is Fault.DOUBT or self._is_worn_out(obstacle.error):
            await self._look_again(obstacle)
        else:
            await self._wait(obstacle)

    async def checkpoint(self, mode: str) -> None:
        """Write the WAL back into the database; where that is not possible now, leave it as it is."""
        try:
            await self._checkpoints.write_back(self.link, mode)
        except JournalGone as error:
            LOGGER.critical("%s", error)
            self.stop_for_good(error)

    def witness(self) -> None:
        """Remember which files are written, now that they are open."""
        if self.files is not None:
            self.files.remember()

    async def look_at_files(self) -> None:
        """See that the files are still the same, before the next operation.

        Raises:
            JournalError: They are not, and nothing more is written; or nothing was any more before.
        """
        self.batch.closely = True
        await self.submit(lambda _desk: None, drives=False, patient=True)

    # Answers ---------------------------------------------------------------------------------------------------------

    def _answer_in_turns(self) -> None:
        """Answer what is committed; where that is much, let others on this loop have their turn in between."""
        self._answer(_ANSWERS_AT_ONCE)
        if self.batch.done:
            self._loop.call_soon(self._answer_in_turns)

    def _answer(self, most: int | None = None) -> None:
        done = self.batch.done
        for _ in range(len(done) if most is None else min(most, len(done))):
            self._leave(*done.popleft())

    def _leave(self, operation: Operation, answer: object) -> None:
        """An operation is over, and this is what became of it."""
        self._bodies -= operation.blame is not None
        self._clients -= not operation.patient
        if operation.future.done():  # its caller was cancelled, or told that nobody knows; the write stands
            if operation.late is not None and operation.given_up and not isinstance(answer, Never | BaseException):
                operation.late(given(answer))
            return
        if isinstance(answer, BaseException):
            operation.future.set_exception(answer)
        else:
            operation.future.set_result(given(answer))

    def fail(self, error: BaseException) -> None:
        """Answer everybody who is left with `error`: silence would be worse."""
        self.finish()
        self.batch.fail(error)
        self._answer()
        while self._between:
            _, future = self._between.popleft()
            if not future.done():
                future.set_exception(error)

    def stop_for_good(self, error: JournalError) -> None:
        """Write nothing more, ever, and say so to everybody: there is nothing left that could be written."""
        self.broken = error
        self.batch.doubt = None
        self._settings.broken(error)
        self.fail(error)

    # Obstacles -------------------------------------------------------------------------------------------------------

    def _is_worn_out(self, error: BaseException) -> bool:
        # A database in memory ends with its connection.
        return self.files is not None and self._patience.tries >= _REOPEN_AFTER and is_of_the_connection(error)

    async def _look_again(self, obstacle: Obstacle) -> None:
        """Open the file anew; where a COMMIT failed, see whether the batch is in it.

        Raises:
            JournalError: It is not the journal any more.
        """
        if self.batch.doubt:
            LOGGER.warning("COMMIT of %s failed (%s): looking whether it landed", self._settings.path, obstacle.error)
        while True:
            await self._close_link()
            await self._wait(obstacle)
            if (
                self._closing is not None
                and not self.batch.queue
                and all(each.given_up for each in self.batch.operations)
            ):
                self.batch.operations.clear()  # nobody waits for it any longer, and the engine is to end
                return
            self.link = self._settings.new_link(self._farewell)
            try:
                await self._hop(self._reopen())
            except (sqlite3.Error, OSError) as error:
                obstacle = Obstacle(fault_of(error), error)
                if obstacle.fault is Fault.REFUSED:
                    raise translate(error, path=self._settings.path) from error
            else:
                self._answer()
                return

    async def _close_link(self) -> None:
        self._reopening = True  # this is no farewell: what is queued is written through the next connection
        try:
            await self.link.close()
        except sqlite3.Error as error:
            LOGGER.warning("a connection to %s could not be closed: %s", self._settings.path, error)
        finally:
            self._reopening = False

    async def _reopen(self) -> None:
        if self.files is not None:
            # Before anything is opened: where another file has the name by now, it is none of ours.
            await aside(partial(self.files.check, 0, closely=True))
        await self.link.open()
        await self.link.run(self.batch.settle)

    async def _wait(self, obstacle: Obstacle) -> None:
        """Pause before the next try, and let go of those who do not wait any longer."""
        since = self._patience.meet()
        self._let_go(obstacle, since)
        await self._patience.wait(obstacle.fault, obstacle.error, at_most=self._until_next(since))
        self._let_go(obstacle, since)

    def _waits_until(self, operation: Operation, since: float) -> float | None:
        """When the caller of an operation waits no longer; None where it waits for ever, or was told already."""
        # Nothing waits for ever once the engine is to end: its runs go on where they are.
        began = self._closing if operation.patient else operation.since
        if began is None or operation.given_up:
            return None
        return max(began, since) + self._settings.patience

    def _until_next(self, since: float) -> float:
        """Seconds until somebody waits no longer; also one who asks from now on."""
        now = self._settings.pauses.now()
        untils = (self._waits_until(operation, since) for operation in self.batch)
        return min((until - now for until in untils if until is not None), default=self._settings.patience)

    def _let_go(self, obstacle: Obstacle, since: float) -> None:
        """Take out what has waited for too long, and say so. The thread has nothing to do now, so it will not see it."""
        now = self._settings.pauses.now()
        doubtful = {operation for operation, _ in self.batch.doubt or ()}

        def stays(operation: Operation) -> bool:
            until = self._waits_until(operation, since)
            if operation in doubtful:
                if until is not None and now >= until:
                    operation.given_up = True
                    self._tell(operation, obstacle, _UNKNOWN)
                return True
            if operation.given_up or (until is not None and now >= until):
                self._tell(operation, obstacle, _NOTHING)
                self._leave(operation, NEVER)
                return False
            return True

        self.batch.keep(stays)

    def _tell(self, operation: Operation, obstacle: Obstacle, what_of_it: str) -> None:
        if not operation.future.done():
            told = self._patience.stalled(obstacle.fault, obstacle.error, self._settings.patience, what_of_it)
            operation.future.set_exception(told)

    # Looking at the thread -------------------------------------------------------------------------------------------

    async def _hop(self, work: Awaitable[T]) -> T:
        """Let the thread work, and see whether it comes back."""
        self._hop_since = self._settings.pauses.now()
        self._watch_thread()
        try:
            return await work
        finally:
            self._hop_since = None
            if self._watch is not None:
                self._watch.cancel()
                self._watch = None

    def _watch_thread(self) -> None:
        if self._watch is None and self._hop_since is not None and (self._bodies or self._clients):
            after = min(_LOOK_AFTER, self._settings.patience)
            self._watch = self._loop.call_later(after, self._look_at_thread, self._hop_since)

    def _look_at_thread(self, since: float) -> None:
        """The thread is at work for long: on a body that does not return, or in a storage that does not answer."""
        self._watch = None
        running = self._settings.bench.running
        if running is not None:
            self._tell_of_body(running)
        else:
            self._tell_of_silence(since)
        self._watch_thread()

    def _tell_of_body(self, running: tuple[Budget, float]) -> None:
        """Tell of a body that does not return: the thread cannot, and nothing else is written meanwhile."""
        budget, since = running
        took = self._settings.bench.now() - since
        if took > budget.sql and self._told is not running:
            self._told = running
            LOGGER.warning(
                "%s has been running for %.1f s, and nothing else can be written until it returns: compute and wait "
                "outside of transactions",
                budget.what,
                took,
            )

    def _tell_of_silence(self, since: float) -> None:
        """Tell the application; what the thread has in its hands stays there, and takes effect or does not."""
        now = self._settings.pauses.now()
        for operation in self.batch:
            until = None if operation.patient else self._waits_until(operation, since)
            if until is not None and now >= until and not operation.future.done():
                operation.given_up = True
                operation.future.set_exception(
                    StorageStalled(
                        f"the storage of {self._settings.path} has not answered for {self._settings.patience:g} s: {_UNKNOWN}. "
                        "Runs wait and go on by themselves when it does; see to the disk"
                    )
                )

    # The thread's side -----------------------------------------------------------------------------------------------

    def _farewell(self, connection: sqlite3.Connection) -> None:
        """The connection closes: commit what is still queued, with one try."""
        if self.batch.doubt is not None or self._reopening:
            return
        try:
            obstacle = self.batch.apply(connection)
        except Exception:  # noqa: BLE001 - never raise here: the thread must go on to its end
            LOGGER.exception("the last writes to %s failed", self._settings.path)
        else:
            if obstacle is not None:
                left = len(self.batch.operations)
                LOGGER.error("%d writes to %s were not committed: %s", left, self._settings.path, obstacle.error)
        try:
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:
            LOGGER.debug("the event loop is closed, nobody waits for an answer")
