"""An event loop whose time is a number: nothing waits, and the order of what is ready may be shuffled by a seed."""

from __future__ import annotations

import asyncio
from asyncio.base_events import BaseEventLoop
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from durable_sqlite._clock import Alarm

__all__ = ["Crash", "SimClock", "SimLoop", "Stuck"]

_START = 1_700_000_000_000_000  # some moment of 2023, in microseconds


class Crash(SystemExit):
    """The process dies here. Of all exceptions, loops let only this kind out of a callback."""


class Stuck(Exception):
    """Nothing is ready and nothing is scheduled: the loop would wait for ever."""


class SimLoop(BaseEventLoop):
    """A host loop in virtual time, without a selector.

    Args:
        now: Its time at the beginning, in seconds.
        shuffle: Whose choice the order of ready callbacks is; in the order of asyncio without it.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, now: float = 0.0, shuffle: Random | None = None) -> None:
        super().__init__()
        self._now = now
        self._shuffle = shuffle
        self._selector = self

    def time(self) -> float:
        """The virtual time in seconds."""
        return self._now

    def select(self, timeout: float | None) -> Sequence[Any]:
        """Pass the time at once, as the loop's own selector."""
        if timeout is None:
            raise Stuck
        if timeout > 0:
            self._now = max(self._now, self._scheduled[0].when())  # to the point, without rounding
        return ()

    def run_to_end(self, main: asyncio.Task[Any]) -> None:
        """Run until `main` is done. What stops the loop besides that passes through."""
        main.add_done_callback(lambda _: self.stop())
        self.run_forever()

    def _process_events(self, event_list: Sequence[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody else is there to be woken."""

    def _run_once(self) -> None:
        if self._shuffle is not None and len(self._ready) > 1:
            ready = list(self._ready)
            self._shuffle.shuffle(ready)
            self._ready.clear()
            self._ready.extend(ready)
        super()._run_once()  # type: ignore[misc]


class SimClock:
    """The engine's clock, showing a loop's virtual time."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def now(self) -> int:
        """The time in microseconds."""
        return _START + round(self._loop.time() * 1_000_000)

    def call_at(self, loop: asyncio.AbstractEventLoop, when: int, callback: Callable[[], object]) -> Alarm:
        """Call `callback` when the loop's time has come that far."""
        return loop.call_at((when - _START) / 1_000_000, callback)
