"""mundane-sdk: one run is one file, in SQLite's rollback mode by its own design (its file system layer has no WAL)."""

from __future__ import annotations

import asyncio
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.stopwatch import Stopwatch, Took, agree
from benchmarks.witness import WITNESS

__all__ = ["NEEDS", "concurrent", "replay"]

NEEDS = "mundane"


async def _count(path: Path, steps: int) -> int:
    mundane: Any = import_module("mundane")

    async def body(context: Any) -> int:
        # The connection is private there, and nothing else leads to it.
        context._task.conn.execute("PRAGMA synchronous=FULL")  # noqa: SLF001
        number = 0
        for occurrence in range(steps):
            number = await context.astep(f"increment-{occurrence}", _next(number))
        WITNESS.look()
        return number

    result: int = await mundane.arun(str(path), body)
    return result


def _next(number: int) -> Any:
    async def increment() -> int:
        return number + 1

    return increment


def concurrent(folder: Path, runs: int, steps: int) -> Took:
    """What is taken by so many runs at once."""

    async def main() -> Took:
        await _count(folder / "warm.db", 2)
        watch = Stopwatch()
        done = await asyncio.gather(*(_count(folder / f"{run}.db", steps) for run in range(runs)))
        took = watch.took()
        assert done == [steps] * runs
        return took

    return asyncio.run(main())


def replay(folder: Path, steps: int) -> float:
    """Recorded steps a second that a run goes through when it is started again."""

    async def main() -> float:
        await _count(folder / "run.db", steps)
        began = perf_counter()
        agree(await _count(folder / "run.db", steps), steps)
        return steps / (perf_counter() - began)

    return asyncio.run(main())
