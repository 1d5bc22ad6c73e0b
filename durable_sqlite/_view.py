"""What users see of runs and entries, made from what the journal holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from ._clock import to_datetime
from ._codec import Vault, load_error
from ._handle import DeadLetter, Run
from ._records import (
    CANCEL_KEY,
    Entry,
    Failure,
    HistoryEntry,
    Kind,
    Memory,
    Message,
    MessageInfo,
    OpenQuestion,
    Outcome,
    Progress,
    QuestionInfo,
    Request,
    RunInfo,
    RunRow,
    State,
    Wait,
)
from .errors import DurableError, ErrorRecord, JournalDamaged, Undecodable

__all__ = ["history_of", "info_of", "letter_of", "message_of", "plain", "question_of"]

P = ParamSpec("P")
R = TypeVar("R")


def plain(encoded: bytes, where: str = "") -> Any:
    """Encoded bytes as plain JSON data, where the type in the code is not known.

    Raises:
        Undecodable: They are no JSON.
    """
    try:
        return json.loads(encoded)
    except (ValueError, TypeError) as error:
        raise Undecodable(
            f"{where}: stored bytes are no JSON ({error}): the journal was damaged, or changed by hand"
        ) from error


def _of_what_is_stored(show: Callable[P, R]) -> Callable[P, R]:
    """A view that raises `JournalDamaged` where what is stored is nothing that was ever written."""

    @wraps(show)
    def shown(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return show(*args, **kwargs)
        except DurableError:
            raise
        except (ValueError, TypeError, OverflowError) as error:
            raise JournalDamaged(
                f"what is stored cannot be shown ({type(error).__name__}: {error}): `engine.verify()` names all that is damaged"
            ) from error

    return shown


@_of_what_is_stored
def info_of(row: RunRow, waits: Sequence[Wait], vault: Vault, *, unknown: bool) -> RunInfo:
    """A run as its users see it.

    Args:
        row: The run.
        waits: What it waits for, where it is suspended.
        vault: Opens what is stored.
        unknown: This process does not know the run's workflow.
    """
    error: ErrorRecord | None = None
    if row.state in (State.FAILED, State.PARKED) and row.result is not None:
        error = load_error(vault.open(row.result, f"run {row.id}: error")).record
    waiting = tuple(_sentence(wait) for wait in waits)
    if row.pause is not None:
        waiting = (_pause(row.pause, row.state), *waiting)
    if unknown and row.state in (State.PENDING, State.SUSPENDED):
        waiting = (*waiting, f"a process that knows workflow {row.workflow} (defined in {row.origin})")
    return RunInfo(
        id=row.id,
        uid=row.uid,
        workflow=row.workflow,
        version=row.version,
        state=row.state,
        reason=row.reason,
        error=error,
        tags=row.tags,
        created_at=to_datetime(row.created_at),
        updated_at=to_datetime(row.updated_at),
        ended_at=None if row.ended_at is None else to_datetime(row.ended_at),
        deadline=None if row.deadline_at is None else to_datetime(row.deadline_at),
        waiting_for=waiting,
        status=row.status,
        progress=None if row.progress is None else Progress(*row.progress),
        parent=row.parent_id,
    )


@_of_what_is_stored
def message_of(row: RunRow, message: Message, vault: Vault) -> MessageInfo:
    """A message that was not taken, as its run's users see it."""
    where = f"run {row.id}, message {message.no}"
    error = None if message.error is None else load_error(vault.open(message.error, where)).record
    return MessageInfo(
        name=message.name,
        message=_readable(vault, message.payload, where),
        sent_at=to_datetime(message.at),
        dedupe=message.dedupe,
        error=error,
    )


@_of_what_is_stored
def question_of(found: OpenQuestion, vault: Vault) -> QuestionInfo:
    """An open question, as whoever may answer it sees it."""
    asked = found.question
    where = f"run {found.run_id}, question {asked.key}"
    return QuestionInfo(
        run_id=found.run_id,
        workflow=found.workflow,
        key=asked.key,
        point=asked.name,
        question=plain(vault.open(asked.payload, where), where),
        answer_schema=plain(asked.schema.encode("utf-8", "surrogateescape"), where),
        asked_at=to_datetime(asked.at),
        deadline=None if asked.deadline is None else to_datetime(asked.deadline),
        error=None if asked.error is None else load_error(vault.open(asked.error, where)).record,
    )


def _readable(vault: Vault, payload: bytes, where: str) -> Any:
    """What can be shown of a message that anybody may have stored, in whatever form."""
    try:
        return plain(vault.open(payload, where))
    except (Undecodable, ValueError):
        return None


@_of_what_is_stored
def letter_of(row: RunRow, run: Run[Any], vault: Vault) -> DeadLetter:
    """A failed or parked run as whoever must act on it sees it."""
    stored = load_error(vault.open(row.result, f"run {row.id}: error")) if row.result is not None else None
    return DeadLetter(
        run=run,
        workflow=row.workflow,
        state=row.state,
        reason=row.reason,
        keys=tuple(key for key in row.failed_keys if key != CANCEL_KEY),
        error=None if stored is None else stored.record,
        attempts=0 if stored is None else stored.attempts,
        input=plain(vault.open(row.input, f"run {row.id}: input"), f"run {row.id}: input"),
        tags=row.tags,
        ended_at=to_datetime(row.ended_at or row.updated_at),
    )


@_of_what_is_stored
def history_of(row: RunRow, memory: Memory, vault: Vault) -> list[HistoryEntry]:
    """What a run has recorded, in its order, then the steps that are still being tried."""
    run_id = row.id
    failures: dict[str, list[Failure]] = {}
    for attempt in memory.attempts:
        stored = load_error(vault.open(attempt.error, f"run {run_id}, {attempt.key}, attempt {attempt.number}"))
        failures.setdefault(attempt.key, []).append(
            Failure(attempt.number, stored.record, to_datetime(attempt.started_at), to_datetime(attempt.at))
        )
    by = {question.key: question.answered_by for question in memory.questions if question.answered_by}
    told = [
        _told(run_id, entry, tuple(failures.pop(entry.key, ())), by.get(entry.key), vault) for entry in memory.entries
    ]
    if row.state in (State.COMPLETED, State.CANCELLED):
        return told  # what was tried in vain and then given up has no outcome, and will have none
    return told + [_trying(key, tuple(failed)) for key, failed in failures.items()]


def _trying(key: str, failures: tuple[Failure, ...]) -> HistoryEntry:
    name = key.rpartition("/")[2].partition("#")[0]
    return HistoryEntry(
        seq=0,
        key=key,
        kind=Kind.STEP,
        name=name,
        outcome=None,
        value=None,
        error=None,
        attempts=len(failures),
        failures=failures,
        started_at=failures[0].started_at,
        recorded_at=None,
        removed=False,
    )


def _told(
    run_id: str, entry: Entry, failures: tuple[Failure, ...], answered_by: str | None, vault: Vault
) -> HistoryEntry:
    value: Any = None
    error: ErrorRecord | None = None
    if entry.outcome is Outcome.ERROR:
        error = load_error(vault.open(entry.payload, f"run {run_id}, {entry.key}")).record
    elif entry.outcome is not Outcome.TIMEOUT:
        where = f"run {run_id}, {entry.key}"
        value = plain(vault.open(entry.payload, where), where)
    return HistoryEntry(
        seq=entry.seq,
        key=entry.key,
        kind=entry.kind,
        name=entry.name,
        outcome=entry.outcome,
        value=value,
        error=error,
        attempts=entry.attempts,
        failures=failures,
        started_at=to_datetime(entry.started_at),
        recorded_at=to_datetime(entry.at),
        removed=entry.removed,
        decided_by=entry.decided_by or answered_by,
    )


def _sentence(wait: Wait) -> str:
    what = {
        Kind.SLEEP: "sleep",
        Kind.TIMER: wait.name,
        Kind.STEP: f"next attempt of {wait.name}",
        Kind.TRANSACTION: f"next attempt of {wait.name}",
        Kind.SIGNAL: f"a message {wait.name}",
        Kind.QUESTION: f"an answer to {wait.name}",
        Kind.CHILD: f"child run {wait.target} of {wait.name}",
        Kind.RUN: f"the end of run {wait.target}",
    }.get(wait.kind, wait.name)
    since = to_datetime(wait.since).isoformat(timespec="milliseconds")
    until = "" if wait.deadline is None else f" until {_moment(wait.deadline)}"
    return f"{what} ({wait.key}) since {since}{until}"


def _pause(request: Request, state: State) -> str:
    """Since when a run waits for a person to let it go on, or that it will once what is in flight has ended."""
    by = f" by {request.by}" if request.by else ""
    why = f" ({request.reason})" if request.reason else ""
    since = to_datetime(request.at).isoformat(timespec="milliseconds")
    what = "resume" if state is State.PAUSED else "what is in flight, to be paused then"
    return f"{what}: pause was asked{by} at {since}{why}"


def _moment(instant: int) -> str:
    try:
        return to_datetime(instant).isoformat(timespec="milliseconds")
    except OverflowError:
        return "beyond the year 9999"
