"""Group commit: whatever is queued becomes one transaction, in one hop to the connection's thread.

Two sides share this object. The loop queues operations, waits out obstacles and answers; the thread takes what is
queued, applies and commits it. A batch that could not be committed stays where it is, so nothing is lost on the way.

The thread works only while the loop awaits `Link.run`. While the loop waits out an obstacle it has nothing to do, so then
the loop may take an operation out of the queue or the batch, and it will never be applied.
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
from ..errors import EngineClosed, JournalError, JournalGone, LeaseLost, StorageStalled, again
from .checkpoints import Checkpoints
from .connect import MEMORY
from .desk import Desk
from .faults import Fault, fault_of, is_of_the_connection, translate
from .files import Files
from .link import Link, aside
from .mark import Mark
from .meter import Meter
from .patience import LOGGER, Patience, Pauses
from .transactions import BatchUndone, Bench, Given, given

__all__ = ["Obstacle", "Settings", "Writer"]

T = TypeVar("T")

_LARGEST_BATCH = 1000
"""Operations in one transaction at most: others also want the write lock."""

_LONGEST_BATCH = 0.25
"""Seconds after which the bodies of a batch have had the write lock for long enough: what is applied is committed."""

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


class _Nothing:
    """Stands for the answer of an operation that was not applied, and never will be."""


_NEVER = _Nothing()


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a batch could not be committed now."""

    fault: Fault
    error: BaseException


@dataclass(slots=True, eq=False)
class _Operation:
    act: Callable[[Desk], Any]
    future: asyncio.Future[Any]
    drives: bool
    """It is about driving runs, so a fenced worker may not do it."""
    patient: bool
    """It waits for as long as the storage is in trouble."""
    since: float
    """When it was queued."""
    blame: Callable[[sqlite3.Error], object] | None
    """The answer where COMMIT fails and it is to blame; only a body can be."""
    late: Callable[[Any], object] | None
    """Gets the answer where nobody waits for it any more."""
    given_up: bool = False
    """Its caller was told that nobody knows whether it took effect: if it did not, it is not to be applied again."""

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
        self.me = 0
        self.meter = Meter()
        self.mark: Mark | None = None
        """Where the number of each commit is noted."""
        # Shared with the thread; deques, because their ends may be used from both sides.
        self._queue: deque[_Operation] = deque()
        self._done: deque[tuple[_Operation, Any]] = deque()
        # The thread's own.
        self._batch: list[_Operation] = []
        self._singly = 0
        self._struck = False
        self.commits = 0
        """How many batches were committed as this worker; any thread may look."""
        self._closely = False
        """Somebody has seen that the files are other ones."""
        self._doubt: list[tuple[_Operation, Any]] | None = None
        self.files = None if settings.path == MEMORY else Files(settings.path, settings.bench.now)
        # The loop's own.
        self._checkpoints = Checkpoints(
            settings.path,
            self.files,
            limit=settings.checkpoint_bytes,
            alarm=settings.alarm_bytes,
            now=settings.pauses.now,
            failpoint=self._fail,
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
        self._answering = False
        """Whether the next turn of the loop answers more."""
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
            self._queue.append(_Operation(act, future, drives, patient, self._settings.pauses.now(), blame, late))
            self._bodies += blame is not None
            self._clients += not patient
            self._news.set()
            self._watch_thread()
        return future

    async def serve(self) -> None:
        """Write until `finish`, then write what is left and return; return at once where nothing can be written any more."""
        while self._closing is None or self._queue or self._between:
            await self._news.wait()
            self._news.clear()
            while self._queue or self._batch or self._between:
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

    @property
    def waiting(self) -> int:
        """How many operations wait for their commit."""
        return len(self._queue) + len(self._batch)

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
        obstacle = await self._hop(self.link.run(self._apply))
        if obstacle is not None and obstacle.fault is Fault.GONE:
            raise obstacle.error
        if self._struck:
            self._struck = False
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
        self._closely = True
        await self.submit(lambda _desk: None, drives=False, patient=True)

    # Answers ---------------------------------------------------------------------------------------------------------

    def _answer_in_turns(self) -> None:
        """Answer what is committed; where that is much, let others on this loop have their turn in between."""
        if not self._answering:
            self._answer(_ANSWERS_AT_ONCE)
            if self._done:
                self._answering = True
                self._loop.call_soon(self._answer_more)

    def _answer_more(self) -> None:
        self._answering = False
        self._answer_in_turns()

    def _answer(self, most: int | None = None) -> None:
        for _ in range(len(self._done) if most is None else min(most, len(self._done))):
            self._leave(*self._done.popleft())

    def _leave(self, operation: _Operation, answer: object) -> None:
        """An operation is over, and this is what became of it."""
        self._bodies -= operation.blame is not None
        self._clients -= not operation.patient
        if operation.future.done():  # its caller was cancelled, or told that nobody knows; the write stands
            if operation.late is not None and operation.given_up and not isinstance(answer, _Nothing | BaseException):
                operation.late(given(answer))
            return
        if isinstance(answer, BaseException):
            operation.future.set_exception(answer)
        else:
            operation.future.set_result(given(answer))

    def fail(self, error: BaseException) -> None:
        """Answer everybody who is left with `error`: silence would be worse."""
        self.finish()
        self._done.extend((operation, error) for operation in [*self._batch, *self._queue])
        self._batch.clear()
        self._queue.clear()
        self._answer()
        while self._between:
            _, future = self._between.popleft()
            if not future.done():
                future.set_exception(error)

    def stop_for_good(self, error: JournalError) -> None:
        """Write nothing more, ever, and say so to everybody: there is nothing left that could be written."""
        self.broken = error
        self._doubt = None
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
        if self._doubt:
            LOGGER.warning("COMMIT of %s failed (%s): looking whether it landed", self._settings.path, obstacle.error)
        while True:
            await self._close_link()
            await self._wait(obstacle)
            if self._closing is not None and not self._queue and all(operation.given_up for operation in self._batch):
                self._batch.clear()  # nobody waits for it any longer, and the engine is to end
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
        await self.link.run(self._settle)

    async def _wait(self, obstacle: Obstacle) -> None:
        """Pause before the next try, and let go of those who do not wait any longer."""
        since = self._patience.meet()
        self._let_go(obstacle, since)
        await self._patience.wait(obstacle.fault, obstacle.error, at_most=self._until_next(since))
        self._let_go(obstacle, since)

    def _waits_until(self, operation: _Operation, since: float) -> float | None:
        """When the caller of an operation waits no longer; None where it waits for ever, or was told already."""
        # Nothing waits for ever once the engine is to end: its runs go on where they are.
        began = self._closing if operation.patient else operation.since
        if began is None or operation.given_up:
            return None
        return max(began, since) + self._settings.patience

    def _until_next(self, since: float) -> float:
        """Seconds until somebody waits no longer; also one who asks from now on."""
        now = self._settings.pauses.now()
        untils = (self._waits_until(operation, since) for operation in (*self._batch, *self._queue))
        return min((until - now for until in untils if until is not None), default=self._settings.patience)

    def _let_go(self, obstacle: Obstacle, since: float) -> None:
        """Take out what has waited for too long, and say so. The thread has nothing to do now, so it will not see it."""
        now = self._settings.pauses.now()
        doubtful = {operation for operation, _ in self._doubt or ()}

        def stays(operation: _Operation) -> bool:
            until = self._waits_until(operation, since)
            if operation in doubtful:
                if until is not None and now >= until:
                    operation.given_up = True
                    self._tell(operation, obstacle, _UNKNOWN)
                return True
            if operation.given_up or (until is not None and now >= until):
                self._tell(operation, obstacle, _NOTHING)
                self._leave(operation, _NEVER)
                return False
            return True

        apart = [operation for operation in self._batch[: self._singly] if stays(operation)]
        self._batch[:] = [*apart, *(operation for operation in self._batch[self._singly :] if stays(operation))]
        self._singly = len(apart)
        kept = [operation for operation in self._queue if stays(operation)]
        self._queue.clear()
        self._queue.extend(kept)

    def _tell(self, operation: _Operation, obstacle: Obstacle, what_of_it: str) -> None:
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
        for operation in (*self._batch, *self._queue):
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

    def _fail(self, name: str) -> None:
        if self._settings.failpoint is not None:
            self._settings.failpoint(name)

    def _apply(self, connection: sqlite3.Connection) -> Obstacle | None:
        """Commit what is queued: all at once, or one by one where one of them failed."""
        # No more than were queued at the start, or a busy application would never be answered.
        for _ in range(min(len(self._queue), _LARGEST_BATCH - len(self._batch))):
            operation = self._queue.popleft()
            if operation.given_up:
                self._done.append((operation, _NEVER))
            else:
                self._batch.append(operation)
        while self._batch:
            obstacle = self._transact(connection, self._batch[:1] if self._singly else self._batch)
            if obstacle is not None:
                return obstacle
        return None

    def _transact(self, connection: sqlite3.Connection, group: list[_Operation]) -> Obstacle | None:
        answers: list[Any] = []
        until: float | None = None
        began = self._settings.bench.now()
        try:
            connection.execute("BEGIN IMMEDIATE")
            bumped = connection.execute(self._settings.sql["bump"], {"me": self.me}).fetchall()
            fenced = not bumped
            desk = Desk(connection, self._settings.sql, self.me, fenced)
            for operation in group:
                refused = fenced and operation.drives
                self._struck |= refused
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
            if self.files is not None:
                self.files.check(len(group), closely=self._closely)
        except BatchUndone as undone:
            self._finish_one(len(answers), undone.answer)
            return None
        except Exception as error:  # noqa: BLE001 - whatever one operation raises is that operation's answer
            return self._failed(connection, group, error)
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            return self._not_committed(connection, group, answers, error)
        took = self._settings.bench.now() - began
        self._fail("commit.after")
        if (obstacle := self._unsure(group, answers)) is not None:
            return obstacle
        self.commits += not fenced
        self.meter.note(took, len(group))
        if self.mark is not None and bumped:
            self.mark.write(bumped[0][0])
        self._finish(list(zip(group, answers, strict=True)))
        return None

    def _unsure(self, group: list[_Operation], answers: list[Any]) -> Obstacle | None:
        """After a commit, and before anything of it is acknowledged: it may have gone into a file that lost its name."""
        if self.files is None:
            return None
        try:
            self.files.check(0)
        except JournalGone as gone:
            return Obstacle(Fault.GONE, gone)
        except OSError as error:
            self._doubt = list(zip(group, answers, strict=True))
            return Obstacle(Fault.DOUBT, error)
        return None

    def _finish(self, done: list[tuple[_Operation, Any]]) -> None:
        del self._batch[: len(done)]
        self._singly = max(0, self._singly - len(done))
        self._done.extend(done)

    def _finish_one(self, index: int, answer: object) -> None:
        """Answer one of the batch; the others are still to be applied."""
        operation = self._batch.pop(index)
        self._singly -= index < self._singly
        self._done.append((operation, answer))

    def _failed(
        self, connection: sqlite3.Connection, group: list[_Operation], error: Exception, *, committing: bool = False
    ) -> Obstacle | None:
        try:
            connection.rollback()
        except sqlite3.Error as broken:
            self._doubt = []
            return Obstacle(Fault.DOUBT, broken)
        fault = fault_of(error)
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
        if doubt is not None and batch > self.commits:
            self.commits = batch
            self._finish(doubt)
        elif doubt and fenced:
            # A worker that is fenced leaves no trace of its commits. Its clients' writes are then applied again, which
            # finds them done: they attach, or change nothing. Of a body's rows nobody knows that.
            for index in reversed([index for index, (each, _) in enumerate(doubt) if each.once]):
                self._finish_one(index, self._unknown())
        # It did not land, and its caller was told that nobody knows: so it stays, or somebody who looks would be deceived.
        for index in reversed([index for index, each in enumerate(self._batch) if each.given_up]):
            self._finish_one(index, _NEVER)

    def _unknown(self) -> JournalError:
        return JournalError(
            f"COMMIT to {self._settings.path} failed, and this worker was struck off, so nobody knows whether the transaction "
            "took effect: look at its rows before you try again"
        )

    def _farewell(self, connection: sqlite3.Connection) -> None:
        """The connection closes: commit what is still queued, with one try."""
        if self._doubt is not None or self._reopening:
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
