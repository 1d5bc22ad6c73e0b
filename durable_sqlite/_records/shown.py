"""Runs, questions, messages and entries as people see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..errors import ErrorRecord
from .words import Kind, Outcome, State

__all__ = ["Failure", "HistoryEntry", "MessageInfo", "Progress", "QuestionInfo", "RunInfo"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come, as its body says."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run as its users see it."""

    id: str
    uid: str
    workflow: str
    version: str
    state: State
    reason: str
    error: ErrorRecord | None
    tags: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    deadline: datetime | None
    """When it must have ended; it is told so then, and fails."""
    waiting_for: tuple[str, ...]
    """What it waits for, one sentence each, with since when and until when."""
    status: str | None = None
    """What its body last said with `set_status`."""
    progress: Progress | None = None
    """What its body last said with `set_progress`."""
    parent: str | None = None
    """The id of the run whose body started it."""


@dataclass(frozen=True, slots=True)
class QuestionInfo:
    """An open question of a run, as whoever may answer it sees it."""

    run_id: str
    workflow: str
    key: str
    """Names the question in `run.answer(..., key=...)`."""
    point: str
    """The name of the suspend point."""
    question: Any
    """Its fields as plain JSON data."""
    answer_schema: Mapping[str, Any]
    """The JSON schema of the answer."""
    asked_at: datetime
    deadline: datetime | None
    error: ErrorRecord | None = None
    """Why the last answer was set aside, where it did not fit the schema."""


@dataclass(frozen=True, slots=True)
class MessageInfo:
    """A message that a run has not taken, as its users see it."""

    name: str
    """The signal's name."""
    message: Any
    """Its fields as plain JSON data."""
    sent_at: datetime
    dedupe: str | None
    error: ErrorRecord | None
    """Why it was set aside, where it does not fit its type."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt of a step, as its users see it."""

    attempt: int
    """Counted from 1."""
    error: ErrorRecord
    started_at: datetime
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One recorded fact of a run, as its users see it; or a step that is still being tried."""

    seq: int
    """The place in the run's order; 0 for a step that is still being tried."""
    key: str
    kind: Kind
    name: str
    outcome: Outcome | None
    """None for a step that is still being tried."""
    value: Any
    """The recorded value as plain JSON data; None where the outcome is an error."""
    error: ErrorRecord | None
    attempts: int
    """How many were made, the last one included."""
    failures: tuple[Failure, ...]
    """The attempts that failed and were followed by another, or will be."""
    started_at: datetime
    """When the last attempt began; for a step that is still being tried, the first."""
    recorded_at: datetime | None
    removed: bool
    decided_by: str | None = None
    """Who answered the question, or decided the outcome of a step where nobody could know it."""
