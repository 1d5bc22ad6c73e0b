"""Forgets runs that ended long ago: when somebody asks, or by itself from time to time."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from ._clock import Alarm, Clock
from ._records import Pruning, State
from .errors import EngineClosed, JournalError
from .journal import Journal

__all__ = ["Retention", "prune"]

logger = logging.getLogger("durable_sqlite")

_FINAL = (State.COMPLETED, State.CANCELLED)
_EVERY = 3_600_000_000  # microseconds from the end of one pruning to the next
_PAUSE = 0.005  # seconds between two transactions, for which also other processes may have the write lock


async def prune(journal: Journal, pruning: Pruning) -> int:
    """Forget all the runs that fit, transaction by transaction; how many there were.

    A walk that has forgotten something is followed by another: a dead letter that went may have held others.
    """
    total, gone = 0, -1
    while gone:
        gone = await _walk(journal, pruning)
        total += gone
    return total


async def _walk(journal: Journal, pruning: Pruning) -> int:
    gone = 0
    while True:
        pruned = await journal.prune(pruning)
        gone += len(pruned.ids)
        if pruned.next is None:
            return gone
        pruning = replace(pruning, after=pruned.next)
        await asyncio.sleep(_PAUSE)


class Retention:
    """Prunes a journal after it was opened, and hourly.

    Completed and cancelled runs go, and dead letters that were discarded; what `Journal.prune` keeps is kept.

    Args:
        journal: It is open from `start` to `stop`.
        loop: The loop on which it is used.
        clock: For the time that has passed, and the hours.
        keep: For how many microseconds runs are kept after their end; None: for ever.
    """

    def __init__(self, journal: Journal, loop: asyncio.AbstractEventLoop, clock: Clock, keep: int | None) -> None:
        self._journal = journal
        self._loop = loop
        self._clock = clock
        self._keep = keep
        self._alarm: Alarm | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Prune now, and from now on."""
        self._alarm = None
        if self._keep is not None:
            self._task = self._loop.create_task(self._prune(self._keep), name="durable_sqlite retention")

    def stop(self) -> None:
        """No more of it. What was asked of the journal last may still happen."""
        self._keep = None
        for each in (self._alarm, self._task):
            if each is not None:
                each.cancel()

    async def _prune(self, keep: int) -> None:
        try:
            pruned = await prune(self._journal, Pruning(self._clock.now() - keep, _FINAL, discarded=True))
        except EngineClosed:
            return
        except JournalError as error:
            logger.warning("runs that ended long ago cannot be forgotten now, it is tried again later: %s", error)
        else:
            if pruned:
                logger.info("%d run(s) that ended more than %.0f s ago were forgotten", pruned, keep / 1_000_000)
        self._alarm = self._clock.call_at(self._loop, self._clock.now() + _EVERY, self.start)
