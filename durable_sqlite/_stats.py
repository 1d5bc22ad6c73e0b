"""What `engine.stats()` tells: sizes, counts and times, as frozen values for people and for monitoring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ._records import State, StateName

__all__ = ["BodyStats", "CommitStats", "JournalStats", "LoopStats", "Stats"]


@dataclass(frozen=True, slots=True)
class JournalStats:
    """What a journal holds, at one look. All counts are exact; entries are not counted, since that would read them all."""

    file_bytes: int
    """The journal's own file; 0 where it is in memory."""
    wal_bytes: int
    """SQLite's log beside it. It is written back and used again; a large one means that a reader has been open for long."""
    page_bytes: int
    pages: int
    free_pages: int
    """Pages in the file that hold nothing any more and are used before it grows."""
    schema: int
    """The number of the last migration."""
    runs: Mapping[State | StateName, int]
    """How many runs are in each state; all states are there."""
    dead_letters: int
    """Runs that failed or are parked and that nobody has discarded."""
    waits: int
    """What suspended runs wait for."""
    questions: int
    """Questions that nobody has answered."""
    messages: int
    """Messages that were neither taken nor set aside."""
    workers: int
    """Engines that are enrolled, alive or not."""
    oldest_pending_at: datetime | None
    """Since when the run that has waited longest for a worker has been waiting."""
    next_due_at: datetime | None
    """When the next run that is at rest is due."""


@dataclass(frozen=True, slots=True)
class CommitStats:
    """How this engine has written since it was opened. Times are seconds, from BEGIN to the end of COMMIT."""

    count: int
    """Commits that were made."""
    writes: int
    """Operations that they held."""
    waiting: int
    """Operations that wait for their commit now."""
    median: float | None
    """Of the last commits, up to 1,000; None where there was none."""
    p99: float | None
    """Likewise: 99 of 100 took no longer."""
    batch: float | None
    """How many operations each of those held, on average."""


@dataclass(frozen=True, slots=True)
class LoopStats:
    """How late the application's event loop is, in seconds, asked twice a second; None where it is not watched."""

    lag: float | None
    """The last time."""
    worst: float | None
    """The most in the last minute."""


@dataclass(frozen=True, slots=True)
class BodyStats:
    """What this engine has in memory."""

    resident: int
    """Bodies, those of suspended runs included."""
    suspended: int
    """Bodies of suspended runs."""
    steps: int
    """Attempts of steps that are under way."""


@dataclass(frozen=True, slots=True)
class Stats:
    """How an engine and its journal are doing."""

    at: datetime
    journal: JournalStats
    commits: CommitStats
    loop: LoopStats
    bodies: BodyStats
    worker: str
    """The name under which this engine is enrolled."""
    alive: int
    """Engines that are enrolled and alive, this one included."""
    stale: int
    """Engines that are enrolled and dead: whoever opens the journal next takes over what they left."""
    oldest_pending: float | None
    """For how many seconds the run has been waiting that has waited longest for a worker."""
