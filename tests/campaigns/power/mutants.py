"""Engines that break one rule of durability on purpose: a power cut must bring each to light."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from durable_sqlite._sqlite import SqliteJournal, connect
from durable_sqlite._sqlite.batch import Batch, Obstacle, Operation
from durable_sqlite._sqlite.checkpoints import Checkpoints
from tests.campaigns.fleet.mutants import an_answer_comes_before_the_commit, rows_and_outcome_are_two_commits

__all__ = ["MUTANTS", "Mutant"]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A broken rule."""

    broken: Callable[[], AbstractContextManager[object]]


@contextmanager
def normal_for_full() -> Generator[None]:
    """Commits are not synced."""
    configure = connect.configure

    def mutant(connection: sqlite3.Connection, *, synchronous: connect.Synchronous, **how: Any) -> None:
        configure(connection, synchronous="normal" if synchronous == "full" else synchronous, **how)

    with patch.object(connect, "configure", mutant):
        yield


@contextmanager
def a_checkpoint_does_not_sync() -> Generator[None]:
    """The WAL is started anew while the disk may not have what was in it."""
    checkpoint = Checkpoints._checkpoint

    def mutant(self: Checkpoints, connection: sqlite3.Connection, mode: str) -> bool:
        connection.execute("PRAGMA synchronous = OFF").fetchall()
        try:
            return checkpoint(self, connection, mode)
        finally:
            connection.execute("PRAGMA synchronous = FULL").fetchall()

    with patch.object(Checkpoints, "_checkpoint", mutant):
        yield


@contextmanager
def the_mark_comes_before_the_commit() -> Generator[None]:
    """The mark tells of a commit that is not on the disk yet."""
    transact, reached = Batch._transact, Batch.reached
    here: dict[Batch, sqlite3.Connection] = {}

    def seen(self: Batch, connection: sqlite3.Connection, group: list[Operation]) -> Obstacle | None:
        here[self] = connection
        return transact(self, connection, group)

    def mutant(self: Batch, name: str) -> None:
        reached(self, name)
        if name == "commit.before" and self.mark is not None:
            ((latest,),) = here[self].execute(self._sql["last_commit"]).fetchall()
            self.mark.write(int(latest))

    with patch.object(Batch, "_transact", seen), patch.object(Batch, "reached", mutant):
        yield


def a_step_begins_before_it_is_announced() -> AbstractContextManager[object]:
    """The body of an at-most-once step does not wait for the commit that says that it may begin."""
    intend = SqliteJournal.intend

    def mutant(self: SqliteJournal, *args: Any, **how: Any) -> asyncio.Future[None]:
        intend(self, *args, **how)
        early: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        early.set_result(None)
        return early

    return patch.object(SqliteJournal, "intend", mutant)


MUTANTS: dict[str | None, Mutant] = {
    None: Mutant(nullcontext),
    "an_answer_comes_before_the_commit": Mutant(an_answer_comes_before_the_commit),
    "normal_for_full": Mutant(normal_for_full),
    "a_checkpoint_does_not_sync": Mutant(a_checkpoint_does_not_sync),
    "the_mark_comes_before_the_commit": Mutant(the_mark_comes_before_the_commit),
    "a_step_begins_before_it_is_announced": Mutant(a_step_begins_before_it_is_announced),
    "rows_and_outcome_are_two_commits": Mutant(rows_and_outcome_are_two_commits),
}
