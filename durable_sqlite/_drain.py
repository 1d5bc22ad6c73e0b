"""How an engine stops driving runs: what is in flight may end, and all is given back for others to go on with."""

from __future__ import annotations

import asyncio
import logging

from ._clock import Clock
from ._worker import Worker

__all__ = ["Drain"]

logger = logging.getLogger("durable_sqlite")

_GRACE = 5_000_000  # microseconds that cancelled steps may take to go before their runs are given back
_PATIENCE = 5.0  # seconds for which it is waited that the storage takes what is given back
_NAMED = 5  # steps that a log line names


class Drain:
    """Ends the driving of runs in an engine that stays open.

    Args:
        worker: What drives them.
        clock: For time limits.
        loop: The engine's loop.
    """

    def __init__(self, worker: Worker, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self.over = asyncio.Event()
        """Set once nothing is driven here any more."""
        self._worker = worker
        self._clock = clock
        self._loop = loop
        self._in_time = True
        self._going: set[asyncio.Task[object]] = set()
        """Steps that were cancelled and have not gone yet."""
        self._gone = asyncio.Event()
        self._hurried = False

    async def drain(self, limit: int, hint: str = "") -> bool:
        """Stop driving; whether all that was in flight has ended, and is recorded, within `limit` microseconds.

        Args:
            limit: How long to wait for what is in flight.
            hint: What to say besides where something is waited for.
        """
        self._worker.stand_down()
        if steps := self._worker.in_flight():
            logger.warning("draining: %s; waiting up to %g s%s", _told(steps), limit / 1_000_000, hint)
        alarm = self._clock.call_at(self._loop, self._clock.now() + limit, self._cut)
        try:
            await self._worker.quiet()
        finally:
            alarm.cancel()
        await self._see_off()
        given_back = self._worker.give_back()
        late = (await asyncio.wait(given_back, timeout=_PATIENCE))[1] if given_back else ()
        if late:
            logger.warning("drained, but the storage has not taken yet that %d runs are given back", len(late))
            self._in_time = False
        self.over.set()
        return self._in_time

    def hurry(self) -> None:
        """Wait for nothing any more: `drain`, under way or to come, cancels what is in flight."""
        self._hurried = True
        self._worker.stand_down()
        self._cut()
        self._gone.set()

    def _cut(self) -> None:
        if steps := self._worker.in_flight():
            logger.warning("drained: %s; cancelled, unrecorded, to begin again elsewhere", _told(steps))
            self._in_time = False
        for task in self._worker.cut():
            self._going.add(task)
            task.add_done_callback(self._went)

    def _went(self, task: asyncio.Task[object]) -> None:
        self._going.discard(task)
        if not self._going:
            self._gone.set()

    async def _see_off(self) -> None:
        """Wait until the cancelled steps have gone: elsewhere the same steps begin as soon as their runs are given back."""
        if not self._going or self._hurried:
            return
        alarm = self._clock.call_at(self._loop, self._clock.now() + _GRACE, self._gone.set)
        try:
            await self._gone.wait()
        finally:
            alarm.cancel()


def _told(steps: list[tuple[str, str]]) -> str:
    number = "1 step" if len(steps) == 1 else f"{len(steps)} steps"
    names = ", ".join(f"{key} of run {run_id}" for run_id, key in steps[:_NAMED])
    more = f" and {len(steps) - _NAMED} more" if len(steps) > _NAMED else ""
    return f"{number} in flight: {names}{more}"
