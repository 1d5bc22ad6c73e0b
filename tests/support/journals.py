"""Runs, entries, waits and messages for tests of a journal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from durable_sqlite._records import (
    End,
    Entry,
    Hold,
    IfExists,
    Kind,
    NewAnswer,
    NewMessage,
    NewQuestion,
    NewRun,
    Outcome,
    Request,
    Rest,
    RunRow,
    Started,
    State,
    Wait,
)
from durable_sqlite._tables import Budget, Door, Effect, Parameters, Rows, Work
from durable_sqlite.journal import Journal

__all__ = [
    "asked",
    "awaits_answer",
    "awaits_end",
    "awaits_message",
    "begin",
    "bookings",
    "completed",
    "entry",
    "failed",
    "inserts",
    "look",
    "make_bookings",
    "new_answer",
    "new_message",
    "new_question",
    "new_run",
    "rest",
    "statement",
    "wait",
    "work",
]

T = TypeVar("T")


def new_run(
    run_id: str = "a",
    *,
    workflow: str = "ship",
    origin: str = "shop.ship",
    digest: bytes = b"digest",
    at: int = 10,
    tags: Mapping[str, str] | None = None,
    uid: str | None = None,
    deadline: int | None = None,
    parent: int | None = None,
    parent_key: str | None = None,
    detached: bool = False,
) -> NewRun:
    """A run to be started."""
    return NewRun(
        id=run_id,
        uid=uid or f"uid of {run_id}",
        workflow=workflow,
        origin=origin,
        version="1",
        input=b'{"n":1}',
        input_digest=digest,
        at=at,
        tags=tags or {},
        deadline=deadline,
        parent=parent,
        parent_key=parent_key,
        detached=detached,
    )


def entry(
    key: str = "s#1",
    *,
    seq: int = 1,
    kind: Kind = Kind.STEP,
    payload: bytes = b"1",
    at: int = 30,
    name: str = "s",
    outcome: Outcome = Outcome.VALUE,
    asked: int | None = None,
) -> Entry:
    """An outcome."""
    return Entry(
        seq=seq,
        key=key,
        kind=kind,
        name=name,
        digest=b"\x00\xff",
        outcome=outcome,
        payload=payload,
        asked=seq - 1 if asked is None else asked,
        started_at=at - 5,
        at=at,
        attempts=2,
    )


# What runs wait for --------------------------------------------------------------------------------------------------


def wait(key: str = "sleep#1", *, since: int = 40, deadline: int | None = None) -> Wait:
    """A wait for a time, or for something that may never come."""
    return Wait(key, Kind.SLEEP, "sleep", since, deadline)


def awaits_message(name: str = "paid", *, key: str = "paid#1", since: int = 40, deadline: int | None = None) -> Wait:
    """A wait for a message."""
    return Wait(key, Kind.SIGNAL, name, since, deadline)


def awaits_answer(key: str = "review#1", *, since: int = 40, deadline: int | None = None) -> Wait:
    """A wait for the answer to a question."""
    return Wait(key, Kind.QUESTION, "review", since, deadline)


def awaits_end(run_id: str, *, key: str = "child#1", kind: Kind = Kind.CHILD, since: int = 40) -> Wait:
    """A wait for the end of a run."""
    return Wait(key, kind, "child", since, None, run_id)


def rest(
    *opened: Wait, at: int = 40, closed: Collection[str] = (), stays: Collection[Wait] = (), paused: bool = False
) -> Rest:
    """How a run comes to rest; `stays` are the waits of before that are still open."""
    due = min((each.deadline for each in (*opened, *stays) if each.deadline is not None), default=None)
    return Rest(at, opened, tuple(closed), due, paused)


# What is sent, asked and answered ------------------------------------------------------------------------------------


def new_message(name: str = "paid", *, payload: bytes = b"m", at: int = 50, dedupe: str | None = None) -> NewMessage:
    """A message to a run."""
    return NewMessage(name, payload, at, dedupe)


def new_question(
    key: str = "review#1", *, name: str = "review", at: int = 20, deadline: int | None = None
) -> NewQuestion:
    """A question at a suspend point."""
    return NewQuestion(key, name, f"{key}?".encode(), '{"type":"boolean"}', at, deadline)


def new_answer(
    key: str | None = None,
    *,
    name: str = "review",
    payload: bytes = b"true",
    at: int = 50,
    by: str = "ada",
    early: bool = False,
    dedupe: str | None = None,
) -> NewAnswer:
    """An answer to it."""
    return NewAnswer(name, key, payload, at, by, early=early, dedupe=dedupe)


def asked(at: int = 50, reason: str = "too late", by: str = "ann") -> Request:
    """A request to cancel, or to pause."""
    return Request(at, reason, by)


# How runs begin and end ----------------------------------------------------------------------------------------------


async def begin(
    journal: Journal, run_id: str = "a", *, at: int = 10, workflow: str = "ship", deadline: int | None = None
) -> tuple[Started, Hold]:
    """Start a run that this worker drives."""
    new = new_run(run_id, at=at, workflow=workflow, deadline=deadline)
    started = await journal.start(new, IfExists.ATTACH, drive=True)
    assert started.hold is not None
    return started, started.hold


def completed(at: int = 60) -> End:
    """A good end."""
    return End(State.COMPLETED, "", b"1", at)


def failed(at: int = 60, *, reason: str = "error", keys: Collection[str] = ()) -> End:
    """A bad end."""
    return End(State.FAILED, reason, b"{}", at, tuple(keys))


async def look(journal: Journal, run_id: str = "a") -> RunRow:
    """The run, which must be there."""
    row = await journal.run(run_id)
    assert row is not None
    return row


# Transactions --------------------------------------------------------------------------------------------------------


def work(body: Callable[[Door], T], *, sql: float = 5.0, what: str = "book") -> Work[T]:
    """A transaction."""
    return Work(body, Budget(what, sql))


def statement(sql: str, parameters: Parameters = ()) -> Work[Rows]:
    """A transaction of one statement."""
    return work(lambda door: door.execute(sql, parameters))


def inserts(name: str, *, outcome: Outcome = Outcome.VALUE, payload: bytes = b"1", keep: bool = True) -> Work[Effect]:
    """The transaction of a step that makes one booking."""

    def body(door: Door) -> Effect:
        door.execute("INSERT INTO bookings (name) VALUES (?)", (name,))
        return Effect(outcome, payload, keep)

    return work(body)


async def make_bookings(journal: Journal) -> None:
    """A table of the application."""
    await journal.transact(
        work(lambda door: door.execute("CREATE TABLE bookings (name TEXT NOT NULL UNIQUE) STRICT", ()))
    )


async def bookings(journal: Journal) -> list[str]:
    """What was booked, in that order."""
    rows = await journal.transact(work(lambda door: door.execute("SELECT name FROM bookings ORDER BY rowid", ())))
    return [name for (name,) in rows]
