"""The other workers of a journal: sees who of them has died or hangs, and takes their runs over.

A process that died on this host has let go of the lock on its side file, which is seen at once. One that hangs, or that
runs elsewhere, is given up once its counters have stood still for the whole of its lease, measured on this process's own
clock. But a worker cannot renew its lease while nobody can write, so that alone is not enough: see first that writing is
possible, give it a moment, and see it again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ._liveness import is_dead, side_file, sweep, sweep_strays
from ._records import RunRow, WorkerRow
from .journal import Journal

__all__ = ["LOOK_EVERY", "Neighbours", "Surveillance"]

logger = logging.getLogger("durable_sqlite")

LOOK_EVERY = 0.25
"""Seconds between two looks at the locks of the others."""

_LOOKS = 5  # how often in the time of a lease its counters are looked at
_MOMENT = 5  # the part of its lease that a silent worker is given once writing is possible


@dataclass(frozen=True, slots=True)
class Surveillance:
    """How the others are watched.

    Args:
        path: The journal's file.
        now: Seconds on a clock that never goes back.
        sleep: Waits for a number of seconds.
        at: The time in microseconds UTC.
        max_recoveries: After how many deaths in a row of its owner a run is parked.
        parked_result: The error of such a run, as it is stored.
        local: All who can have the file open are on this machine, so a lock that is free says that its worker has died.
        here: Which start of which machine this is; only there the lock says so otherwise.
    """

    path: Path
    now: Callable[[], float]
    sleep: Callable[[float], Awaitable[object]]
    at: Callable[[], int]
    max_recoveries: int
    parked_result: bytes
    local: bool
    here: str


class Neighbours:
    """Watches over the other workers."""

    def __init__(self, journal: Journal, how: Surveillance) -> None:
        self._journal = journal
        self._how = how
        self._others: list[WorkerRow] = []
        self._stale = True
        self._swept = False
        self._looked = how.now()
        self._still: dict[int, tuple[int, float]] = {}
        """The counters of workers that hold runs, and since when they stand there."""

    def heard(self) -> None:
        """Somebody has written: there may be other workers than before."""
        self._stale = True

    async def look(self) -> list[RunRow]:
        """Take over what is left of workers that died, or whose leases are over; the runs that were freed or parked.

        To be called every `LOOK_EVERY` seconds or so.
        """
        now = self._how.now()
        shortest = min((other.lease for other in self._others if other.holds), default=None)
        if self._stale or (shortest is not None and now - self._looked >= shortest / 1_000_000 / _LOOKS):
            self._stale = False
            self._note(await self._journal.workers())
        if self._how.local and not self._swept:
            self._swept = True
            sweep_strays(self._how.path, [other.name for other in self._others])
        taken = await self._bury([other for other in self._others if self._has_died(other)])
        for other in [other for other in self._others if self._stands_still(other)]:
            taken += await self._give_up(other)
        return taken

    def _note(self, rows: Sequence[WorkerRow]) -> None:
        now = self._looked = self._how.now()
        self._others = list(rows)
        before, self._still = self._still, {}
        for row in rows:
            if row.holds:
                moved, since = before.get(row.no, (row.moved, now))
                self._still[row.no] = (moved, since) if moved == row.moved else (row.moved, now)

    def _has_died(self, other: WorkerRow) -> bool:
        # On a network file system, locks of other machines may not be seen here: those have their leases.
        sees = self._how.local or other.host == self._how.here
        return sees and is_dead(side_file(self._how.path, other.name))

    def _stands_still(self, other: WorkerRow) -> bool:
        if other.no not in self._still:
            return False
        _, since = self._still[other.no]
        return self._how.now() - since >= other.lease / 1_000_000

    async def _bury(self, dead: Sequence[WorkerRow]) -> list[RunRow]:
        """Free what workers that are dead for certain have left."""
        if not dead:
            return []
        taken = await self._take_over(dead, {})
        for other in dead:
            sweep(side_file(self._how.path, other.name))
        return taken

    async def _give_up(self, other: WorkerRow) -> list[RunRow]:
        """Take over from a worker whose lease is over, unless it can be that it only could not write."""
        moment = other.lease / 1_000_000 / _MOMENT
        self._note(await self._journal.sound())
        if not self._stands_still(other):
            return []
        await self._how.sleep(moment)
        begun = self._how.now()
        self._note(await self._journal.sound())
        if not self._stands_still(other) or self._how.now() - begun > moment / 2:
            return []  # it lives, or writing was not possible all the time: begin again
        logger.warning(
            "worker %d (process %d) has been silent for more than its lease of %.1f s: its runs are taken over",
            other.no,
            other.pid,
            other.lease / 1_000_000,
        )
        moved, _ = self._still[other.no]
        return await self._take_over([other], {other.no: moved})

    async def _take_over(self, gone: Sequence[WorkerRow], if_still: dict[int, int]) -> list[RunRow]:
        how = self._how
        numbers = [other.no for other in gone]
        rows = await self._journal.take_over(
            numbers, how.max_recoveries, how.parked_result, how.at(), if_still=if_still
        )
        self._others = [other for other in self._others if other.no not in numbers]
        self._stale = True
        return rows
