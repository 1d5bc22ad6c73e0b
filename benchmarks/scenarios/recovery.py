"""A process is killed with many open runs: how soon the next one has begun, and finished, what was left."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from pathlib import Path
from time import perf_counter

from benchmarks.bodies import increment
from benchmarks.shape import OURS, Figures, Scenario, Side
from benchmarks.witness import WITNESS
from durable_sqlite import Engine, step, workflow

__all__ = ["SCENARIO"]

RATE = "runs finished a second"
AT_ONCE = 1_000
BEGUN: list[float] = []
"""When steps began that had been under way."""
HELD: set[asyncio.Event] = set()
"""Where there is one, steps wait for it: in the process that is killed, for ever."""


@step
async def hold(number: int) -> int:
    """A step that is under way when its process is killed."""
    BEGUN.append(perf_counter())
    for event in HELD:
        await event.wait()
    return number + 1


@workflow
async def breaks_off(number: int) -> int:
    """A recorded step, and one that is under way."""
    return await hold(await increment(number))


def _die(journal: Path, runs: int) -> None:
    """Kill this process when that many runs are in the middle of a step."""

    async def main() -> None:
        HELD.add(asyncio.Event())
        async with Engine(journal, max_resident=2 * runs):
            for first in range(0, runs, AT_ONCE):
                ids = range(first, min(runs, first + AT_ONCE))
                await asyncio.gather(*(breaks_off.options(id=f"run-{one}").start(one) for one in ids))
            while len(BEGUN) < runs:
                await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main())


def _ours(folder: Path, runs: int) -> Figures:
    journal = folder / "journal.db"
    process = multiprocessing.get_context("spawn").Process(target=_die, args=(journal, runs))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL

    async def main() -> Figures:
        began = perf_counter()
        async with Engine(journal, workflows=[breaks_off]) as engine:
            opened = perf_counter() - began
            while await engine.count(state="completed") < runs:
                await engine.join()
                await asyncio.sleep(0.01)
            took = perf_counter() - began
            WITNESS.look()
        return {
            RATE: runs / took,
            "ms until the engine is open": 1000 * opened,
            "ms until the first step begins": 1000 * (BEGUN[0] - began),
            "ms until all runs have ended": 1000 * took,
        }

    return asyncio.run(main())


SCENARIO = Scenario(
    name="recovery",
    work="a process is killed in the middle of a step of each of 10,000 runs; the next one opens the journal",
    size=10_000,
    quick=10,
    sides=(Side(OURS, _ours),),
    floors=(),
    main=RATE,
    rounds=2,
)
