"""The steps of one run that are in flight on the host's loop, and what they bring back."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

from ._attempt import Result, Runner
from ._call import Call
from ._clock import Alarm, Clock
from ._context import StepInfo

__all__ = ["Flight"]

logger = logging.getLogger("durable_sqlite")

_GRACE = 10_000_000  # microseconds that a step which was given up may take to go before others begin beside it


class Flight:
    """Starts attempts, stops those that nobody waits for, and collects results.

    Args:
        loop: The host's loop, on which attempts run.
        clock: For the grace of steps that do not go when they are told to.
        runner: Makes the attempts.
        failpoint: Is called by name before and after each attempt.
        ready: Waits until an effect may happen: all earlier writes are committed. False if none may happen any more.
        landed: Is called when there is something to look at.
        lost: Is called when an attempt ended in a way that is no outcome, such as the end of the program.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        runner: Runner,
        failpoint: Callable[[str], None],
        *,
        ready: Callable[[], Awaitable[bool]],
        landed: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._runner = runner
        self._failpoint = failpoint
        self._ready = ready
        self._landed = landed
        self._lost = lost
        self._in_flight: dict[Call, asyncio.Task[Result | None]] = {}
        self._leaving: set[Call] = set()
        self._grace: Alarm | None = None
        self.results: deque[tuple[Call, Result]] = deque()
        """What has ended and was not looked at yet, in the order in which it ended."""

    def __len__(self) -> int:
        """How many attempts have not ended."""
        return len(self._in_flight)

    @property
    def clearing(self) -> bool:
        """Whether a step that was given up has not gone yet: no other may begin beside it."""
        return bool(self._leaving)

    def start(self, call: Call, info: StepInfo) -> None:
        """Make an attempt, in a task of its own whose context is the caller's."""
        task = self._loop.create_task(self._attempt(call, info), context=call.context)
        self._in_flight[call] = task
        task.add_done_callback(partial(self._ended, call))

    def give_up(self, call: Call) -> None:
        """Stop a step that nobody waits for any more."""
        task = self._in_flight.get(call)
        if task is None:
            return
        self._leaving.add(call)
        self._stop(call, task)
        if self._grace is None:
            self._grace = self._clock.call_at(self._loop, self._clock.now() + _GRACE, self._grace_is_over)

    def stop(self) -> None:
        """Stop everything: the pass is over."""
        for call, task in self._in_flight.items():
            self._stop(call, task)
        if self._grace is not None:
            self._grace.cancel()
        self.results.clear()

    def tasks(self) -> Collection[asyncio.Task[Any]]:
        """The attempts that have not ended."""
        return list(self._in_flight.values())

    async def _attempt(self, call: Call, info: StepInfo) -> Result | None:
        """One attempt. A cancellation that passes through is ours, or comes from outside."""
        assert call.step is not None
        if not await self._ready():
            return None
        self._failpoint("step.before")
        call.since = self._clock.now()
        try:
            result = await self._runner.attempt(call.step, info)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if call.given_up or (task is not None and task.cancelling()):
                raise
            result = self._runner.failure(error, call.step.spec, f"run {info.run_id}, step {info.key}")
        self._failpoint("step.after")
        return result

    def _ended(self, call: Call, task: asyncio.Task[Result | None]) -> None:
        self._in_flight.pop(call, None)
        self._leaving.discard(call)
        if not self._leaving and self._grace is not None:
            self._grace.cancel()
            self._grace = None
        if task.cancelled():
            if not call.given_up:  # somebody outside, such as the end of asyncio.run
                self._lost()
                return
        elif task.exception() is not None:  # KeyboardInterrupt, SystemExit
            self._lost()
            return
        elif (result := task.result()) is not None and not call.given_up:
            self.results.append((call, result))
        self._landed()

    def _stop(self, call: Call, task: asyncio.Task[Result | None]) -> None:
        call.given_up = True
        task.cancel()

    def _grace_is_over(self) -> None:
        self._grace = None
        for call in self._leaving:
            del self._in_flight[call]
            logger.warning(
                "step %s was cancelled %d s ago and has not ended; other steps begin beside it now",
                call.key,
                _GRACE // 1_000_000,
            )
        self._leaving.clear()
        self._landed()
