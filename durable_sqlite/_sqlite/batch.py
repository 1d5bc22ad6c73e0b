"""What is queued, on its way into one transaction: the side of a writer that works on the connection's thread.

Whatever is queued becomes one transaction, all or nothing; where one operation fails, each is applied by itself and gets its
own answer. What could not be committed stays here, so nothing is lost on the way.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import JournalError, JournalGone, LeaseLost
from .desk import Desk
from .faults import Fault, fault_of, translate
from .files import Files
from .mark import Mark
from .meter import Meter
from .transactions import BatchUndone, Bench

__all__ = ["NEVER", "Batch", "Never", "Obstacle", "Operation"]

_LARGEST_BATCH = 1000
"""Operations in one transaction at most: others also want the write lock."""

_LONGEST_BATCH = 0.25
"""Seconds after which the bodies of a batch have had the write lock for long enough: what is applied is committed."""


class Never:
    """Stands for the answer of an operation that was not applied, and never will be."""


NEVER = Never()


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a batch could not be committed now."""

    fault: Fault
    error: BaseException


@dataclass(slots=True, eq=False)
class Operation:
    """Something to be written."""

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


class Batch:
    """Takes what is queued, applies and commits it.

    The thread works on it only while the loop waits for that. Between times the loop may queue, and take out what is not to
    be applied any more.

    Args:
        path: Named in messages.
        files: Are seen to be the same before anything is acknowledged; None for a journal in memory.
        sql: The named statements.
        bench: Where bodies of transactions are called.
        configure: Configures a connection that was opened anew.
        failpoint: Called by name at the places where a crash is tried.
    """

    def __init__(
        self,
        path: str,
        files: Files | None,
        *,
        sql: Mapping[str, str],
        bench: Bench,
        configure: Callable[[sqlite3.Connection], None],
        failpoint: Callable[[str], None] | None,
    ) -> None:
        self._path = path
        self._files = files
        self._sql = sql
        self._bench = bench
        self._configure = configure
        self._failpoint = failpoint
        self.me = 0
        """The number of this worker."""
        self.meter = Meter()
        self.mark: Mark | None = None
        """Where the number of each commit is noted."""
        self.commits = 0
        """How many batches were committed as this worker; any thread may look."""
        # Deques, because their ends may be used from both sides.
        self.queue: deque[Operation] = deque()
        """What comes next."""
        self.done: deque[tuple[Operation, Any]] = deque()
        """What is over, with its answer."""
        self.operations: list[Operation] = []
        """What was taken, and is not committed yet."""
        self.singly = 0
        """How many of those are applied by themselves."""
        self.doubt: list[tuple[Operation, Any]] | None = None
        """What a COMMIT that failed may have stored."""
        self._refusal: sqlite3.Error | None = None
        """Why that COMMIT failed, where trying it again would not help."""
        self.struck = False
        """Whether something was refused, because this worker was struck off."""
        self.closely = False
        """Somebody has seen that the files are other ones."""

    # The loop's side -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many operations wait for their commit."""
        return len(self.queue) + len(self.operations)

    def __iter__(self) -> Iterator[Operation]:
        """All that wait for their commit, in their order."""
        return iter((*self.operations, *self.queue))

    def keep(self, stays: Callable[[Operation], bool]) -> None:
        """Take out all but what stays. Only while the thread has nothing to do, so that it will not see it."""
        apart = [operation for operation in self.operations[: self.singly] if stays(operation)]
        self.operations[:] = [*apart, *(operation for operation in self.operations[self.singly :] if stays(operation))]
        self.singly = len(apart)
        kept = [operation for operation in self.queue if stays(operation)]
        self.queue.clear()
        self.queue.extend(kept)

    def fail(self, error: BaseException) -> None:
        """Let all that is left be over, with this answer."""
        self.done.extend((operation, error) for operation in self)
        self.operations.clear()
        self.queue.clear()

    # The thread's side -----------------------------------------------------------------------------------------------

    def reached(self, name: str) -> None:
        """Here a crash is tried."""
        if self._failpoint is not None:
            self._failpoint(name)

    def apply(self, connection: sqlite3.Connection) -> Obstacle | None:
        """Commit what is queued: all at once, or one by one where one of them failed."""
        # No more than were queued at the start, or a busy application would never be answered.
        for _ in range(min(len(self.queue), _LARGEST_BATCH - len(self.operations))):
            operation = self.queue.popleft()
            if operation.given_up:
                self.done.append((operation, NEVER))
            else:
                self.operations.append(operation)
        while self.operations:
            obstacle = self._transact(connection, self.operations[:1] if self.singly else self.operations)
            if obstacle is not None:
                return obstacle
        return None

    def _transact(self, connection: sqlite3.Connection, group: list[Operation]) -> Obstacle | None:
        answers: list[Any] = []
        until: float | None = None
        began = self._bench.now()
        try:
            connection.execute("BEGIN IMMEDIATE")
            bumped = connection.execute(self._sql["bump"], {"me": self.me}).fetchall()
            fenced = not bumped
            desk = Desk(connection, self._sql, self.me, fenced)
            for operation in group:
                refused = fenced and operation.drives
                self.struck |= refused
                if operation.blame is None:
                    answers.append(_struck_off() if refused else operation.act(desk))
                    continue
                now = self._bench.now()
                until = now + _LONGEST_BATCH if until is None else until
                if now >= until:
                    break
                answers.append(_struck_off() if refused else operation.act(desk))
            group = group[: len(answers)]
            self.reached("commit.before")
            if self._files is not None:
                self._files.check(len(group), closely=self.closely)
        except BatchUndone as undone:
            self._finish_one(len(answers), undone.answer)
            return None
        except Exception as error:  # noqa: BLE001 - whatever one operation raises is that operation's answer
            return self._failed(connection, group, error)
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            return self._not_committed(connection, group, answers, error)
        took = self._bench.now() - began
        self.reached("commit.after")
        if (obstacle := self._unsure(group, answers)) is not None:
            return obstacle
        self.commits += not fenced
        self.meter.note(took, len(group))
        if self.mark is not None and bumped:
            self.mark.write(bumped[0][0])
        self._finish(list(zip(group, answers, strict=True)))
        return None

    def _unsure(self, group: list[Operation], answers: list[Any]) -> Obstacle | None:
        """After a commit, and before anything of it is acknowledged: it may have gone into a file that lost its name."""
        if self._files is None:
            return None
        try:
            self._files.check(0)
        except JournalGone as gone:
            return Obstacle(Fault.GONE, gone)
        except OSError as error:
            self.doubt = list(zip(group, answers, strict=True))
            return Obstacle(Fault.DOUBT, error)
        return None

    def _finish(self, done: list[tuple[Operation, Any]]) -> None:
        del self.operations[: len(done)]
        self.singly = max(0, self.singly - len(done))
        self.done.extend(done)

    def _finish_one(self, index: int, answer: object) -> None:
        """Answer one of the batch; the others are still to be applied."""
        operation = self.operations.pop(index)
        self.singly -= index < self.singly
        self.done.append((operation, answer))

    def _failed(
        self, connection: sqlite3.Connection, group: list[Operation], error: Exception, *, committing: bool = False
    ) -> Obstacle | None:
        try:
            connection.rollback()
        except sqlite3.Error as broken:
            self.doubt = []
            return Obstacle(Fault.DOUBT, broken)
        fault = fault_of(error)
        if fault is not Fault.REFUSED:
            return Obstacle(fault, error)
        if len(group) == 1 and group[0].blame is not None and committing and isinstance(error, sqlite3.Error):
            self._finish_one(0, group[0].blame(error))
        else:
            self._refuse(len(group), error)
        return None

    def _refuse(self, number: int, error: Exception) -> None:
        """So many operations cannot be committed together, and never will be."""
        if number > 1:
            # One of them is the culprit. Apart, each gets its own answer.
            self.singly = number
        else:
            self._finish_one(0, translate(error, path=self._path))

    def _not_committed(
        self, connection: sqlite3.Connection, group: list[Operation], answers: list[Any], error: sqlite3.Error
    ) -> Obstacle | None:
        if isinstance(error, sqlite3.IntegrityError):
            # Not doubtful: a constraint that was deferred until now, and somebody here broke it.
            return self._failed(connection, group, error, committing=True)
        self.doubt = list(zip(group, answers, strict=True))
        self._refusal = error if fault_of(error) is Fault.REFUSED else None
        return Obstacle(Fault.DOUBT, error)

    def settle(self, connection: sqlite3.Connection) -> None:
        """On a connection opened anew: the worker's count of commits tells whether the last one landed."""
        self._configure(connection)
        ((batch, fenced),) = connection.execute(self._sql["batch"], {"me": self.me}).fetchall() or ((0, 1),)
        doubt, self.doubt = self.doubt, None
        refusal, self._refusal = self._refusal, None
        if doubt is not None and batch > self.commits:
            self.commits = batch
            self._finish(doubt)
        elif doubt:
            if fenced:
                # A worker that is fenced leaves no trace of its commits. Its clients' writes are then applied again, which
                # finds them done: they attach, or change nothing. Of a body's rows nobody knows that.
                for index in reversed([index for index, (each, _) in enumerate(doubt) if each.once]):
                    self._finish_one(index, self._unknown())
            tried = {id(operation) for operation, _ in doubt}
            left = sum(id(operation) in tried for operation in self.operations)
            if left and refusal is not None:
                self._refuse(left, refusal)
        # It did not land, and its caller was told that nobody knows: so it stays, or somebody who looks would be deceived.
        for index in reversed([index for index, each in enumerate(self.operations) if each.given_up]):
            self._finish_one(index, NEVER)

    def _unknown(self) -> JournalError:
        return JournalError(
            f"COMMIT to {self._path} failed, and this worker was struck off, so nobody knows whether the transaction "
            "took effect: look at its rows before you try again"
        )


def _struck_off() -> LeaseLost:
    return LeaseLost("this worker was struck off, and others drive its runs: the write was refused, nothing changed")
