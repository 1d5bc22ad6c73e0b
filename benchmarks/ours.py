"""What most scenarios do with an engine of ours: open it, warm it, take the time of some work, look at the durability."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.bodies import count
from benchmarks.stopwatch import Stopwatch, Took, agree
from benchmarks.warm import warm_engine
from benchmarks.witness import WITNESS
from durable_sqlite import Engine

__all__ = ["runs_of", "runs_of_open", "timed"]


def timed(folder: Path, work: Callable[[], Awaitable[object]], before: Callable[[Engine], Awaitable[object]]) -> Took:
    """What some work takes in an engine on a new journal, after what is done before it."""

    async def main() -> Took:
        async with Engine(folder / "journal.db") as engine:
            await count(3)  # so that adapters are built and the file has its first pages
            await before(engine)
            await warm_engine(engine)
            await count(3)
            watch = Stopwatch()
            await work()
            took = watch.took()
            WITNESS.look()
            return took

    return asyncio.run(main())


def runs_of(folder: Path, runs: int, steps: int) -> Took:
    """So many runs of so many steps at once."""

    async def work() -> None:
        agree(await asyncio.gather(*(count(steps) for _ in range(runs))), [steps] * runs)

    return timed(folder, work, _nothing)


async def runs_of_open(runs: int, steps: int) -> Took:
    """The same in the engine that is open."""
    watch = Stopwatch()
    agree(await asyncio.gather(*(count(steps) for _ in range(runs))), [steps] * runs)
    return watch.took()


async def _nothing(_: Engine) -> None:
    """Nothing has to be prepared."""
