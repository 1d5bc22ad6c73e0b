"""What an engine does for its journal on request: copies it, prunes it, tells how it is doing."""

from __future__ import annotations

import os
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ._clock import Clock, microseconds, to_datetime
from ._liveness import is_dead, side_file
from ._records import Pruning, State, StateName
from ._retention import prune
from ._stats import CommitStats, JournalStats, Stats
from .errors import UsageError

if TYPE_CHECKING:
    from ._session import Session  # what drives runs is imported by whoever opens an engine

__all__ = ["JournalFile", "absolute", "duration_option", "prune_runs", "stats_of"]

_FINAL = (State.COMPLETED, State.CANCELLED)


class JournalFile(Protocol):
    """A journal that is a file, or might be one."""

    async def backup(self, target: Path, *, overwrite: bool) -> None:
        """Copy it."""

    async def stats(self) -> JournalStats:
        """What it holds."""
        ...

    def commits(self) -> CommitStats:
        """How it was written to."""
        ...


def duration_option(name: str, value: float | timedelta | None) -> int | None:
    """An option that is a duration above zero, or None, in microseconds.

    Raises:
        UsageError: It is neither.
    """
    try:
        length = None if value is None else microseconds(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"Engine({name}=...): {error}") from None
    if length is not None and length <= 0:
        raise UsageError(f"Engine({name}=...) takes a duration above zero, or None, not {value!r}")
    return length


def absolute(path: str | os.PathLike[str]) -> Path:
    """Where a file is, whatever becomes of the folder that the process is in."""
    return Path(path).absolute()


async def prune_runs(
    session: Session,
    older_than: float | timedelta,
    states: State | StateName | Collection[State | StateName] | None,
    batch: int,
    now: int,
) -> int:
    """Forget runs that ended long ago; how many.

    Raises:
        UsageError: The arguments make no sense.
    """
    age = microseconds(older_than)
    if age < 0:
        raise UsageError(f"engine.prune() takes the age of what is to be forgotten, not {older_than!r}")
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise UsageError(f"engine.prune(batch=...) takes a whole number from 1, not {batch!r}")
    wanted = _FINAL if states is None else _stopped((states,) if isinstance(states, str) else states)
    return await prune(session.journal, Pruning(now - age, wanted, discarded=states is None, limit=batch))


def _stopped(states: Collection[State | StateName]) -> tuple[State, ...]:
    stopped = [state for state in State if state.stopped]
    if not set(states) <= set(stopped):
        raise UsageError(f"engine.prune() forgets runs that are {', '.join(stopped)}, and none that are {list(states)}")
    return tuple(State(state) for state in states)


async def stats_of(session: Session, journal: JournalFile, path: Path | None, clock: Clock) -> Stats:
    """How an engine and its journal are doing."""
    held = await journal.stats()
    others = [] if path is None else await session.journal.workers()
    stale = sum(path is not None and is_dead(side_file(path, other.name)) for other in others)
    now = to_datetime(clock.now())
    waited = None if held.oldest_pending_at is None else max(0.0, (now - held.oldest_pending_at).total_seconds())
    return Stats(
        at=now,
        journal=held,
        commits=journal.commits(),
        loop=session.watchdog.seen(),
        bodies=session.worker.census(),
        worker=session.name,
        alive=1 + len(others) - stale,
        stale=stale,
        oldest_pending=waited,
    )
