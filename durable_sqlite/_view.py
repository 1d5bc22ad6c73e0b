"""What users see of runs and entries, made from what the journal holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ._clock import to_datetime
from ._codec import Vault, load_error
from ._handle import DeadLetter, Run
from ._records import CANCEL_KEY, Entry, Failure, HistoryEntry, Kind, Memory, Outcome, RunInfo, RunRow, State, Wait
from .errors import ErrorRecord

__all__ = ["history_of", "info_of", "plain"]


def plain(encoded: bytes, where: str = "") -> Any:
    """Encoded bytes as plain JSON data, where the type in the code is not known."""
    del where  # what is valid JSON can always be read
    return json.loads(encoded)


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
    )


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
        input=plain(vault.open(row.input, f"run {row.id}: input")),
        tags=row.tags,
        ended_at=to_datetime(row.ended_at or row.updated_at),
    )


def history_of(row: RunRow, memory: Memory, vault: Vault) -> list[HistoryEntry]:
    """What a run has recorded, in its order, then the steps that are still being tried."""
    run_id = row.id
    failures: dict[str, list[Failure]] = {}
    for attempt in memory.attempts:
        stored = load_error(vault.open(attempt.error, f"run {run_id}, {attempt.key}, attempt {attempt.number}"))
        failures.setdefault(attempt.key, []).append(
            Failure(attempt.number, stored.record, to_datetime(attempt.started_at), to_datetime(attempt.at))
        )
    told = [_told(run_id, entry, tuple(failures.pop(entry.key, ())), vault) for entry in memory.entries]
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


def _told(run_id: str, entry: Entry, failures: tuple[Failure, ...], vault: Vault) -> HistoryEntry:
    encoded = vault.open(entry.payload, f"run {run_id}, {entry.key}")
    value: Any = None
    error: ErrorRecord | None = None
    if entry.outcome is Outcome.ERROR:
        error = load_error(encoded).record
    else:
        value = plain(encoded)
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
        decided_by=entry.decided_by,
    )


def _sentence(wait: Wait) -> str:
    what = {
        Kind.SLEEP: "sleep",
        Kind.TIMER: wait.name,
        Kind.STEP: f"next attempt of {wait.name}",
    }.get(wait.kind, wait.name)
    since = to_datetime(wait.since).isoformat(timespec="milliseconds")
    until = "" if wait.deadline is None else f" until {_moment(wait.deadline)}"
    return f"{what} ({wait.key}) since {since}{until}"


def _moment(instant: int) -> str:
    try:
        return to_datetime(instant).isoformat(timespec="milliseconds")
    except OverflowError:
        return "beyond the year 9999"
