"""Transactions: the application's rows, and what is recorded with them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, TypeVar

from durable_sqlite._records import Entry, Hold, IfExists, NewMessage, NewRun, RunRow, Sent, Started
from durable_sqlite._sqlite.transactions import Failed, Given, raisable
from durable_sqlite._tables import Effect, Undone, Work
from tests.support.disk import Disk
from tests.support.memory.clients import signal, start
from tests.support.memory.driving import Driving

__all__ = ["Transacting"]

T = TypeVar("T")


class Transacting(Driving):
    """The two verbs that call a body."""

    def transact(self, work: Work[T]) -> asyncio.Future[T]:
        """Call a body."""

        def act() -> Given[T] | BaseException:
            verbs = _Verbs(self.disk)
            made = self.disk.tables.attempt(work, verbs, lambda _value: True)
            if isinstance(made, Failed):
                verbs.undo()
                return raisable(made.error, work.budget)
            return Given(made)

        return self._submit(act, drives=False)

    def transact_step(self, hold: Hold, entry: Entry, work: Work[Effect]) -> asyncio.Future[Entry | Undone]:
        """Call the body of a step, and append its outcome."""

        def act(row: RunRow) -> Entry | Undone:
            verbs = _Verbs(self.disk)
            made = self.disk.tables.attempt(work, verbs, lambda effect: effect.keep)
            if isinstance(made, Failed):
                verbs.undo()
                return Undone(made.error)
            if not made.keep:
                verbs.undo()
            recorded = replace(entry, outcome=made.outcome, payload=made.payload)
            self._append(row, recorded)
            return recorded

        return self._submit_held(hold, act)


class _Verbs:
    """What a body does about runs, and how it is undone with its rows."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._before: dict[str, Any] | None = None

    def undo(self) -> None:
        """As if nothing had been done."""
        if self._before is not None:
            self._disk.restore(self._before)

    def start(self, new: NewRun, if_exists: IfExists, message: NewMessage | None) -> Started:
        """Store a run."""
        self._save()
        return _or_raise(start(self._disk, new, if_exists, message, None))

    def signal(self, run_id: str, message: NewMessage) -> Sent:
        """Store a message."""
        self._save()
        return _or_raise(signal(self._disk, run_id, message))

    def _save(self) -> None:
        if self._before is None:
            self._before = self._disk.save()


def _or_raise(answer: T | Exception) -> T:
    if isinstance(answer, Exception):
        raise answer
    return answer
