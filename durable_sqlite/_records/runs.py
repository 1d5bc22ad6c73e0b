"""Runs: how they begin, are driven, rest, go on and end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .entries import Wait
from .words import State

__all__ = [
    "Claimed",
    "Drained",
    "End",
    "Ended",
    "Hold",
    "NewRun",
    "News",
    "Report",
    "Request",
    "Rest",
    "Resumed",
    "Resumption",
    "RunQuery",
    "RunRow",
    "Started",
    "Suspension",
]


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
class Hold:
    """The right to write about a run: valid as long as the journal's owner and epoch of that run agree."""

    run: int
    epoch: int

    @property
    def next(self) -> Hold:
        """The hold of whoever takes the run after this one."""
        return Hold(self.run, self.epoch + 1)


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
class Ended:
    """How a run has stopped, by the journal: who asked it to end may have come first."""

    state: State
    woken: int
    """How many suspended runs that waited for it are pending now."""


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
