"""What tests of parents and children ask of a journal."""

from __future__ import annotations

import asyncio
from typing import Any

from durable_sqlite import Engine, Run, State

__all__ = ["becomes", "children", "recorded", "states"]

_PATIENCE = 20.0  # seconds after which a test that waits is broken


async def becomes(run: Run[Any], state: State) -> None:
    """Wait until the journal says that a run is in this state, whoever has heard of it."""
    async with asyncio.timeout(_PATIENCE):
        while (await run.info()).state is not state:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def recorded(run: Run[Any], number: int) -> None:
    """Wait until a run has recorded this many outcomes."""
    async with asyncio.timeout(_PATIENCE):
        while len(await run.history()) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def states(engine: Engine) -> dict[str, State]:
    """The states of all runs by their ids, oldest first."""
    return {info.id: info.state async for info in engine.runs(newest_first=False)}


async def children(engine: Engine, parent: str) -> list[str]:
    """The ids of the runs that a run's body has started, oldest first."""
    return [info.id async for info in engine.runs(newest_first=False) if info.parent == parent]
