"""What most scenarios do with an engine of ours: open it, warm it, take the time of some work, look at the durability."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

from benchmarks.bodies import count
from benchmarks.witness import WITNESS
from durable_sqlite import Engine

__all__ = ["runs_of", "runs_of_open", "timed"]


def timed(folder: Path, work: Callable[[], Awaitable[object]], before: Callable[[Engine], Awaitable[object]]) -> float:
    """Seconds that some work takes in an engine on a new journal, after what is done before it."""

    async def main() -> float:
        async with Engine(folder / "journal.db") as engine:
            await count(3)  # so that adapters are built and the file has its first pages
            await before(engine)
            began = perf_counter()
            await work()
            took = perf_counter() - began
            WITNESS.look()
            return took

    return asyncio.run(main())


def runs_of(folder: Path, runs: int, steps: int) -> float:
    """Steps a second of so many runs at once."""

    async def work() -> None:
        assert await asyncio.gather(*(count(steps) for _ in range(runs))) == [steps] * runs

    return runs * steps / timed(folder, work, _nothing)


async def runs_of_open(runs: int, steps: int) -> float:
    """The same in the engine that is open."""
    began = perf_counter()
    assert await asyncio.gather(*(count(steps) for _ in range(runs))) == [steps] * runs
    return runs * steps / (perf_counter() - began)


async def _nothing(_: Engine) -> None:
    """Nothing has to be prepared."""
