"""The rows that the command line reads, as tuples with names. Times are integer microseconds UTC."""

from __future__ import annotations

from collections.abc import Iterable

from ._light import TYPE_CHECKING, NamedTuple
from ._trouble import REFUSED, Trouble

if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T")

__all__ = [
    "STOPPED",
    "Attempt",
    "Child",
    "Count",
    "Entry",
    "Intent",
    "Message",
    "Question",
    "Run",
    "Stored",
    "Tag",
    "Wait",
    "Worker",
    "checked",
]

_KINDS = {"int": int, "str": str, "bytes": bytes, "None": type(None)}


def checked(kind: type[T], rows: Iterable[tuple[object, ...]]) -> list[T]:
    """The rows as what they are, each value of the type that it has to have.

    The schema makes sure of that, but not in a file that was damaged or made by a stranger.

    Raises:
        Trouble: One has not.
    """
    names = kind.__annotations__
    allowed = [frozenset(_KINDS[word] for word in str(told).split(" | ")) for told in names.values()]
    make: Any = kind
    found: list[T] = []
    for row in rows:
        for value, types, name in zip(row, allowed, names, strict=True):
            if type(value) not in types:
                raise Trouble(
                    f"the journal is damaged: a row holds a {type(value).__name__} where its {name} has to be",
                    "see what is sound with `durable_sqlite doctor`, and restore a backup",
                    code=REFUSED,
                )
        found.append(make(*row))
    return found


STOPPED = frozenset({"completed", "cancelled", "failed", "parked"})
"""The states in which nothing moves a run any more by itself."""


class Run(NamedTuple):
    """A row of `run_select`."""

    no: int
    id: str
    uid: str
    workflow: str
    origin: str
    version: str
    state: str
    reason: str
    created_at: int
    updated_at: int
    ended_at: int | None
    due_at: int | None
    owner: int | None
    epoch: int
    deaths: int
    survived: int
    """How many outcomes there were when an owner died last; 0 also where none has died."""
    interrupted: int
    deadline_at: int | None
    deadline_inherited: int
    cancel_at: int | None
    cancel_reason: str | None
    cancel_by: str | None
    pause_at: int | None
    pause_reason: str | None
    pause_by: str | None
    status: str | None
    done: int | None
    total: int | None
    parent: str | None
    """The id of the run whose body started it."""
    parent_key: str | None
    detached: int
    discarded_at: int | None
    failed_keys: str
    changed: int

    @property
    def progress(self) -> tuple[int, int] | None:
        """How much is done, of how much, where it says so."""
        return None if self.done is None or self.total is None else (self.done, self.total)


class Tag(NamedTuple):
    """A row of `tags`."""

    name: str
    value: str


class Stored(NamedTuple):
    """A row of `input` and of `result`."""

    size: int
    data: bytes


class Count(NamedTuple):
    """A row of `entry_count`."""

    number: int
    last_at: int | None


class Entry(NamedTuple):
    """A row of `entries`."""

    seq: int
    key: str
    kind: str
    name: str
    outcome: str
    asked: int
    started_at: int
    recorded_at: int
    attempts: int
    removed: int
    decided_by: str | None
    size: int
    payload: bytes
    """Its beginning."""


class Attempt(NamedTuple):
    """A row of `attempts`: one that failed."""

    key: str
    number: int
    started_at: int
    ended_at: int
    next_at: int | None
    error: bytes


class Intent(NamedTuple):
    """A row of `intents`: an at-most-once step that was about to begin."""

    key: str
    name: str
    at: int


class Wait(NamedTuple):
    """A row of `first_waits`."""

    key: str
    kind: str
    name: str
    since_at: int
    deadline_at: int | None
    target: str | None
    over: int


class Message(NamedTuple):
    """A row of `messages`: one that was not taken."""

    no: int
    name: str
    sent_at: int
    dedupe: str | None
    error: bytes | None
    size: int
    payload: bytes


class Question(NamedTuple):
    """A row of `questions`."""

    key: str
    name: str
    schema: str
    asked_at: int
    deadline_at: int | None
    answered_at: int | None
    answered_by: str | None
    closed_at: int | None
    error: bytes | None
    size: int
    payload: bytes
    answer_size: int | None
    answer: bytes | None

    @property
    def is_open(self) -> bool:
        """Whether an answer would be taken, deadlines aside."""
        return self.answered_at is None and self.closed_at is None


class Child(NamedTuple):
    """A row of `children`."""

    no: int
    id: str
    workflow: str
    state: str
    reason: str
    created_at: int
    ended_at: int | None
    parent_key: str | None


class Worker(NamedTuple):
    """A row of `worker` and of `workers`: an open engine, or one that died open."""

    no: int
    name: str
    pid: int
    started_at: int
    fenced: int
    host: str
    lease: int
    beat_at: int | None
    ticked_at: int | None
    holds: int
