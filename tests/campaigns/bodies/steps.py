"""The steps that programs call, and what they and programs ask of the world in which they are played."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from durable_sqlite import Retry, RetryAfter, current_step, step
from durable_sqlite._context import Body, StepInfo

from .programs import Node

__all__ = ["FAILING_AT_FIRST", "Refused", "Scene", "Steps"]

_PATIENCE = 0.5  # seconds that a stubborn step takes to go when it is cancelled
_MULISH = 30.0  # the same of a mule: longer than the engine's grace
_LIMIT = 0.7123  # seconds that some attempts may take: no sum of durations


async def _is_fault(error: Exception) -> bool:
    await asyncio.sleep(0)
    return not isinstance(error, KeyError)


_SOON = Retry(max_attempts=4, initial_delay=0.2, jitter=0.5, on=_is_fault)
_MUCH_LATER = Retry(max_attempts=3, initial_delay=4.0, factor=3.0, max_delay=30.0)
_LIMITED = Retry(max_attempts=3, initial_delay=0.1, factor=20.0)

FAILING_AT_FIRST = {"flaky": 4, "healing": 3, "asking": 4}
"""Steps of which as many attempts fail as their second argument says, with the attempts that they may make."""


class Refused(Exception):
    """A declared answer of a step."""

    def __init__(self, x: int) -> None:
        super().__init__(x)
        self.x = x


class Scene(Protocol):
    """What programs and steps ask of the world in which they are played."""

    ledger: list[int]

    def program(self, run: str) -> Node:
        """The program that this run plays."""
        ...

    def duration(self) -> float:
        """How long the next attempt takes: another time on each."""
        ...

    def began(self, info: StepInfo, args: tuple[Any, ...]) -> None:
        """An attempt's body begins."""
        ...

    def gone(self, info: StepInfo, args: tuple[Any, ...], *, performed: bool) -> None:
        """An attempt's body is over; if `performed`, its effect has happened."""
        ...

    def saw(self, body: Body, what: str) -> None:
        """The body has seen something."""
        ...


class Steps:
    """The steps, as methods of whatever knows the scene."""

    def __init__(self, scene: Callable[[], Scene]) -> None:
        self._scene = scene

    @contextmanager
    def _performing(self, *args: Any) -> Generator[None, None, None]:
        scene, info = self._scene(), current_step()
        performed = False
        scene.began(info, args)
        try:
            yield
            performed = True
        finally:
            scene.gone(info, args, performed=performed)

    async def _work(self, *args: Any) -> None:
        with self._performing(*args):
            await asyncio.sleep(self._scene().duration())

    async def _work_in_vain(self, x: int, failures: int) -> int:
        """Fail that many times, and give the number of the attempt that did not."""
        await self._work(x, failures)
        number = current_step().attempt
        if number <= failures:
            raise OSError(number)
        return number

    async def _work_unwillingly(self, x: int, patience: float) -> None:
        with self._performing(x):
            try:
                await asyncio.sleep(self._scene().duration())
            except asyncio.CancelledError:
                await asyncio.sleep(patience)
                raise

    @step
    async def ok(self, x: int) -> int:
        await self._work(x)
        return x

    @step
    async def arm(self, x: int, side: int) -> int:
        await self._work(x, side)
        return x * side

    @step
    async def boom(self, x: int) -> int:
        await self._work(x)
        raise ValueError(x)

    @step(raises=(Refused,))
    async def declared(self, x: int) -> int:
        await self._work(x)
        raise Refused(x)

    @step
    async def quits(self, x: int) -> int:
        await self._work(x)
        raise asyncio.CancelledError(x)

    @step
    async def stubborn(self, x: int) -> int:
        await self._work_unwillingly(x, _PATIENCE)
        return x

    @step
    async def mule(self, x: int) -> int:
        await self._work_unwillingly(x, _MULISH)
        return x

    @step(retry=_SOON)
    async def flaky(self, x: int, failures: int) -> int:
        return await self._work_in_vain(x, failures)

    @step(retry=_MUCH_LATER)
    async def healing(self, x: int, failures: int) -> int:
        return await self._work_in_vain(x, failures)

    @step(retry=_SOON)
    async def asking(self, x: int, failures: int) -> int:
        try:
            return await self._work_in_vain(x, failures)
        except OSError as error:
            raise RetryAfter(0.9 * failures) from error

    @step(retry=_LIMITED, timeout=_LIMIT)
    async def tardy(self, x: int) -> int:
        await self._work(x)
        return current_step().attempt

    @step(retry=_LIMITED, timeout=_LIMIT)
    async def lingering(self, x: int) -> int:
        with suppress(asyncio.CancelledError):
            await self._work_unwillingly(x, _PATIENCE)
        return current_step().attempt

    @step(retry=_LIMITED, timeout=_LIMIT)
    async def haunting(self, x: int) -> int:
        with suppress(asyncio.CancelledError):
            await self._work_unwillingly(x, _MULISH)
        return current_step().attempt

    @step
    async def stamp(self, mark: UUID, share: float, at: datetime) -> float:
        await self._work(mark, share, at)
        return share

    @step
    async def ledger(self, x: int) -> list[int]:
        await self._work(x)
        self._scene().ledger.append(x)
        return self._scene().ledger  # the same list each time: a body must get a copy as it is stored
