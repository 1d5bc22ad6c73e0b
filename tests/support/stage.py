"""What tests of the engine share: steps that wait for the test, and runs that end as they should."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from durable_sqlite import Run

__all__ = ["Stage", "ended", "until"]

E = TypeVar("E", bound=BaseException)

_PATIENCE = 20.0  # seconds after which a test that waits is broken


class Stage:
    """Steps note here that they began, and wait until the test lets them go on."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self._here: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._go: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._open: set[str] = set()

    async def enter(self, name: str) -> None:
        """A step's side: note that it began, and wait."""
        self.began.append(name)
        self._here[name].set()
        if name not in self._open:
            await self._go[name].wait()

    async def seen(self, *names: str) -> None:
        """The test's side: wait until all these have begun."""
        async with asyncio.timeout(_PATIENCE):
            for name in names:
                await self._here[name].wait()

    def let(self, *names: str) -> None:
        """The test's side: let these go on, now or as soon as they come."""
        self._open.update(names)
        for name in names:
            self._go[name].set()

    def forget(self) -> None:
        """Between two engines: who has come is forgotten, and may come again, also on another loop."""
        self._here.clear()
        self._go.clear()

    def close(self, *names: str) -> None:
        """Hold those up again that were let go on."""
        self._open.difference_update(names)
        self._go.clear()


async def ended(run: Run[Any], error: type[E]) -> E:
    """Wait until a run has stopped, as `error` says."""
    with pytest.raises(error) as caught:
        await run.result(timeout=_PATIENCE)
    return caught.value


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until `condition` holds."""
    async with asyncio.timeout(_PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
