"""Bodies of transactions: how they are called between two savepoints of a batch, and what they can do there."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from .._records import Entry, Hold, IfExists, NewMessage, NewRun, Sent, Started
from .._tables import Budget, Effect, Parameters, Rows, Undone, Work
from ..errors import LeaseLost, UsageError
from . import clients, recording
from .authorizer import PREFIX, Guard
from .desk import Desk
from .faults import Fault, fault_of, is_conflict, is_damage, is_full, is_interrupt
from .patience import LOGGER
from .rows import Tables
from .user_sql import mark, several, verb_of

__all__ = ["BatchUndone", "Bench", "Failed", "Given", "Verbs", "given", "raisable", "transact", "transact_step"]

T = TypeVar("T")

_COUNTED = ("INSERT", "REPLACE", "UPDATE", "DELETE")

_STEPS = 10_000
"""Instructions of SQLite's machine after which it is seen whether time is up: a fraction of a millisecond."""


@dataclass(frozen=True, slots=True)
class Given(Generic[T]):
    """What a body gave: even an exception, where it returned one."""

    value: T

    def bare(self) -> Any:
        """The value itself."""
        return self.value


def given(answer: Any) -> Any:
    """The value of what a body gave; any other answer as it is."""
    return answer.bare() if isinstance(answer, Given) else answer


@dataclass(frozen=True, slots=True)
class Failed:
    """A body that failed; its rows are gone."""

    error: BaseException


class BatchUndone(Exception):
    """A statement of a body made SQLite roll the whole transaction back."""

    def __init__(self, error: BaseException) -> None:
        super().__init__("a statement of a transaction rolled the batch back")
        self.error = error
        self.answer: object = error
        """What becomes of that operation; the others are to be applied again."""


class Verbs(Protocol):
    """What a body can do about runs."""

    def start(self, new: NewRun, if_exists: IfExists, message: NewMessage | None) -> Started:
        """As at the door."""
        ...

    def signal(self, run_id: str, message: NewMessage) -> Sent:
        """As at the door."""
        ...


class Bench:
    """Where bodies are called, one at a time, on the connection's thread.

    Args:
        sql: The named statements.
        now: Seconds on a clock that never goes back.
    """

    def __init__(self, sql: Mapping[str, str], now: Callable[[], float]) -> None:
        self.sql = sql
        self.now = now
        self.guard = Guard()
        self.running: tuple[Budget, float] | None = None
        """Which body runs, and since when. Read by the loop, to tell of one that does not return."""
        self.own_names = "[]"
        """A JSON array of the journal's own names; there are no others with its prefix."""

    def take(self, connection: sqlite3.Connection) -> None:
        """Make a connection the one on which bodies are called. Once: it throws away what was prepared there."""
        ((self.own_names,),) = connection.execute(self.sql["own_names"]).fetchall()
        connection.set_authorizer(self.guard)

    def attempt(
        self, connection: sqlite3.Connection, work: Work[T], verbs: Verbs, keep: Callable[[T], bool]
    ) -> T | Failed:
        """Call a body in a savepoint of its own, and undo its rows if it fails or they are not to be kept.

        Raises:
            sqlite3.Error: The storage is in trouble: the body is to be called again.
            BatchUndone: Nothing is left of the whole transaction.
        """
        connection.execute("SAVEPOINT durable_tx")
        door = _Door(self, connection, work.budget, verbs)
        made = self._call(connection, work, door)
        if door.trouble is not None:
            raise door.trouble
        if door.over is not None:
            # Also where the body has caught it.
            if not connection.in_transaction:
                raise BatchUndone(door.over)
            made = Failed(door.over)
        if isinstance(made, Failed) or not keep(made):
            connection.execute("ROLLBACK TO durable_tx")
        connection.execute("RELEASE durable_tx")
        return made

    def _call(self, connection: sqlite3.Connection, work: Work[T], door: _Door) -> T | Failed:
        connection.set_progress_handler(door.is_late, _STEPS)
        self.running = (work.budget, door.began)
        try:
            return work.body(door)
        except BaseException as error:  # noqa: BLE001 - also SystemExit: the thread is the journal's, and goes on
            return Failed(error)
        finally:
            self.running = None
            connection.set_progress_handler(None, 0)
            door.close()


class _Door:
    """What a body is given."""

    def __init__(self, bench: Bench, connection: sqlite3.Connection, budget: Budget, verbs: Verbs) -> None:
        self.began = bench.now()
        self.trouble: sqlite3.Error | None = None
        """The storage did not do what was asked: no fault of the body, even if it goes on."""
        self.over: BaseException | None = None
        """Why the transaction cannot be kept, whatever the body makes of it."""
        self._now = bench.now
        self._guard = bench.guard
        self._names = bench.own_names
        self._connection = connection
        self._tables = Tables(connection, bench.sql)
        self._budget = budget
        self._until = self.began + budget.sql
        self._verbs = verbs
        self._closed = False
        self._thread = threading.get_ident()
        self._late = False

    # What the bench asks ---------------------------------------------------------------------------------------------

    def is_late(self) -> int:
        """Whether SQL that runs now is to be interrupted."""
        if self._now() < self._until:
            return 0
        self._late = True
        return 1

    def close(self) -> None:
        """The body has returned."""
        self._closed = True
        took = self._now() - self.began
        if took > self._budget.sql and self.over is None:
            LOGGER.warning(
                "%s took %.1f s, and nothing else was written meanwhile: a transaction should take no longer than %g s. "
                "Compute before it, in a step",
                self._budget.what,
                took,
                self._budget.sql,
            )

    # What the body asks ----------------------------------------------------------------------------------------------

    def execute(self, sql: str, parameters: Parameters = ()) -> Rows:
        """Run one statement; its rows are fetched whole."""
        return self._statement(sql, lambda: self._execute(sql, parameters))

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> int:
        """Run one statement for each set of values; how many rows were written."""
        verb = verb_of(sql)
        if verb.main not in _COUNTED:
            raise UsageError(
                f"executemany is for {', '.join(_COUNTED)}, and not for {verb.first or 'nothing'}: use execute"
            )
        if verb.first != verb.main:
            # Python takes what begins WITH something for a query.
            return sum(self.execute(sql, each).rowcount for each in parameters)
        many = self._each_in_time(parameters)
        return self._statement(sql, lambda: max(0, self._connection.executemany(mark(sql), many).rowcount))

    def start(self, new: NewRun, if_exists: IfExists, message: NewMessage | None = None) -> Started:
        """Store a run as part of the commit."""
        return self._verb(lambda: self._verbs.start(new, if_exists, message))

    def signal(self, run_id: str, message: NewMessage) -> Sent:
        """Store a message to a run as part of the commit."""
        return self._verb(lambda: self._verbs.signal(run_id, message))

    # How that is done ------------------------------------------------------------------------------------------------

    def _execute(self, sql: str, parameters: Parameters) -> Rows:
        cursor = self._connection.execute(mark(sql), parameters)
        rows = cursor.fetchall()
        verb = verb_of(sql).main
        if cursor.description is not None:
            columns = tuple(each[0] for each in cursor.description)
            count = len(rows)
        else:
            columns = ()
            count = cursor.rowcount
            if count < 0:
                # Python counts what begins with INSERT and the like, but not what begins WITH something.
                count = self._changes() if verb in _COUNTED else 0
        made = count > 0 and verb in {"INSERT", "REPLACE"}
        return Rows(rows, columns, count, cursor.lastrowid if made else None)

    def _changes(self) -> int:
        ((count,),) = self._tables.all("changes", {})
        return int(count)

    def _each_in_time(self, parameters: Iterable[Parameters]) -> Iterator[Any]:
        for each in parameters:
            self._see_to_the_time()
            yield each

    def _statement(self, sql: str, run: Callable[[], T]) -> T:
        self._may_go_on()
        if verb_of(sql).first == "VACUUM":
            raise UsageError("VACUUM is refused in a transaction: it cannot be part of a commit")
        guard = self._guard
        guard.reset()
        before, guard.on = guard.on, True
        try:
            answer = run()
        except sqlite3.Error as error:
            raise self._meaning(error, sql)  # noqa: B904 - it says itself where it comes from
        finally:
            guard.on = before
        if guard.reshapes:
            self._see_to_the_names()
        return answer

    def _verb(self, act: Callable[[], T]) -> T:
        """Something about runs: done whole or not at all, whatever the body makes of an error."""
        self._may_go_on()
        before, self._guard.on = self._guard.on, False
        try:
            self._connection.execute("SAVEPOINT durable_verb")
            try:
                return act()
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK TO durable_verb")
                raise
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("RELEASE durable_verb")
        except sqlite3.Error as error:
            raise self._meaning(error)  # noqa: B904 - it says itself where it comes from
        finally:
            self._guard.on = before

    def _may_go_on(self) -> None:
        if self._closed:
            raise UsageError("this transaction is over: what it was given works only while its function runs")
        if threading.get_ident() != self._thread:  # SQLite is told to allow it, for the sake of forked children
            raise UsageError(
                "a Tx works on the thread of its function alone: do in that function what is to be done with it"
            )
        if self.over is not None:
            raise self.over
        self._see_to_the_time()

    def _see_to_the_time(self) -> None:
        if self.is_late():
            self.over = self._too_late()
            raise self.over

    def _too_late(self) -> TimeoutError:
        budget = self._budget
        return TimeoutError(
            f"{budget.what} took longer than {budget.sql:g} s, while nothing else could be written: its SQL was "
            "interrupted, and its rows are undone. Do less in one transaction, or give it more time"
        )

    def _see_to_the_names(self) -> None:
        """What the authorizer is not told: the new name of a table, and what a reference refers to."""
        strays = self._verb(lambda: self._tables.all("strays", {"own": self._names}))
        if strays:
            self.over = UsageError(
                f"{strays[0][0]} is refused in a transaction: names that begin with {PREFIX} are the journal's own, and no "
                "table of the application may refer to them"
            )
            raise self.over

    def _meaning(self, error: sqlite3.Error, sql: str = "") -> BaseException:
        """What an error of SQLite's is to the body, and to what comes after it."""
        told = self._translate(error, sql)
        if told is not error:
            told.__cause__ = error
        if self.trouble is not None or self._late or not self._connection.in_transaction:
            # Whatever the body would still do would not be part of the commit.
            self.over = told
        return told

    def _translate(self, error: sqlite3.Error, sql: str) -> BaseException:
        if self._late and is_interrupt(error):
            return self._too_late()
        if self._is_trouble(error):
            self.trouble = error
            return error
        if self._guard.reason is not None:
            return UsageError(self._guard.reason)
        if several(sql):
            return UsageError("several statements in one text: give each to `execute` by itself")
        return error

    def _is_trouble(self, error: sqlite3.Error) -> bool:
        """Whether it is the storage's."""
        if is_damage(error):
            return True
        if is_conflict(error):
            # Nobody else shares this connection: the body is in its own way.
            return False
        # A table that may not use a number twice has no room either, when it has used the largest.
        return fault_of(error) is not Fault.REFUSED and not (is_full(error) and self._numbers_are_used_up())

    def _numbers_are_used_up(self) -> bool:
        return bool(self._tables.all("used_up", {}))


# The two verbs of the port -------------------------------------------------------------------------------------------


class _AtDesk:
    """What a body does about runs, at the desk of its batch."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def start(self, new: NewRun, if_exists: IfExists, message: NewMessage | None) -> Started:
        return _or_raise(clients.start(self._desk, new, if_exists, drive=False, message=message))

    def signal(self, run_id: str, message: NewMessage) -> Sent:
        return _or_raise(clients.signal(self._desk, run_id, message))


def _or_raise(answer: T | Exception) -> T:
    if isinstance(answer, Exception):
        raise answer
    return answer


def transact(desk: Desk, work: Work[T], bench: Bench) -> Given[T] | BaseException:
    """Call a body as part of the batch."""
    tick = desk.tick
    made = bench.attempt(desk.connection, work, _AtDesk(desk), lambda _value: True)
    if not isinstance(made, Failed):
        return Given(made)
    desk.tick = tick
    return raisable(made.error, work.budget)


def transact_step(desk: Desk, hold: Hold, entry: Entry, work: Work[Effect], bench: Bench) -> Entry | Undone | LeaseLost:
    """Call the body of a step as part of the batch, and record what it gave."""
    if not desk.holds(hold):
        return desk.lost(hold)
    tick = desk.tick
    try:
        made = bench.attempt(desk.connection, work, _AtDesk(desk), lambda effect: effect.keep)
    except BatchUndone as undone:
        undone.answer = Undone(undone.error)
        raise
    if isinstance(made, Failed):
        desk.tick = tick
        return Undone(made.error)
    if not made.keep:
        desk.tick = tick
    recorded = replace(entry, outcome=made.outcome, payload=made.payload)
    return recording.record(desk, hold, recorded) or recorded


def raisable(error: BaseException, budget: Budget) -> BaseException:
    """The error, or one that says the same where a future cannot carry it."""
    if not isinstance(error, StopIteration):
        return error
    told = RuntimeError(f"{budget.what} raised StopIteration")
    told.__cause__ = error
    return told
