"""What users see of runs and entries, made from what the journal holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ._clock import to_datetime
from ._codec import Vault, load_error
from ._records import Entry, HistoryEntry, Kind, Outcome, RunInfo, RunRow, State, Wait
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
        error, _ = load_error(vault.open(row.result, f"run {row.id}: error"))
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
        waiting_for=waiting,
    )


def history_of(run_id: str, entry: Entry, vault: Vault) -> HistoryEntry:
    """An entry as its users see it."""
    encoded = vault.open(entry.payload, f"run {run_id}, {entry.key}")
    value: Any = None
    error: ErrorRecord | None = None
    match entry.outcome:
        case Outcome.VALUE:
            value = plain(encoded)
        case Outcome.ERROR:
            error, _ = load_error(encoded)
        case Outcome.DECLARED:
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
        started_at=to_datetime(entry.started_at),
        recorded_at=to_datetime(entry.at),
        removed=entry.removed,
    )


def _sentence(wait: Wait) -> str:
    what = {
        Kind.SLEEP: "sleep",
        Kind.TIMER: wait.name,
    }.get(wait.kind, wait.name)
    since = to_datetime(wait.since).isoformat(timespec="milliseconds")
    until = "" if wait.deadline is None else f" until {_moment(wait.deadline)}"
    return f"{what} ({wait.key}) since {since}{until}"


def _moment(instant: int) -> str:
    try:
        return to_datetime(instant).isoformat(timespec="milliseconds")
    except OverflowError:
        return "beyond the year 9999"
