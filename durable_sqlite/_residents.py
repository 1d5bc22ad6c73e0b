"""The bodies that one worker has in memory: how many, which of them rest there and until when, and when they leave."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable

from ._clock import Alarm
from ._run import Pass
from ._surroundings import Surroundings

__all__ = ["Residents"]


class Residents:
    """Keeps the bodies that are in memory.

    Args:
        around: What all passes share.
        most: How many there may be.
        unload_after: Microseconds for which a suspended run's body stays in memory.
        unload: Is called with each body that is to leave memory: to make room, or since it has rested for long.
    """

    def __init__(self, around: Surroundings, *, most: int, unload_after: int, unload: Callable[[Pass], None]) -> None:
        self._around = around
        self._most = most
        self._unload_after = unload_after
        self._unload = unload
        self.passes: dict[int, Pass] = {}
        """All of them, by the numbers of their runs."""
        self.by_id: dict[str, Pass] = {}
        self.idle: OrderedDict[int, tuple[Pass, int]] = OrderedDict()
        """Suspended ones, by the time since when, longest first."""
        self._due: list[tuple[int, int]] = []
        """When bodies that rested in memory are due, with the numbers of their runs: a body in here could not leave memory."""
        self._reserved = 0
        """For how many bodies room is kept."""
        self._unload_alarm: Alarm | None = None

    # Room ------------------------------------------------------------------------------------------------------------

    @property
    def free(self) -> int:
        """For how many more bodies there is room."""
        return self._most - len(self.passes) - self._reserved

    def has_room(self) -> bool:
        """Whether one more body may be in memory; a suspended one makes room."""
        if self.free > 0:
            return True
        if not self.idle:
            return False
        self._unload(next(iter(self.idle.values()))[0])
        return True

    def reserve(self) -> bool:
        """Keep room for one more body, if there is some; `release` gives it back."""
        there = self.has_room()
        self._reserved += there
        return there

    def release(self) -> None:
        """Give back room that was kept."""
        self._reserved -= 1

    # Coming and going ------------------------------------------------------------------------------------------------

    def add(self, run: Pass) -> None:
        """Put a body in."""
        self.passes[run.hold.run] = run
        self.by_id[run.row.id] = run

    def remove(self, run: Pass) -> bool:
        """Take a body out; False if a new run has taken the place and the id of this one."""
        del self.passes[run.hold.run]
        self.idle.pop(run.hold.run, None)
        if self.by_id.get(run.row.id) is not run:
            return False
        del self.by_id[run.row.id]
        return True

    def clear(self) -> None:
        """Take all of them out."""
        self.passes.clear()
        self.by_id.clear()
        self.idle.clear()

    def stop(self) -> None:
        """Let none of them leave by itself."""
        if self._unload_alarm is not None:
            self._unload_alarm.cancel()

    # Rest ------------------------------------------------------------------------------------------------------------

    def rested(self, run: Pass, due: int | None, *, keep: bool) -> None:
        """Keep a suspended body for a while, if it is to be kept, and remember when it is due."""
        now = self._around.clock.now()
        self.idle[run.hold.run] = (run, now)
        if due is not None:
            heapq.heappush(self._due, (due, run.hold.run))
        if not keep or self._unload_after <= 0:
            self._unload(run)
        elif self._unload_alarm is None:
            self._unload_at(now + self._unload_after)

    def woke(self, run: Pass) -> None:
        """The body is at work again."""
        self.idle.pop(run.hold.run, None)

    def wake_due(self, now: int) -> int | None:
        """Wake the bodies that are due; when the next one is."""
        while self._due and self._due[0][0] <= now:
            run = self.passes.get(heapq.heappop(self._due)[1])
            if run is not None and run.at_rest:
                run.wake()
        return self._due[0][0] if self._due else None

    def _unload_at(self, when: int) -> None:
        self._unload_alarm = self._around.clock.call_at(self._around.loop, when, self._unload_idle)

    def _unload_idle(self) -> None:
        self._unload_alarm = None
        before = self._around.clock.now() - self._unload_after
        while self.idle:
            run, since = next(iter(self.idle.values()))
            if since > before:
                self._unload_at(since + self._unload_after)
                return
            self._unload(run)
