"""What the body of a transaction is given: SQL on the user's own tables, and runs, all of it part of one commit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

from ._handle import message_to
from ._records import NewMessage, NewRun, RunRow
from ._specs import SendMessage, StartOptions, WorkflowSpec
from ._tables import Door, Parameters, Rows
from ._workflows import Workflow

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from ._signals import Signal  # pydantic is imported with it

__all__ = ["Clerkship", "Tx"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Clerkship(Protocol):
    """Writes out what a transaction asks of runs, and remembers whom to tell after the commit."""

    def new_run(
        self, workflow: WorkflowSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: StartOptions
    ) -> NewRun:
        """A run to be started."""
        ...

    def new_message(self, message: SendMessage) -> NewMessage:
        """A message to be sent."""
        ...

    def done(self, row: RunRow) -> None:
        """Note that this run was started, or was sent a message."""
        ...


class Tx:
    """A transaction: what is done through it is one commit, or nothing. It is of use only while the body runs."""

    def __init__(self, door: Door, clerkship: Clerkship) -> None:
        self._door = door
        self._clerkship = clerkship

    def execute(self, sql: str, parameters: Parameters = ()) -> Rows:
        """Run one SQL statement, and fetch all its rows.

        Args:
            sql: The statement, with `?` or `:name` where values go.
            parameters: The values.

        Raises:
            UsageError: The statement would begin or end a transaction, reach another file or a setting, or touch the
                journal's own tables.
            sqlite3.Error: SQLite refuses it.
        """
        return self._door.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> int:
        """Run one SQL statement for each set of values; how many rows were written. Raises as `execute` does."""
        return self._door.executemany(sql, parameters)

    def fetch_one(self, model: type[T], sql: str, parameters: Parameters = ()) -> T | None:
        """The first row as a `model`, or None if there is none. Raises as `execute` and `fetch_all` do."""
        found = self._door.execute(sql, parameters)
        return _read(model, found.columns, found.rows[0]) if found.rows else None

    def fetch_all(self, model: type[T], sql: str, parameters: Parameters = ()) -> list[T]:
        """All rows, each as a `model`.

        By the names of its columns for a pydantic model, a dataclass or a TypedDict, by their order for a tuple; any other type
        is that of the only column.

        Raises:
            pydantic.ValidationError: A row does not fit.
            sqlite3.Error: SQLite refuses the statement.
        """
        found = self._door.execute(sql, parameters)
        return [_read(model, found.columns, row) for row in found.rows]

    def start(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> str:
        """Start a run as part of the commit; its id. Options go before it: `tx.start(fulfil.options(id="a-1"), order)`.

        Raises:
            RunConflict: The chosen id is taken by a run of another workflow or input.
            RunExists: The chosen id is taken and `if_exists="fail"` was asked.
            Unstorable: An argument cannot be stored; the message has its path.
        """
        options = workflow.chosen
        new = self._clerkship.new_run(workflow.spec, args, kwargs, options)
        started = self._door.start(new, options.if_exists)
        self._clerkship.done(started.row)
        return started.row.id

    def signal(self, run_id: str, message: Signal, *, dedupe: str | None = None) -> None:
        """Send a message to a run as part of the commit.

        Args:
            run_id: The run.
            message: An instance of a subclass of `Signal`.
            dedupe: A second message to this run with the same value is the same message, and changes nothing.

        Raises:
            SignalRejected: The run has ended.
            UnknownRun: No run has this id.
        """
        sent = self._door.signal(run_id, self._clerkship.new_message(message_to(run_id, message, dedupe)))
        self._clerkship.done(sent.row)


def _read(model: type[T], columns: tuple[str, ...], row: tuple[Any, ...]) -> T:
    kind: Any = model
    adapter, shape = _adapter(kind)
    return cast("T", adapter.validate_python(shape(columns, row)))


@lru_cache(maxsize=1024)
def _adapter(model: Any) -> tuple[TypeAdapter[Any], Callable[[tuple[str, ...], tuple[Any, ...]], Any]]:
    from pydantic import BaseModel, TypeAdapter  # noqa: PLC0415 - imported where it is first needed
    from typing_extensions import is_typeddict  # noqa: PLC0415 - knows those of `typing` and its own

    origin: Any = getattr(model, "__origin__", model)
    adapter: TypeAdapter[Any] = TypeAdapter(model)
    bases: tuple[Any, ...] = getattr(origin, "__mro__", ())
    if BaseModel in bases or dataclasses.is_dataclass(origin) or is_typeddict(origin):
        return adapter, _by_name
    if tuple in bases:
        return adapter, _by_order
    return adapter, _the_only_one


def _by_name(columns: tuple[str, ...], row: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(columns, row, strict=True))


def _by_order(_columns: tuple[str, ...], row: tuple[Any, ...]) -> tuple[Any, ...]:
    return row


def _the_only_one(columns: Sequence[str], row: tuple[Any, ...]) -> Any:
    if len(row) != 1:
        raise TypeError(
            f"a row of {len(row)} columns ({', '.join(columns)}) is no single value: ask for a model or a tuple"
        )
    return row[0]
