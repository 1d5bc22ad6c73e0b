"""Rows of the tables as records, and back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from .._records import Entry, Kind, Message, Outcome, Question, Request, RunRow, State, Wait, WorkerRow
from ..errors import JournalDamaged

__all__ = [
    "Row",
    "Tables",
    "entry_of",
    "message_of",
    "question_of",
    "readable",
    "request_of",
    "run_of",
    "wait_of",
    "whole",
    "worker_of",
]

T = TypeVar("T")

Row = tuple[Any, ...]


@dataclass(slots=True)  # made for each transaction, and a frozen one costs a microsecond more
class Tables:
    """A connection and the statements that are used on it."""

    connection: sqlite3.Connection
    sql: Mapping[str, str]

    def all(self, name: str, parameters: Mapping[str, object]) -> list[Row]:
        """Every row, fetched at once: an open cursor would hold a lock."""
        return self.connection.execute(self.sql[name], parameters).fetchall()

    def first(self, name: str, parameters: Mapping[str, object]) -> Row | None:
        """The first row, or None."""
        rows = self.all(name, parameters)
        return rows[0] if rows else None

    def one(self, name: str, parameters: Mapping[str, object]) -> Row:
        """The row that is always there.

        Raises:
            JournalDamaged: It is not.
        """
        row = self.first(name, parameters)
        if row is None:
            raise JournalDamaged(f"a row of the journal's own is missing ({name}): restore a backup")
        return row

    def number(self, name: str, parameters: Mapping[str, object]) -> int:
        """The one number of the row that is always there.

        Raises:
            JournalDamaged: There is no such row, or no number in it.
        """
        (value,) = self.one(name, parameters)
        return whole(value)

    def change(self, name: str, parameters: Mapping[str, object]) -> int:
        """The number of rows that were written."""
        return self.connection.execute(self.sql[name], parameters).rowcount

    def runs(self, clauses: str, parameters: Mapping[str, object]) -> list[RunRow]:
        """The runs that `clauses` pick, with their tags."""
        rows = self.connection.execute(f"{self.sql['run_select']}\n{clauses}", parameters).fetchall()
        return [readable(run_of, row, dict(self.all("tags", {"run": row[0]}))) for row in rows]

    def run(self, no: int) -> RunRow:
        """The run of this number, which exists.

        Raises:
            JournalDamaged: It does not, or cannot be read.
        """
        found = self.runs(self.sql["where_no"], {"no": no})
        if not found:
            raise JournalDamaged(f"run number {no} is named by an index and is not there: restore a backup")
        return found[0]


def whole(value: object) -> int:
    """A number, as the journal keeps it.

    Raises:
        JournalDamaged: It is none.
    """
    if not isinstance(value, int):
        raise JournalDamaged(
            f"{value!r} stands where the journal keeps a number: `engine.verify()` names all that is damaged; restore a backup"
        )
    return value


def readable(read: Callable[..., T], row: Row, *more: Any) -> T:
    """What is made of a row.

    Raises:
        JournalDamaged: It holds what was never written there.
    """
    try:
        return read(row, *more)
    except (ValueError, TypeError) as error:
        raise JournalDamaged(
            f"the row of {row[1]!r} (number {row[0]!r}) is damaged ({error}): `engine.verify()` names all that is; restore a "
            "backup"
        ) from error


def run_of(row: Row, tags: Mapping[str, str]) -> RunRow:
    """A run from a row of `run_select`."""
    (
        no,
        run_id,
        uid,
        workflow,
        origin,
        version,
        state,
        reason,
        input_,
        input_digest,
        result,
        created_at,
        updated_at,
        ended_at,
        due_at,
        owner,
        epoch,
        deaths,
        accept_changes,
        cancel_at,
        cancel_reason,
        cancel_by,
        deadline_at,
        deadline_length,
        interrupted,
        failed_keys,
        discarded_at,
        parent,
        parent_id,
        parent_key,
        detached,
        deadline_inherited,
        pause_at,
        pause_reason,
        pause_by,
        status,
        done,
        total,
        changed,
    ) = row
    return RunRow(
        no=no,
        id=run_id,
        uid=uid,
        workflow=workflow,
        origin=origin,
        version=version,
        state=State(state),
        reason=reason,
        input=input_,
        input_digest=input_digest,
        result=result,
        created_at=created_at,
        updated_at=updated_at,
        ended_at=ended_at,
        due_at=due_at,
        owner=owner,
        epoch=epoch,
        deaths=deaths,
        accept_changes=bool(accept_changes),
        cancel=request_of(cancel_at, cancel_reason, cancel_by),
        tags=tags,
        deadline_at=deadline_at,
        deadline_length=deadline_length,
        interrupted=bool(interrupted),
        failed_keys=tuple(json.loads(failed_keys)),
        discarded_at=discarded_at,
        parent=parent,
        parent_id=parent_id,
        parent_key=parent_key,
        detached=bool(detached),
        deadline_inherited=bool(deadline_inherited),
        pause=request_of(pause_at, pause_reason, pause_by),
        status=status,
        progress=None if done is None else (done, total),
        changed=changed,
    )


def request_of(at: int | None, reason: str, by: str) -> Request | None:
    """A request to end or to pause, where there is one."""
    return None if at is None else Request(at, reason, by)


_KINDS = {kind.value: kind for kind in Kind}
_OUTCOMES = {outcome.value: outcome for outcome in Outcome}
"""A long run has many entries, and this is ten times as fast as to call the class."""


def entry_of(row: Row) -> Entry:
    """An entry from a row of `entries`."""
    seq, key, kind, name, digest, outcome, payload, asked, started_at, at, attempts, removed, decided_by = row
    return Entry(
        seq=seq,
        key=key,
        kind=_KINDS.get(kind) or Kind(kind),
        name=name,
        digest=digest,
        outcome=_OUTCOMES.get(outcome) or Outcome(outcome),
        payload=payload,
        asked=asked,
        started_at=started_at,
        at=at,
        attempts=attempts,
        removed=bool(removed),
        decided_by=decided_by,
    )


def wait_of(row: Row) -> Wait:
    """A wait from a row of `waits`."""
    key, kind, name, since, deadline, target = row
    return Wait(key, Kind(kind), name, since, deadline, target)


def message_of(row: Row) -> Message:
    """A message from a row of `messages`."""
    return Message(*row)


def question_of(row: Row) -> Question:
    """A question from a row of `questions`."""
    key, name, payload, schema, at, deadline, answer, answered_at, answered_by, closed_at, error = row
    return Question(key, name, payload, schema, at, deadline, answer, answered_at, answered_by or "", closed_at, error)


def worker_of(row: Row) -> WorkerRow:
    """A worker from a row of `workers`."""
    no, name, pid, started_at, host, lease, moved, beat_at, ticked_at, holds = row
    return WorkerRow(no, name, pid, started_at, host, lease, moved, beat_at, ticked_at, holds=bool(holds))
