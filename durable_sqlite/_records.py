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
    "Answered",
    "Claimed",
    "Drained",
    "End",
    "Entry",
    "FailedAttempt",
    "Failure",
    "HistoryEntry",
    "Hold",
    "IfExists",
    "Intent",
    "Kind",
    "Mail",
    "Memory",
    "Message",
    "MessageInfo",
    "NewAnswer",
    "NewMessage",
    "NewQuestion",
    "NewRun",
    "News",
    "OpenQuestion",
    "Outcome",
    "Progress",
    "Pruned",
    "Pruning",
    "Question",
    "QuestionInfo",
    "QuestionQuery",
    "Reason",
    "Report",
    "Request",
    "Rest",
    "Resumed",
    "Resumption",
    "RunInfo",
    "RunQuery",
    "RunRow",
    "Sent",
    "Settlement",
    "Started",
    "State",
    "StateName",
    "Suspension",
    "Wait",
    "WorkerRow",
    "abandoner",
]

CANCEL_KEY = "~cancel"
"""The key of the one entry that cancels a run, at somebody's request or at its deadline; no call can have it."""


def abandoner(run_id: str) -> str:
    """Who asks a child run to end that the body of this run no longer waits for, in its request."""
    return f"run {run_id}"


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

    @property
    def ended(self) -> bool:
        """Whether it takes no message any more, and whoever waits for it is told: stopped, but not parked."""
        return self.stopped and self is not State.PARKED


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
    DAMAGED = "damaged"


class Kind(StrEnum):
    """What an entry is the outcome of."""

    STEP = "step"
    TRANSACTION = "transaction"
    """A step whose rows and outcome are one commit."""
    SLEEP = "sleep"
    TIMER = "timer"
    SIGNAL = "signal"
    """A wait for a message."""
    QUESTION = "question"
    """A suspend point: a wait for somebody's answer."""
    CHILD = "child"
    """A workflow that was called: a wait for the end of the child run."""
    RUN = "run"
    """A wait for the end of a run by its handle."""
    DRAIN = "drain"
    """All messages that are there."""
    ACT = "act"
    """Something done to a run: started, sent a message, answered, cancelled."""
    CANCEL = "cancel"

    @property
    def waits(self) -> bool:
        """Whether a run may be suspended while it is open."""
        return self not in _ACTIVE


_ACTIVE = frozenset({Kind.STEP, Kind.TRANSACTION, Kind.DRAIN, Kind.ACT})


class Outcome(StrEnum):
    """How an entry ended. A declared error is an answer; an error is a fault."""

    VALUE = "value"
    ERROR = "error"
    DECLARED = "declared"
    TIMEOUT = "timeout"
    """Nothing came before the deadline of a wait."""


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
    target: str | None = None
    """The id of the run whose end it waits for, where it does."""


# Messages, questions and answers -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to be sent to a run."""

    name: str
    """The signal's name."""
    payload: bytes
    at: int
    dedupe: str | None = None
    """A second message to the same run with the same value is the same message."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message to a run, as the journal holds it."""

    no: int
    """1, 2, 3 … in its run: the order in which messages were stored."""
    name: str
    payload: bytes
    at: int
    """When it was sent, by the sender's clock."""
    dedupe: str | None = None
    taken_by: str | None = None
    """The key of the entry that took it."""
    error: bytes | None = None
    """The encoded error, as stored, of a message that was set aside because it does not fit its type."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a message."""

    row: RunRow
    """The run, after it."""
    message: Message
    new: bool
    """False where a message with the same `dedupe` was there already."""


@dataclass(frozen=True, slots=True)
class NewQuestion:
    """A question that a run asks at a suspend point."""

    key: str
    """The key of its wait."""
    name: str
    """The suspend point's name."""
    payload: bytes
    """The encoded question, as stored."""
    schema: str
    """The JSON schema of the answer, as JSON."""
    at: int
    deadline: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question as the journal holds it. It is open while it has neither an answer nor been closed."""

    key: str
    name: str
    payload: bytes
    schema: str
    at: int
    deadline: int | None = None
    answer: bytes | None = None
    answered_at: int | None = None
    answered_by: str = ""
    closed_at: int | None = None
    """When it was over without an answer: its deadline passed, or the body no longer waits for it."""
    error: bytes | None = None
    """The encoded error, as stored, of the last answer that was set aside because it does not fit its type."""

    @property
    def is_open(self) -> bool:
        """Whether an answer would be taken, deadlines aside."""
        return self.answer is None and self.closed_at is None


@dataclass(frozen=True, slots=True)
class NewAnswer:
    """An answer to a question of a run."""

    name: str
    key: str | None
    """Which question; None where the suspend point asks only one."""
    payload: bytes
    at: int
    by: str = ""
    early: bool = False
    """Where it has not been asked yet, keep the answer for the next question of this name."""
    dedupe: str | None = None
    """A second answer with the same value is the same answer."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of an answer."""

    row: RunRow
    """The run, after it."""
    key: str | None
    """The question that was answered; None where the answer waits for the question."""


@dataclass(frozen=True, slots=True)
class Mail:
    """What has come for a run and was not given to its body yet."""

    messages: Sequence[Message] = ()
    """Neither taken nor set aside, oldest first."""
    questions: Sequence[Question] = ()
    """Answered, and the answer was not recorded yet."""
    ended: Sequence[RunRow] = ()
    """Those of the runs asked about that have completed, failed or been cancelled."""


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """An open question, and the run that asks it."""

    run_id: str
    workflow: str
    question: Question


@dataclass(frozen=True, slots=True)
class QuestionQuery:
    """Which open questions to list, oldest first."""

    run_id: str | None = None
    workflow: str | None = None
    name: str | None = None
    limit: int | None = None
    after: tuple[int, str, str] | None = None
    """List only what comes behind the question asked at that time, by that run, with that key."""


@dataclass(frozen=True, slots=True)
class Memory:
    """All that a journal holds of what a run has done and waits for."""

    entries: Sequence[Entry] = ()
    waits: Sequence[Wait] = ()
    attempts: Sequence[FailedAttempt] = ()
    intents: Sequence[Intent] = ()
    messages: Sequence[Message] = ()
    """Those that were not taken, oldest first; those that were set aside included."""
    questions: Sequence[Question] = ()
    """All that were ever asked, in that order."""
    children: Sequence[str] = ()
    """The ids of the runs that its body started and that have not stopped."""
    damage: str | None = None
    """What of it is not what was written, in words: then the rest is not to be relied on either."""


@dataclass(frozen=True, slots=True)
class Request:
    """Who asked a run to end or to pause, when, and why."""

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
    parent: int | None = None
    """The number of the run whose body starts it."""
    parent_key: str | None = None
    """The key of the entry under which that body starts it."""
    detached: bool = False
    """What is asked of the parent is not asked of it, and it inherits no deadline."""


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
    cancel: Request | None
    tags: Mapping[str, str]
    deadline_at: int | None = None
    deadline_length: int | None = None
    interrupted: bool = False
    """The last to drive it left it in the middle: steps that are not recorded may have begun."""
    failed_keys: tuple[str, ...] = ()
    """Keys of the failed steps that are found in the error of a failed run."""
    discarded_at: int | None = None
    """When a person marked the dead letter as seen to."""
    parent: int | None = None
    """The number of the run whose body started it."""
    parent_key: str | None = None
    """The key of the entry under which that body started it."""
    parent_id: str | None = None
    """That run's id, while the journal has it."""
    detached: bool = False
    """What is asked of the parent is not asked of it."""
    deadline_inherited: bool = False
    """The deadline is the parent's, which was the nearer one."""
    pause: Request | None = None
    """It is paused, or will be once what is in flight has ended."""
    status: str | None = None
    """What the body last said of itself."""
    progress: tuple[int, int] | None = None
    """How much is done, of how much, as the body last said."""
    changed: int = 0
    """Grows with each change of the run, over all runs of the journal."""
    damage: str | None = None
    """What of this row is not what was written, in words; only said of a run that was asked for by its id."""


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
    forgotten: tuple[str, ...] = ()
    """Keys of the outcomes that were forgotten: failures to be tried again, and what the body asked for after it saw them."""
    others: Sequence[RunRow] = ()
    """The child runs that go on with it."""


@dataclass(frozen=True, slots=True)
class Pruning:
    """Which runs are to be forgotten for good, and how much of that in one transaction."""

    before: int
    """Only runs that had ended by then."""
    states: tuple[State, ...]
    """Only runs in one of these states."""
    discarded: bool
    """Besides, dead letters that a person had marked as seen to by then."""
    after: tuple[int, int] | None = None
    """Go on behind the run that ended at this time and has this number."""
    looks: int = 1_000
    """How many runs are looked at, at the most."""
    limit: int = 100
    """How many runs are forgotten, at the most."""
    rows: int = 2_000
    """After how many rows that are gone the rest is left for the next transaction; one run goes in any case."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was forgotten in one transaction."""

    ids: tuple[str, ...]
    next: tuple[int, int] | None
    """Where to go on; None where there is nothing left to look at."""


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
    drained: Drained | None = None
    """Set where the last thing that the body was given is all messages of a name that were there."""
    interrupted: bool = False
    """Something may have begun for it that is not recorded; it begins again if the run is made to go on."""


@dataclass(frozen=True, slots=True)
class Drained:
    """All messages of a name that were there, as the body was given them."""

    key: str
    """Of the entry."""
    name: str
    heard: int
    """The number of the last message to the run that its driver has heard of."""


@dataclass(frozen=True, slots=True)
class Rest:
    """How a run comes to rest: what it waits for from now on. Waits that were written before and are not named stay."""

    at: int
    opened: Sequence[Wait] = ()
    closed: Sequence[str] = ()
    """Keys of waits that were written before and are over."""
    due: int | None = None
    """The nearest deadline of all open waits."""
    paused: bool = False
    """Nothing is in flight, and the body knows that the run is to be paused."""
    interrupted: bool = False
    """A step that waits may have begun in a process that died, and is not recorded."""


@dataclass(frozen=True, slots=True)
class Suspension:
    """What became of a request to suspend: done, or the news that forbade it."""

    suspended: bool
    cancel: Request | None = None
    """A request to cancel that the body has not been given."""
    pause: Request | None = None
    """The request to pause that is in force."""


@dataclass(frozen=True, slots=True)
class News:
    """What a run that this worker drives may not have heard of yet."""

    run: int
    cancel: Request | None
    pause: Request | None


@dataclass(frozen=True, slots=True)
class Report:
    """What a body says of itself, for people to see."""

    status: str | None
    progress: tuple[int, int] | None
    at: int


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One open engine, or one that died open."""

    no: int
    name: str
    pid: int
    started_at: int
    host: str = ""
    """Which start of which machine it runs on."""
    lease: int = 15_000_000
    """Microseconds for which its counters may stand still before others may take its runs."""
    moved: int = 0
    """Its counters: how often it has written."""
    beat_at: int | None = None
    """When it last renewed its lease without writing anything else."""
    ticked_at: int | None = None
    """When its event loop had last turned by then."""
    holds: bool = False
    """It drives runs now."""


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
