"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from durable_sqlite._clock import Alarm

__all__ = ["START", "ManualClock"]

START = 1_700_000_000_000_000
"""Where a test's time begins: some moment of 2023, in microseconds."""


@dataclass(order=True)
class _Due:
    when: int
    number: int
    loop: asyncio.AbstractEventLoop = field(compare=False)
    callback: Callable[[], object] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class ManualClock:
    """Stands still; `advance` moves it and calls what has become due, in order."""

    def __init__(self, now: int = START) -> None:
        self._now = now
        self._due: list[_Due] = []
        self._numbers = itertools.count()

    def now(self) -> int:
        """The time in microseconds."""
        return self._now

    def call_at(self, loop: asyncio.AbstractEventLoop, when: int, callback: Callable[[], object]) -> Alarm:
        """Call `callback` on `loop` when the test has moved the clock that far; at once if it is past."""
        due = _Due(when, next(self._numbers), loop, callback)
        if when <= self._now:
            loop.call_soon(self._call, due)
        else:
            heapq.heappush(self._due, due)
        return due

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += round(seconds * 1_000_000)
        while self._due and self._due[0].when <= self._now:
            due = heapq.heappop(self._due)
            due.loop.call_soon(self._call, due)

    def armed(self) -> list[int]:
        """When the alarms ring that nobody called off."""
        return sorted(due.when for due in self._due if not due.cancelled)

    def _call(self, due: _Due) -> None:
        if not due.cancelled:
            due.callback()
