"""The engine with one rule broken, for each rule: the campaign must notice."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from durable_sqlite._claims import Claims
from durable_sqlite._neighbours import Neighbours
from durable_sqlite._records import Hold, Intent, Rest, RunRow, WorkerRow
from durable_sqlite._sqlite import batch, driving, faults, recording, statements
from durable_sqlite._sqlite.batch import Batch
from durable_sqlite._sqlite.desk import Desk, Held
from durable_sqlite._sqlite.door import Door
from durable_sqlite._sqlite.faults import Fault
from durable_sqlite._sqlite.transactions import given
from durable_sqlite._sqlite.vigil import Vigil
from durable_sqlite._sqlite.writer import Writer
from tests.campaigns.fleet.mutants import MUTANTS as OF_FLEETS

__all__ = ["MUTANTS"]

Mutant = Callable[[], AbstractContextManager[object]]


# What is stored ------------------------------------------------------------------------------------------------------


@contextmanager
def an_answer_comes_before_the_commit() -> Generator[None, None, None]:
    """Whoever writes is told that it is done when it is only applied."""
    submit = Writer.submit

    def mutant(self: Writer, act: Callable[[Desk], Any], **how: Any) -> asyncio.Future[Any]:
        early: asyncio.Future[Any] = self._loop.create_future()

        def hasty(desk: Desk) -> Any:
            answer = act(desk)
            if not isinstance(answer, BaseException) and not early.done():
                early.set_result(given(answer))
            return answer

        def adopt(write: asyncio.Future[Any]) -> None:
            if not early.done() and not write.cancelled():
                error = write.exception()
                if error is None:
                    early.set_result(write.result())
                else:
                    early.set_exception(error)

        submit(self, hasty, **how).add_done_callback(adopt)
        return early

    with patch.object(Writer, "submit", mutant):
        yield


def a_doubtful_commit_is_taken_for_stored() -> AbstractContextManager[object]:
    """After a COMMIT that failed, nobody looks whether it landed."""
    settle = Batch.settle

    def mutant(self: Batch, connection: sqlite3.Connection) -> None:
        doubt, self.doubt = self.doubt, None
        settle(self, connection)
        if doubt:
            self._finish(doubt)

    return patch.object(Batch, "settle", mutant)


def a_doubtful_commit_is_taken_for_lost() -> AbstractContextManager[object]:
    """After a COMMIT that failed, all is applied once more."""
    settle = Batch.settle

    def mutant(self: Batch, connection: sqlite3.Connection) -> None:
        self.doubt = None
        settle(self, connection)

    return patch.object(Batch, "settle", mutant)


def a_storage_in_trouble_refuses_for_good() -> AbstractContextManager[object]:
    """A full disk is the error of whoever writes, and is not waited for."""

    def mutant(error: BaseException) -> Fault:
        return Fault.REFUSED if isinstance(error, sqlite3.Error) and faults.is_full(error) else faults.fault_of(error)

    return patch.object(batch, "fault_of", mutant)


def an_intent_is_not_written_down() -> AbstractContextManager[object]:
    """Nobody knows of an at-most-once step that it was about to begin."""

    def mutant(_desk: Desk, _hold: Hold, _intent: Intent) -> None:
        return None

    return patch.object(recording, "intend", mutant)


# Who drives what -----------------------------------------------------------------------------------------------------


@contextmanager
def runs_are_taken_over_without_a_second_look() -> Generator[None, None, None]:
    """Whoever has not moved between two looks is given up, however long its lease."""
    take_over = Neighbours._take_over

    async def hasty(self: Neighbours, other: WorkerRow) -> list[RunRow]:
        return await take_over(self, [other], {})

    def mutant(self: Neighbours, other: WorkerRow) -> bool:
        return other.no in self._still

    with patch.object(Neighbours, "_stands_still", mutant), patch.object(Neighbours, "_give_up", hasty):
        yield


def a_step_begins_unassured() -> AbstractContextManager[object]:
    """A process that stood still begins steps before it knows whether their runs are still its own."""

    async def mutant(_self: Door) -> None:
        return None

    return patch.object(Door, "assured", mutant)


def a_lease_is_not_renewed() -> AbstractContextManager[object]:
    """A worker whose steps take longer than its lease says nothing meanwhile."""

    def mutant(_self: Vigil, _connection: sqlite3.Connection) -> bool:
        return True

    return patch.object(Vigil, "_renew", mutant)


def a_death_is_not_told_to_steps() -> AbstractContextManager[object]:
    """A run that is taken over is driven as if nothing had begun."""
    load = statements.load

    def broken() -> dict[str, str]:
        return {name: sql.replace("interrupted = 1", "interrupted = 0") for name, sql in load().items()}

    return patch.object(statements, "load", broken)


# Who wakes whom ------------------------------------------------------------------------------------------------------


def a_run_comes_to_rest_without_looking_again() -> AbstractContextManager[object]:
    """What has come between the last look and the rest is not seen."""

    def mutant(_desk: Desk, _run: int, held: Held, _rest: Rest) -> bool:
        return held.unheard is not None

    return patch.object(driving, "_has_news", mutant)


def nobody_rings_for_runs_that_others_put_to_rest() -> AbstractContextManager[object]:
    """A process wakes what rests in its own memory, and nothing else."""

    async def mutant(_self: Claims) -> None:
        return None

    return patch.object(Claims, "note_next_due", mutant)


MUTANTS: dict[str, Mutant] = {
    mutant.__name__.replace("_", "-"): mutant
    for mutant in (
        an_answer_comes_before_the_commit,
        a_doubtful_commit_is_taken_for_stored,
        a_doubtful_commit_is_taken_for_lost,
        a_storage_in_trouble_refuses_for_good,
        an_intent_is_not_written_down,
        runs_are_taken_over_without_a_second_look,
        a_step_begins_unassured,
        a_lease_is_not_renewed,
        a_death_is_not_told_to_steps,
        a_run_comes_to_rest_without_looking_again,
        nobody_rings_for_runs_that_others_put_to_rest,
    )
} | {
    name.replace("_", "-"): OF_FLEETS[name].broken
    for name in (
        "no_fence",
        "everybody_else_is_dead",
        "a_new_process_forgets_the_last_outcome",
        "taking_a_message_is_not_recorded",
        "rows_and_outcome_are_two_commits",
    )
}
