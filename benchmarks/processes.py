"""What it costs that a journal is shared: how soon another process is heard, and what listening takes while nothing happens.

These have no limit beside them. Each function does its work in the folder it is given and returns figures by what they are.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.synchronize import Event
from pathlib import Path
from random import Random

from durable_sqlite import Engine, Signal, step, workflow

__all__ = ["FIGURES"]

MESSAGES = 200
LONGEST_PAUSE = 0.3  # seconds
SUSPENDED = 10_000
AT_ONCE = 1_000
IDLE = 10.0  # seconds


class Note(Signal, name="bench-note"):
    number: int


@step
async def heard(number: int) -> float:  # noqa: ARG001 - names the step's call
    return time.monotonic()


@workflow
async def listens(messages: int) -> list[float]:
    return [await heard((await Note.wait()).number) for _ in range(messages)]


@workflow
async def waits() -> int:
    return (await Note.wait()).number


def _drive(journal: Path, ready: Event) -> None:
    async def main() -> None:
        async with Engine(journal) as engine:
            run = await listens.options(id="listener").start(MESSAGES)
            await engine.join()
            ready.set()
            await run

    asyncio.run(main())


def wakeups(folder: Path) -> dict[str, float]:
    """Messages to a run that another process drives: how long until its body has gone on."""
    context = multiprocessing.get_context("spawn")
    ready, chance = context.Event(), Random(7)
    journal = folder / "journal.db"
    driver = context.Process(target=_drive, args=(journal, ready))
    driver.start()
    if not ready.wait(60):
        raise SystemExit("the driving process does not begin")

    async def main() -> list[float]:
        sent: list[float] = []
        async with Engine(journal, workflows=[listens], drive=False) as engine:
            run = engine.run("listener")
            for number in range(MESSAGES):
                await asyncio.sleep(chance.random() * LONGEST_PAUSE)
                sent.append(time.monotonic())
                await run.signal(Note(number=number))
            began = await listens.run("listener").result(timeout=60)
            return sorted(then - before for before, then in zip(sent, began, strict=True))

    late = asyncio.run(main())
    driver.join()
    return {
        "ms from a message to the next line in another process, median": statistics.median(late) * 1000,
        "ms from a message to the next line in another process, 99th percentile": late[len(late) * 99 // 100] * 1000,
    }


def idle(folder: Path) -> dict[str, float]:
    """An engine with many suspended runs while nothing happens, with a second engine open on the same journal."""
    journal = folder / "journal.db"

    async def main() -> dict[str, float]:
        async with Engine(journal, unload_after=0) as engine:
            for first in range(0, SUSPENDED, AT_ONCE):
                starts = (waits.options(id=f"run-{number}").start() for number in range(first, first + AT_ONCE))
                await asyncio.gather(*starts)
            await engine.join()
            alone = await _load()
            async with Engine(journal, workflows=[waits]):
                await asyncio.sleep(1)
                before = _writes(journal)
                both = await _load()
                written = _writes(journal) - before
            return {
                "% of a core, one engine": alone,
                "% of a core, two engines on one journal": both,
                "transactions written meanwhile": float(written),
            }

    return asyncio.run(main())


async def _load() -> float:
    before = time.process_time()
    await asyncio.sleep(IDLE)
    return (time.process_time() - before) / IDLE * 100


def _writes(journal: Path) -> int:
    with closing(sqlite3.connect(journal)) as connection:
        ((writes,),) = connection.execute("SELECT sum(batch + beats) FROM durable_workers").fetchall()
    return int(writes)


FIGURES: dict[str, Callable[[Path], dict[str, float]]] = {"wakeups": wakeups, "idle": idle}
