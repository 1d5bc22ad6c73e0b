"""Looks for runs that one worker is to drive: what is ready is claimed, and what is due later is rung for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Protocol

from ._clock import Alarm
from ._records import Claimed
from ._residents import Residents
from ._surroundings import Surroundings
from .errors import JournalError

__all__ = ["Claimant", "Claims"]

logger = logging.getLogger("durable_sqlite")

_BATCH = 100  # runs claimed in one transaction
_PATIENCE = 3  # looks for a run that is due and cannot be claimed
_LATER = 10_000_000  # microseconds after which a run that is due and cannot be claimed is tried again


class Claimant(Protocol):
    """A worker, as far as it takes runs up."""

    @property
    def closed(self) -> bool:
        """Whether it drives nothing any more."""
        ...

    @property
    def away(self) -> bool:
        """Whether its lease is over, and it has not begun anew yet."""
        ...

    @property
    def standing_down(self) -> bool:
        """Whether it takes nothing more."""
        ...

    @property
    def suspects(self) -> bool:
        """Whether it drives a run that may kill this process: beside that, it takes no other of its kind."""
        ...

    async def take(self, claimed: list[Claimed]) -> None:
        """Drive these runs from now on."""
        ...

    def looked(self) -> None:
        """A look is over; another one may follow."""
        ...


class Claims:
    """Claims runs for a worker.

    Args:
        around: What all passes share.
        names: The names of the workflows that are known here.
        only: The ids of the runs that are driven; None: all.
        residents: The bodies in memory, which may leave no room for more.
        claimant: The worker.
    """

    def __init__(
        self,
        around: Surroundings,
        names: Collection[str],
        only: Collection[str] | None,
        residents: Residents,
        claimant: Claimant,
    ) -> None:
        self._around = around
        self._names = names
        self._only = only
        self._residents = residents
        self._claimant = claimant
        self.wanted = False
        """Whether there may be something to claim that was not looked for yet."""
        self.under_way: asyncio.Task[None] | None = None
        self._looked_until = 0
        """The time of the last claim: what was due by then, and at rest, was claimed, if it can be."""
        self._in_vain = 0
        """How many looks in a row have found nothing though something was due."""
        self._due_alarm: tuple[int, Alarm] | None = None

    def look(self) -> None:
        """Look for runs to drive, now."""
        if self._claimant.closed or self._claimant.standing_down:
            return
        self.wanted = True
        if self.under_way is None and not self._claimant.away:
            self.under_way = self._around.loop.create_task(self._claim_all())
            self.under_way.add_done_callback(self._claimed)

    async def over(self) -> None:
        """Wait until nothing is being claimed."""
        if self.under_way is not None:
            await asyncio.wait((self.under_way,))

    def stop(self) -> None:
        """Ring for nothing any more."""
        if self._due_alarm is not None:
            self._due_alarm[1].cancel()

    async def is_there_anything(self) -> bool:
        """Whether something can be claimed now."""
        return await self._around.journal.ready(self._names, self._around.clock.now(), only=self._only)

    async def next_due(self) -> int | None:
        """When the next run is due that nobody drives."""
        return await self._around.journal.next_due(self._names, only=self._only)

    # Claiming --------------------------------------------------------------------------------------------------------

    @property
    def _takes(self) -> bool:
        return not (self._claimant.closed or self._claimant.away or self._claimant.standing_down)

    async def _claim_all(self) -> None:
        residents = self._residents
        while self.wanted and self._takes:
            self.wanted = False
            if not (residents.free > 0 or await self.is_there_anything()):
                continue  # else a body at rest would make room that nobody needs
            if not residents.has_room():
                self.wanted = True  # a body that ends makes room
                return
            claimed = await self._claim(min(_BATCH, residents.free), suspects=False)
            if not claimed and not self._claimant.suspects:
                claimed = await self._claim(1, suspects=True)
            if claimed:
                self.wanted, self._in_vain = True, 0
                await self._claimant.take(claimed)
        await self.note_next_due()

    async def _claim(self, limit: int, *, suspects: bool) -> list[Claimed]:
        journal, now = self._around.journal, self._around.clock.now()
        self._looked_until = now
        return await journal.claim(self._names, now, max(1, limit), suspects=suspects, only=self._only)

    def _claimed(self, task: asyncio.Task[None]) -> None:
        self.under_way = None
        if not task.cancelled() and (error := task.exception()) is not None and not self._claimant.closed:
            level = logging.WARNING if isinstance(error, JournalError) else logging.ERROR
            logger.log(level, "looking for runs to drive failed", exc_info=error)
        elif self.wanted and not (self._claimant.closed or self._claimant.away) and self._residents.has_room():
            self.look()
        self._claimant.looked()

    # Time ------------------------------------------------------------------------------------------------------------

    async def note_next_due(self) -> None:
        """Ring when the next run is due that nobody drives."""
        due = await self.next_due()
        if due is None or self._claimant.closed or self._claimant.standing_down:
            return
        if due > self._looked_until:
            self._in_vain = 0
        else:
            # It may have come to rest after the look. But one that is never found is damaged, and must not keep us busy.
            self._in_vain += 1
            if self._in_vain > _PATIENCE:
                due = self._looked_until + _LATER
        self.ring_at(due)

    def ring_at(self, when: int) -> None:
        """Look again at this time, or before."""
        if self._due_alarm is not None:
            if self._due_alarm[0] <= when:
                return
            self._due_alarm[1].cancel()
        self._due_alarm = (when, self._around.clock.call_at(self._around.loop, when, self._ring))

    def _ring(self) -> None:
        """Wake the bodies in memory that are due, then claim those that are not in memory."""
        self._due_alarm = None
        due = self._residents.wake_due(self._around.clock.now())
        if due is not None:
            self.ring_at(due)
        self.look()
