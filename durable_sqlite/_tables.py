"""What a transaction can do: to the user's own tables, and to runs, all of it part of one commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from ._records import IfExists, NewMessage, NewRun, Outcome, Sent, Started

__all__ = ["Budget", "Door", "Effect", "Parameters", "Rows", "Undone", "Work"]

T = TypeVar("T")

Parameters = Sequence[Any] | Mapping[str, Any]
"""Values for the `?` or `:name` of a statement."""


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows of one statement, already fetched."""

    rows: Sequence[tuple[Any, ...]]
    columns: tuple[str, ...]
    """Their names, in the order of a row; empty where the statement gives no rows."""
    rowcount: int
    """How many rows were written, or were found."""
    lastrowid: int | None
    """The row that an INSERT made."""

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


class Door(Protocol):
    """What a transaction can do, on the journal's thread and inside the commit. It is closed when the transaction is over."""

    def execute(self, sql: str, parameters: Parameters) -> Rows:
        """Run one statement; its rows are fetched whole.

        Raises:
            UsageError: The statement would begin or end a transaction, reach another file or a setting, or touch the
                journal's own tables; or the transaction is over.
            sqlite3.Error: SQLite refuses it.
        """
        ...

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> int:
        """Run one statement for each set of values; how many rows were written. Raises as `execute` does."""
        ...

    def start(self, new: NewRun, if_exists: IfExists, message: NewMessage | None = None) -> Started:
        """Store a run as part of the commit; nobody drives it yet.

        Raises:
            RunConflict: As `Journal.start`.
            RunExists: As `Journal.start`.
            SignalRejected: As `Journal.start`.
        """
        ...

    def signal(self, run_id: str, message: NewMessage) -> Sent:
        """Store a message to a run as part of the commit.

        Raises:
            UnknownRun: No run has this id.
            SignalRejected: The run has ended.
        """
        ...


@dataclass(frozen=True, slots=True)
class Budget:
    """How long a transaction may hold up the journal."""

    what: str
    """Names it in messages."""
    sql: float
    """Seconds, from its beginning, after which SQL that still runs is interrupted."""


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """A transaction's body, which may be called more than once: a batch that is undone is applied again."""

    body: Callable[[Door], T]
    budget: Budget


@dataclass(frozen=True, slots=True)
class Effect:
    """What a transaction step is recorded with."""

    outcome: Outcome
    payload: bytes
    keep: bool = True
    """Whether its rows stay; not where it raised an error that is an answer."""


@dataclass(frozen=True, slots=True)
class Undone:
    """A transaction that failed: its rows are gone, and nothing was recorded."""

    error: BaseException
