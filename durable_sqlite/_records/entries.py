"""What a run has recorded, tried and waits for."""

from __future__ import annotations

from dataclasses import dataclass

from .words import Kind, Outcome

__all__ = ["Entry", "FailedAttempt", "Intent", "Settlement", "Wait"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One recorded fact of a run: the outcome of one call, and its place in the run's one order."""

    seq: int
    """1, 2, 3 … in its run: the order in which outcomes reached the body."""
    key: str
    kind: Kind
    name: str
    digest: bytes
    """Of the canonical arguments; empty where there are none to compare."""
    outcome: Outcome
    payload: bytes
    """The encoded value or error, as stored."""
    asked: int
    """The place of the last entry that the body had been given when it made the call; 0 before the first."""
    started_at: int
    """When the last attempt's body started, or when the wait was opened."""
    at: int
    """When the outcome was recorded: the body's time from here on."""
    attempts: int = 1
    removed: bool = False
    """A person accepted that the code no longer makes this call."""
    decided_by: str | None = None
    """Who decided the outcome, where a person did because nobody could know it."""


@dataclass(frozen=True, slots=True)
class Intent:
    """An at-most-once step that was about to begin."""

    key: str
    name: str
    digest: bytes
    asked: int
    at: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a person decided of an at-most-once step of which nobody knows whether it had its effect."""

    key: str
    by: str
    at: int
    payload: bytes | None
    """The encoded result; None where the step is to be tried again."""
    error: bytes
    """What is kept of the attempt in doubt, where the step is to be tried again."""


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt of a step that failed."""

    key: str
    number: int
    """Counted from 1."""
    started_at: int
    at: int
    """When it ended."""
    next_at: int | None
    """When the next attempt may begin; None after the last."""
    error: bytes
    """The encoded error, as stored."""


@dataclass(frozen=True, slots=True)
class Wait:
    """One open wait of a suspended run."""

    key: str
    kind: Kind
    name: str
    since: int
    deadline: int | None = None
    target: str | None = None
    """The id of the run whose end it waits for, where it does."""
