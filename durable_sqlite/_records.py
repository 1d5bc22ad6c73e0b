"""The facts a journal holds, as frozen values. Times are integer microseconds UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from .errors import ErrorRecord

__all__ = [
    "CANCEL_KEY",
    "CancelRequest",
    "Claimed",
    "Entry",
    "HistoryEntry",
    "Hold",
    "IfExists",
    "Kind",
    "NewRun",
    "Outcome",
    "Reason",
    "RunInfo",
    "RunQuery",
    "RunRow",
    "Started",
    "State",
    "StateName",
    "Suspension",
    "Wait",
    "WorkerRow",
]

CANCEL_KEY = "~cancel"
"""The key of the one entry that cancels a run; no call can have it."""


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
    DAMAGED = "damaged"
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
    """How many entries the body had been given when it made the call."""
    started_at: int
    """When the last attempt's body started, or when the wait was opened."""
    at: int
    """When the outcome was recorded: the body's time from here on."""
    attempts: int = 1
    removed: bool = False
    """A person accepted that the code no longer makes this call."""


@dataclass(frozen=True, slots=True)
class Wait:
    """One open wait of a suspended run."""

    key: str
    kind: Kind
    name: str
    since: int
    deadline: int | None = None


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
    waiting_for: tuple[str, ...]
    """What it waits for, one sentence each, with since when and until when."""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One recorded fact of a run, as its users see it."""

    seq: int
    key: str
    kind: Kind
    name: str
    outcome: Outcome
    value: Any
    """The recorded value as plain JSON data; None where the outcome is an error."""
    error: ErrorRecord | None
    attempts: int
    started_at: datetime
    recorded_at: datetime
    removed: bool
