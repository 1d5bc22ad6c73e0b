"""Engines with one rule broken on purpose, and the campaign that must notice each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from unittest.mock import patch

from durable_sqlite import _neighbours
from durable_sqlite._records import Entry, Hold, Kind, Memory, NewAnswer, Question, RunRow
from durable_sqlite._sqlite import SqliteJournal, clients, recording, statements
from durable_sqlite._sqlite.desk import Desk
from durable_sqlite._sqlite.writer import Writer

__all__ = ["MUTANTS", "Mutant"]

Breaking = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A broken rule, and who must notice."""

    broken: Breaking
    campaign: Literal["fleet", "zombies", "races"]
    deeds: tuple[str, ...] | None = None
    """What runs are to do, so that it is noticed soon."""


def _statements(**changed: Callable[[str], str]) -> AbstractContextManager[object]:
    """Statements of the journal, each made another one."""
    return _all_statements(lambda name, sql: changed[name](sql) if name in changed else sql)


def _all_statements(change: Callable[[str, str], str]) -> AbstractContextManager[object]:
    load = statements.load

    def broken() -> Mapping[str, str]:
        return MappingProxyType({name: change(name, sql) for name, sql in load().items()})

    return patch.object(statements, "load", broken)


# Under SIGKILL -------------------------------------------------------------------------------------------------------


@contextmanager
def an_answer_comes_before_the_commit() -> Generator[None, None, None]:
    """Whoever writes is told that it is done when it is only applied."""
    submit = Writer.submit

    def mutant(self: Writer, act: Callable[[Desk], Any], **how: Any) -> asyncio.Future[Any]:
        early: asyncio.Future[Any] = self._loop.create_future()

        def hasty(desk: Desk) -> Any:
            answer = act(desk)
            if not isinstance(answer, BaseException):
                self._loop.call_soon_threadsafe(_resolve, early, answer)
                time.sleep(0.001)  # a slow disk
            return answer

        submit(self, hasty, **how).add_done_callback(lambda write: _adopt(early, write))
        return early

    with patch.object(Writer, "submit", mutant):
        yield


def _resolve(early: asyncio.Future[Any], answer: object) -> None:
    if not early.done():
        early.set_result(answer)


def _adopt(early: asyncio.Future[Any], write: asyncio.Future[Any]) -> None:
    if write.cancelled() or early.done():
        return
    if (error := write.exception()) is not None:
        early.set_exception(error)
    else:
        early.set_result(write.result())


def a_new_process_forgets_the_last_outcome() -> AbstractContextManager[object]:
    """Replay is one outcome short."""
    memories = SqliteJournal.memories

    async def mutant(self: SqliteJournal, runs: Sequence[int]) -> list[Memory]:
        return [replace(one, entries=one.entries[:-1]) for one in await memories(self, runs)]

    return patch.object(SqliteJournal, "memories", mutant)


def taking_a_message_is_not_recorded() -> AbstractContextManager[object]:
    """A message stays in the journal when it was taken."""
    return _statements(take_message=lambda sql: sql.replace("taken_by = :key", "taken_by = NULL"))


@contextmanager
def rows_and_outcome_are_two_commits() -> Generator[None, None, None]:
    """The rows of a transaction step are committed before its outcome."""
    record = recording.record

    def mutant(desk: Desk, hold: Hold, entry: Entry, takes: Sequence[int] = ()) -> object:
        if entry.kind is Kind.TRANSACTION:
            desk.connection.execute("COMMIT")
            time.sleep(0.003)
            desk.connection.execute("BEGIN IMMEDIATE")
        return record(desk, hold, entry, takes)

    with patch.object(recording, "record", mutant):
        yield


def everybody_else_is_dead() -> AbstractContextManager[object]:
    """The lock on a side file tells nothing."""

    def mutant(_path: Path) -> bool:
        return True

    return patch.object(_neighbours, "is_dead", mutant)


# Under SIGSTOP -------------------------------------------------------------------------------------------------------


def no_fence() -> AbstractContextManager[object]:
    """Whoever was struck off may write, and so may whoever no longer holds the run."""

    def mutant(name: str, sql: str) -> str:
        match name:
            case "bump":
                # Always matches: some worker is there.
                return sql.replace("no = :me AND NOT fenced", "no = (SELECT min(no) FROM durable_workers)")
            case "lease":
                return "SELECT EXISTS (SELECT 1 FROM durable_runs WHERE owner = :me)"
            case _:
                return sql.replace(" AND owner = :me AND epoch = :epoch", "")

    return _all_statements(mutant)


# In races ------------------------------------------------------------------------------------------------------------


def everybody_counts_a_death() -> AbstractContextManager[object]:
    """Whoever takes over from a dead worker counts the deaths of runs that were freed before as well."""
    return _statements(
        orphans=lambda sql: sql.replace(
            "owner = :owner", "(owner = :owner OR (owner IS NULL AND state = 'pending' AND interrupted))"
        )
    )


def a_second_answer_is_accepted() -> AbstractContextManager[object]:
    """A question takes whatever answer comes."""

    def mutant(_row: RunRow, question: Question, _new: NewAnswer) -> Question:
        return question

    return patch.object(clients, "_answerable", mutant)


MUTANTS: dict[str, Mutant] = {
    "nothing": Mutant(nullcontext, "fleet"),
    "an_answer_comes_before_the_commit": Mutant(an_answer_comes_before_the_commit, "fleet"),
    "a_new_process_forgets_the_last_outcome": Mutant(a_new_process_forgets_the_last_outcome, "fleet"),
    "taking_a_message_is_not_recorded": Mutant(taking_a_message_is_not_recorded, "fleet", ("post", "couple")),
    "rows_and_outcome_are_two_commits": Mutant(rows_and_outcome_are_two_commits, "fleet", ("books",)),
    "everybody_else_is_dead": Mutant(everybody_else_is_dead, "fleet"),
    "no_fence": Mutant(no_fence, "zombies"),
    "everybody_counts_a_death": Mutant(everybody_counts_a_death, "races"),
    "a_second_answer_is_accepted": Mutant(a_second_answer_is_accepted, "races"),
}
