"""unhinged: the engine of Absurd on SQLite; WAL and `synchronous=FULL` are its own defaults."""

from __future__ import annotations

import asyncio
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.stopwatch import Stopwatch, Took, agree
from benchmarks.warm import warm_file
from benchmarks.witness import WITNESS

__all__ = ["NEEDS", "concurrent"]

NEEDS = "unhinged"

_CLAIM = 600  # seconds for which a task is held without a sign of life


async def _count(params: Any, context: Any) -> int:
    number = 0
    for _ in range(params["steps"]):
        number = await context.step("increment", _next(number))
    return number


def _next(number: int) -> Any:
    async def increment() -> int:
        return number + 1

    return increment


def concurrent(folder: Path, runs: int, steps: int) -> Took:
    """What is taken by so many runs at once, each of which may be under way at the same time."""

    async def main() -> Took:
        unhinged: Any = import_module("unhinged.aio")
        app = unhinged.AsyncUnhinged(str(folder / "unhinged.db"), synchronous="full")
        app.create_queue()
        app.register_task("count")(_count)

        async def work(several: int, each: int) -> None:
            tasks = [app.spawn("count", {"steps": each}) for _ in range(several)]
            await app.start_worker(concurrency=several, claim_timeout=_CLAIM, stop_when_idle=True)
            for task in tasks:
                agree(app.fetch_task_result(task["task_id"]).result, each)

        await work(1, 2)
        warm_file(folder / "unhinged.db")
        watch = Stopwatch()
        await work(runs, steps)
        took = watch.took()
        WITNESS.look()
        app.close()
        return took

    return asyncio.run(main())
