"""The facts a journal holds, as frozen values. Times are integer microseconds UTC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from .errors import ErrorRecord

__all__ = [
    "CANCEL_KEY",
    "DEADLINE",
    "CancelRequest",
    "Claimed",
    "End",
    "Entry",
    "FailedAttempt",
    "Failure",
    "HistoryEntry",
    "Hold",
    "IfExists",
    "Intent",
    "Kind",
    "Memory",
    "NewRun",
    "Outcome",
    "Reason",
    "Resumed",
    "Resumption",
    "RunInfo",
    "RunQuery",
    "RunRow",
    "Settlement",
    "Started",
    "State",
    "StateName",
    "Suspension",
    "Wait",
    "WorkerRow",
]

CANCEL_KEY = "~cancel"
"""The key of the one entry that cancels a run, at somebody's request or at its deadline; no call can have it."""

DEADLINE = "deadline"
"""The name of that entry where the deadline has passed."""


class State(StrEnum):
    """What a run is."""

    PENDING = "pending"
    RUNNING = "running"
    SUSPENDED = "suspended"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"
    PARKED = "parked"

    @property
    def stopped(self) -> bool:
        """Whether nothing moves it any more by itself: completed, cancelled, failed or parked."""
        return self in _STOPPED


StateName = Literal["pending", "running", "suspended", "paused", "completed", "cancelled", "failed", "parked"]
"""The states as people type them."""

_STOPPED = frozenset({State.COMPLETED, State.CANCELLED, State.FAILED, State.PARKED})


class Reason(StrEnum):
    """Why a run failed or was parked."""

    RETRIES_EXHAUSTED = "retries_exhausted"
    PERMANENT = "permanent"
    ERROR = "error"
    DEADLINE = "deadline"
    DIVERGED = "diverged"
    UNDECODABLE = "undecodable"
    CRASH_LOOP = "crash_loop"
    AMBIGUOUS = "ambiguous"
    MAX_ENTRIES = "max_entries"
    NOT_DURABLE = "not_durable"


class Kind(StrEnum):
    """What an entry is the outcome of."""

    STEP = "step"
    SLEEP = "sleep"
    TIMER = "timer"
    CANCEL = "cancel"

    @property
    def waits(self) -> bool:
        """Whether a run may be suspended while it is open."""
        return self is not Kind.STEP


class Outcome(StrEnum):
    """How an entry ended. A declared error is an answer; an error is a fault."""

    VALUE = "value"
    ERROR = "error"
    DECLARED = "declared"


class IfExists(StrEnum):
    """What `start` does when the id is taken."""

    ATTACH = "attach"
    FAIL = "fail"
    REPLACE = "replace"


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


@dataclass(frozen=True, slots=True)
class Memory:
    """All that a journal holds of what a run has done and waits for."""

    entries: Sequence[Entry] = ()
    waits: Sequence[Wait] = ()
    attempts: Sequence[FailedAttempt] = ()
    intents: Sequence[Intent] = ()


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Who asked a run to end, when, and why."""

    at: int
    reason: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be started."""

    id: str
    uid: str
    workflow: str
    origin: str
    version: str
    input: bytes
    input_digest: bytes
    at: int
    tags: Mapping[str, str]
    deadline: int | None = None
    """How many microseconds the run is given."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as the journal holds it."""

    no: int
    """The journal's own number for the run; never used again, not even after a replacement."""
    id: str
    uid: str
    workflow: str
    origin: str
    version: str
    state: State
    reason: str
    """A `Reason` where the run failed or is parked, the caller's words where it was cancelled."""
    input: bytes
    input_digest: bytes
    result: bytes | None
    """The encoded result where the run completed, the encoded error where it failed or is parked."""
    created_at: int
    updated_at: int
    ended_at: int | None
    due_at: int | None
    owner: int | None
    epoch: int
    deaths: int
    """How many owners died in a row without one new outcome."""
    accept_changes: bool
    cancel: CancelRequest | None
    tags: Mapping[str, str]
    deadline_at: int | None = None
    deadline_length: int | None = None
    interrupted: bool = False
    """The last to drive it left it in the middle: steps that are not recorded may have begun."""
    failed_keys: tuple[str, ...] = ()
    """Keys of the failed steps that are found in the error of a failed run."""
    discarded_at: int | None = None
    """When a person marked the dead letter as seen to."""


@dataclass(frozen=True, slots=True)
class Resumption:
    """How a stopped run is to go on."""

    at: int
    accept_changes: bool = False
    retry: tuple[str, ...] = ()
    """Keys of steps to be tried again, besides those that are found in the run's error."""
    input: tuple[bytes, bytes] | None = None
    """A corrected input and its digest."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """What became of a `resume`."""

    row: RunRow
    forgotten: tuple[str, ...]
    """Keys of the outcomes that were forgotten: failures to be tried again, and what the body asked for after it saw them."""


@dataclass(frozen=True, slots=True)
class Hold:
    """The right to write about a run: valid as long as the journal's owner and epoch of that run agree."""

    run: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """A run that this worker drives from now on."""

    row: RunRow
    hold: Hold


@dataclass(frozen=True, slots=True)
class Started:
    """What became of a `start`."""

    row: RunRow
    created: bool
    hold: Hold | None
    """Set where the run was created and this worker drives it."""


@dataclass(frozen=True, slots=True)
class End:
    """How a run stops."""

    state: State
    reason: str
    result: bytes | None
    """The encoded result where it completed, the encoded error where it failed or is parked."""
    at: int
    failed_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Suspension:
    """What became of a request to suspend: done, or the news that forbade it."""

    suspended: bool
    cancel: CancelRequest | None = None


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One open engine, or one that died open."""

    no: int
    name: str
    pid: int
    started_at: int


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs to list, in which order. Times are microseconds UTC."""

    workflow: str | None = None
    states: tuple[State, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    created_from: int | None = None
    created_before: int | None = None
    reason: str | None = None
    letters: bool = False
    """Only dead letters that nobody has seen to."""
    newest_first: bool = True
    limit: int | None = None
    after: int | None = None
    """List only what comes behind the run of this number, in the order asked for."""


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
    """Who decided the outcome, where a person did because nobody could know it."""
