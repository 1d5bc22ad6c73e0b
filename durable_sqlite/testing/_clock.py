"""A clock that stands still until a test moves it, and an event loop that shows the same time.

Nothing here waits for time. Whenever the loop has nothing left to do it says so, and whoever drives it moves the clock to
what is due next, or takes this for the end. So `asyncio.sleep` in a step takes the test's time as well.
"""
# What of a loop is scheduled asyncio tells nobody, and its seams for loops carry underscores.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import selectors
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ._faults import ProcessDied

__all__ = ["START", "StandingClock", "StandingLoop", "aside"]

T = TypeVar("T")

START = 1_700_000_000_000_000
"""Where a test's time begins unless it says otherwise: 14 November 2023, 22:13:20 UTC, in microseconds."""

_FOREIGN = 5.0
"""Seconds of the machine's time for which sockets, threads and processes of a step are waited for."""

_UNSEEN = 0.25
"""The same for a step that waits for what nobody here can see, such as a thread of its own."""


@dataclass(order=True, slots=True)
class _Alarm:
    when: int
    number: int
    loop: asyncio.AbstractEventLoop = field(compare=False)
    callback: Callable[[], object] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        """Do not call."""
        self.cancelled = True

    def ring(self) -> None:
        """Call, unless it was called off."""
        if not self.cancelled:
            self.callback()


class StandingClock:
    """The engine's clock: stands still, until `move_to` moves it and calls what has become due, in order."""

    def __init__(self, now: int = START) -> None:
        self._now = now
        self._alarms: list[_Alarm] = []
        self._numbers = itertools.count()

    def now(self) -> int:
        """The time in microseconds."""
        return self._now

    def call_at(self, loop: asyncio.AbstractEventLoop, when: int, callback: Callable[[], object]) -> _Alarm:
        """Call `callback` on `loop` when the clock was moved that far; at once if it was."""
        alarm = _Alarm(when, next(self._numbers), loop, callback)
        if when <= self._now:
            loop.call_soon(alarm.ring)
        else:
            heapq.heappush(self._alarms, alarm)
        return alarm

    def next(self) -> int | None:
        """When the next alarm rings."""
        while self._alarms and self._alarms[0].cancelled:
            heapq.heappop(self._alarms)
        return self._alarms[0].when if self._alarms else None

    def move_to(self, when: int) -> None:
        """Let time pass until then; it never goes back."""
        self._now = max(self._now, when)
        while (due := self.next()) is not None and due <= self._now:
            alarm = heapq.heappop(self._alarms)
            alarm.loop.call_soon(alarm.ring)

    def forget(self) -> None:
        """Nobody is called any more: the process that asked for it has died."""
        self._alarms.clear()


class _Selector(selectors.DefaultSelector):
    """Says that nothing is left to do instead of waiting, where nothing but time could end the wait."""

    still: Callable[[], None] | None = None
    """Is called then. None: nobody is there to move the clock, so what comes from elsewhere is waited for."""
    patience: Callable[[], float]
    """For how many seconds of the machine's time something may still come from elsewhere."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self.still is None:
            return super().select(_UNSEEN)
        if (patience := self.patience()) and (ready := super().select(patience)):
            return ready
        self.still()
        return super().select(0)


class StandingLoop(asyncio.SelectorEventLoop):
    """An event loop on a clock that stands still.

    Args:
        clock: The clock.
    """

    _scheduled: Sequence[asyncio.TimerHandle]

    def __init__(self, clock: StandingClock) -> None:
        self._clock = clock
        self._begin = clock.now()
        self._elsewhere: set[asyncio.Future[Any]] = set()
        self._watched = _Selector()
        self._watched.patience = self._patience
        super().__init__(self._watched)
        self._own = len(self._watched.get_map())
        self.foreign: Callable[[], object] = bool
        """Whether threads of the engine are at work."""
        self.unseen: Callable[[], object] = bool
        """Whether steps are in flight."""

    def when_still(self, call: Callable[[], None] | None) -> None:
        """Call this whenever nothing is left to do but to wait for time, or for what the test does next."""
        self._watched.still = call

    def time(self) -> float:
        """The clock's time, in seconds since the loop was made."""
        return (self._clock.now() - self._begin) / 1_000_000

    def next_timer(self) -> int | None:
        """When the next of asyncio's own timers is due, in microseconds of the clock."""
        timers = [timer.when() for timer in self._scheduled if not timer.cancelled()]
        if not timers:
            return None
        # It is not due yet: where the float of a far time says otherwise, the clock must move all the same.
        return max(self._begin + math.ceil(min(timers) * 1_000_000), self._clock.now() + 1)

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run a function in a thread or process, and know of it."""
        future = super().run_in_executor(executor, func, *args)
        self._elsewhere.add(future)
        future.add_done_callback(self._elsewhere.discard)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Let people know of what nobody has caught; but not of the death that a test has asked for."""
        if not isinstance(context.get("exception"), ProcessDied):
            super().call_exception_handler(context)

    def _patience(self) -> float:
        if self._elsewhere or self.foreign() or len(self._watched.get_map()) > self._own:
            return _FOREIGN
        return _UNSEEN if self.unseen() and self.next_timer() is None else 0


@contextmanager
def aside() -> Generator[None]:
    """Step aside from the loop that runs here, if one does, as in an async test."""
    outer = asyncio._get_running_loop()
    if outer is None:
        yield
        return
    task = asyncio.current_task(outer)
    if task is not None:
        asyncio.tasks._leave_task(outer, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)
        if task is not None:
            asyncio.tasks._enter_task(outer, task)
