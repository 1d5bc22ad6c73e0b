"""What a worker is to know of others, and what is forgotten."""

from __future__ import annotations

from dataclasses import dataclass, field

from .words import State

__all__ = ["Pruned", "Pruning", "Pulse", "WorkerRow"]


@dataclass(frozen=True, slots=True)
class Pulse:
    """Tells, held against an earlier one, whether anybody has written to the journal in between."""

    any: int
    """Differs if anybody has."""
    others: int
    """Differs if another worker has; a worker that was struck off, and goes on writing for its clients, does not count."""
    signs: tuple[object, ...] | None = field(default=None, compare=False)
    """What showed just before it was taken, where that can be told."""


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
