"""The steps of one run that are in flight on the host's loop, and what they bring back."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ._attempt import Doubt, Fault, NotBegun, Result, Runner, fault_of
from ._call import Call
from ._clock import Alarm, Clock
from ._context import StepInfo
from ._specs import Mode, StepCall
from .retry import Retry

__all__ = ["Flight"]

logger = logging.getLogger("durable_sqlite")

_GRACE = 10_000_000  # microseconds that a step which was given up may take to go before others begin beside it
_PATIENCE = 1_000_000  # microseconds that an attempt which took too long may take to go before it is left behind


@dataclass(slots=True, eq=False)
class _Attempt:
    """One attempt on its way."""

    call: Call
    step: StepCall
    info: StepInfo
    policy: Retry
    probe: bool = False
    """It asks whether an earlier attempt had its effect."""
    task: asyncio.Task[Result | Fault | Doubt | None] = field(init=False)
    alarm: Alarm | None = None
    given_up: bool = False
    """Nobody waits for it any more: its cancellation is ours, and its result nobody's."""
    late: bool = False
    """It took longer than it may: its cancellation is ours, and its result nobody's, but it has failed."""


class Flight:
    """Starts attempts, stops those that nobody waits for or that take too long, and collects results.

    Args:
        loop: The host's loop, on which attempts run.
        clock: For time limits, and for the grace of steps that do not go when they are told to.
        runner: Makes the attempts.
        failpoint: Is called by name before and after each attempt.
        ready: Waits until a call may have its effect: all earlier writes are committed. False if it may not any more.
        landed: Is called when there is something to look at.
        held_back: Is called with each call whose attempt did not begin, since no effect may happen any more.
        lost: Is called when an attempt ended in a way that is no outcome, such as the end of the program.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        runner: Runner,
        failpoint: Callable[[str], None],
        *,
        ready: Callable[[Call], Awaitable[bool]],
        landed: Callable[[], None],
        held_back: Callable[[Call], None],
        lost: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._runner = runner
        self._failpoint = failpoint
        self._ready = ready
        self._landed = landed
        self._held_back = held_back
        self._lost = lost
        self._in_flight: dict[Call, _Attempt] = {}
        self._leaving: dict[Call, int] = {}
        """Steps that were given up and have not gone, in that order, each with the end of its grace."""
        self._grace: Alarm | None = None
        self.results: deque[tuple[Call, Result | Fault | Doubt]] = deque()
        """What has ended and was not looked at yet, in the order in which it ended."""

    def __len__(self) -> int:
        """How many attempts have not ended."""
        return len(self._in_flight)

    @property
    def clearing(self) -> bool:
        """Whether a step that was given up has not gone yet: no other may begin beside it."""
        return bool(self._leaving)

    def start(self, call: Call, step: StepCall, info: StepInfo, policy: Retry, *, probe: bool = False) -> None:
        """Make an attempt, in a task of its own whose context is the caller's; or ask the step's probe."""
        attempt = self._in_flight[call] = _Attempt(call, step, info, policy, probe)
        context = None if call.context is None else call.context.copy()  # each attempt begins with what the body set
        attempt.task = self._loop.create_task(self._attempt(attempt), context=context)
        attempt.task.add_done_callback(partial(self._ended, attempt))

    def give_up(self, call: Call) -> None:
        """Stop a step that nobody waits for any more."""
        attempt = self._in_flight.get(call)
        if attempt is None:
            return
        self._leaving[call] = self._clock.now() + _GRACE
        self._stop(attempt)
        self._await_grace()

    def stop(self) -> None:
        """Stop everything: the pass is over."""
        for attempt in self._in_flight.values():
            self._stop(attempt)
        if self._grace is not None:
            self._grace.cancel()
        self.results.clear()

    def keys(self) -> list[str]:
        """The keys of the steps whose attempts have not ended."""
        return [call.key for call in self._in_flight]

    def tasks(self) -> Collection[asyncio.Task[Any]]:
        """The attempts that have not ended."""
        return [attempt.task for attempt in self._in_flight.values()]

    async def _attempt(self, attempt: _Attempt) -> Result | Fault | Doubt | None:
        """One attempt. A cancellation that passes through is ours, or comes from outside."""
        if not await self._ready(attempt.call):
            return None
        if attempt.probe:
            return await self._probe(attempt)
        self._failpoint("step.before")
        attempt.call.since = self._clock.now()
        attempt.call.began = attempt.call.began or attempt.call.since
        self._limit(attempt)
        try:
            result = await self._runner.attempt(attempt.step, attempt.info, attempt.policy)
        except NotBegun:
            return None
        except asyncio.CancelledError as error:
            if attempt.given_up or (not attempt.late and _told_to_go()):
                raise
            result = await fault_of(error, attempt.policy)
        if attempt.late:  # also where it swallowed its cancellation: what it brings comes too late
            result = await fault_of(_too_late(attempt), attempt.policy)
        self._failpoint("step.after")
        return result

    async def _probe(self, attempt: _Attempt) -> Result | Doubt:
        """Ask the step's probe. A cancellation out of its own body is no answer."""
        try:
            return await self._runner.probe(attempt.step, attempt.info)
        except asyncio.CancelledError:
            if attempt.given_up or _told_to_go():
                raise
            logger.warning(
                "run %s, step %s: the probe was cancelled by itself, so nobody knows whether the step had its effect",
                attempt.info.run_id,
                attempt.info.key,
            )
            return Doubt.UNKNOWN

    def _ended(self, attempt: _Attempt, task: asyncio.Task[Result | Fault | Doubt | None]) -> None:
        if self._in_flight.get(attempt.call) is not attempt:
            if not task.cancelled():
                task.exception()  # it was left behind, and whatever it brings is nobody's
            return
        self._take_off(attempt)
        if task.cancelled():
            if not attempt.given_up:  # somebody outside, such as the end of asyncio.run
                self._lost()
                return
        elif (error := task.exception()) is not None:
            if isinstance(error, Exception):  # else it is KeyboardInterrupt or SystemExit: no outcome either
                logger.error(
                    "what step %s brought cannot be recorded: its run is let go", attempt.info.key, exc_info=error
                )
            self._lost()
            return
        elif not attempt.given_up:
            result = task.result()
            if result is None:
                self._held_back(attempt.call)
            else:
                self.results.append((attempt.call, result))
        self._landed()

    def _take_off(self, attempt: _Attempt) -> None:
        """Forget an attempt that has gone, or is left behind."""
        del self._in_flight[attempt.call]
        self._leaving.pop(attempt.call, None)
        if attempt.alarm is not None:
            attempt.alarm.cancel()
        if not self._leaving and self._grace is not None:
            self._grace.cancel()
            self._grace = None

    def _stop(self, attempt: _Attempt) -> None:
        attempt.given_up = True
        if attempt.alarm is not None:
            attempt.alarm.cancel()
        attempt.task.cancel()

    # Time limits -----------------------------------------------------------------------------------------------------

    def _limit(self, attempt: _Attempt) -> None:
        timeout = attempt.step.spec.timeout
        if timeout is not None and not attempt.given_up:
            until = attempt.call.since + timeout
            attempt.alarm = self._clock.call_at(self._loop, until, partial(self._time_is_up, attempt))

    def _time_is_up(self, attempt: _Attempt) -> None:
        if attempt.task.done():
            return  # in this very turn of the loop
        attempt.late = True
        if attempt.step.spec.mode is not Mode.ASYNC:
            logger.warning(
                "run %s, step %s: attempt %d took too long and goes on in its thread or process, which cannot be stopped; "
                "its result will be dropped",
                attempt.info.run_id,
                attempt.info.key,
                attempt.info.attempt,
            )
        until = self._clock.now() + _PATIENCE
        attempt.alarm = self._clock.call_at(self._loop, until, partial(self._leave_behind, attempt))
        attempt.task.cancel()

    def _leave_behind(self, attempt: _Attempt) -> None:
        """The body swallows its cancellation: go on without it."""
        logger.warning(
            "run %s, step %s: attempt %d took too long, was cancelled, and has not ended; it is left behind",
            attempt.info.run_id,
            attempt.info.key,
            attempt.info.attempt,
        )
        late = _Attempt(attempt.call, attempt.step, attempt.info, attempt.policy)
        self._take_off(attempt)
        self._in_flight[attempt.call] = late
        late.task = self._loop.create_task(fault_of(_too_late(attempt), attempt.policy))
        late.task.add_done_callback(partial(self._ended, late))

    # Grace -----------------------------------------------------------------------------------------------------------

    def _await_grace(self) -> None:
        if self._grace is None and self._leaving:
            first = next(iter(self._leaving.values()))
            self._grace = self._clock.call_at(self._loop, first, self._grace_is_over)

    def _grace_is_over(self) -> None:
        self._grace = None
        now = self._clock.now()
        for call in [call for call, until in self._leaving.items() if until <= now]:
            logger.warning(
                "step %s was cancelled %d s ago and has not ended; other steps begin beside it now",
                call.key,
                _GRACE // 1_000_000,
            )
            self._take_off(self._in_flight[call])
        self._await_grace()
        self._landed()


def _told_to_go() -> bool:
    """Whether somebody cancelled this task, and not only something that it awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _too_late(attempt: _Attempt) -> TimeoutError:
    seconds = (attempt.step.spec.timeout or 0) / 1_000_000
    return TimeoutError(f"attempt {attempt.info.attempt} took longer than {seconds:g} s")
