"""Many suspended runs: what each takes in memory, how fast they start and wake, and what an idle engine takes."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from pathlib import Path
from random import Random

from benchmarks.shape import OURS, Figures, Scenario, Side, most
from benchmarks.stopwatch import agree
from benchmarks.witness import WITNESS
from durable_sqlite import Engine, Signal, workflow

__all__ = ["SCENARIO"]

RATE = "runs started and suspended a second"
MEMORY = "bytes of memory for each"
IDLE = "% of a core while nothing happens"
AT_ONCE = 1_000
ALONE = 20
"""Runs that are woken one by one."""


class Go(Signal, name="bench-go"):
    """Lets a run go on."""

    number: int


@workflow
async def waits() -> int:
    """Wait for one message."""
    return (await Go.wait()).number


def _resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


async def _wake(number: int) -> float:
    """Milliseconds from a message to the end of a run."""
    began = time.perf_counter()
    run = waits.run(f"run-{number}")
    await run.signal(Go(number=number))
    agree(await run, number)
    return 1000 * (time.perf_counter() - began)


async def _settled(engine: Engine, runs: int) -> None:
    """Wait until all are suspended, and none is in memory."""
    await engine.join()
    while (await engine.stats()).bodies.resident:
        await asyncio.sleep(0.05)
    agree(await engine.count(state="suspended"), runs)


async def _idle(seconds: float) -> float:
    before = time.process_time()
    await asyncio.sleep(seconds)
    return 100 * (time.process_time() - before) / seconds


def _ours(folder: Path, runs: int) -> Figures:
    async def main() -> Figures:
        async with Engine(folder / "journal.db", unload_after=0.5) as engine:
            warm = await waits.start()
            await warm.signal(Go(number=1))
            await warm
            gc.collect()
            before, began = _resident(), time.perf_counter()
            for first in range(0, runs, AT_ONCE):
                ids = range(first, min(runs, first + AT_ONCE))
                await asyncio.gather(*(waits.options(id=f"run-{number}").start() for number in ids))
            await engine.join()
            started = time.perf_counter() - began
            await _settled(engine, runs)
            gc.collect()
            held = _resident() - before
            idle = await _idle(5.0 if runs >= AT_ONCE else 0.1)
            chosen = Random(7).sample(range(runs), min(runs, AT_ONCE + ALONE))
            alone = [await _wake(number) for number in chosen[: min(ALONE, runs // 2)]]
            together = chosen[len(alone) :]
            began = time.perf_counter()
            await asyncio.gather(*(_wake(number) for number in together))
            woken = time.perf_counter() - began
            WITNESS.look()
            return {
                RATE: runs / started,
                MEMORY: held / runs,
                IDLE: idle,
                "runs woken a second, 1,000 at once": len(together) / woken,
                "ms from a message to the end of a run, median": statistics.median(alone),
            }

    return asyncio.run(main())


SCENARIO = Scenario(
    name="waiting",
    work="100,000 runs that wait for a message each",
    size=100_000,
    quick=20,
    sides=(Side(OURS, _ours),),
    floors=(
        most("bytes of memory for a suspended run", 1024, lambda sides: sides[OURS][MEMORY]),
        most("% of a core while nothing happens", 1, lambda sides: sides[OURS][IDLE]),
    ),
    main=RATE,
    rounds=1,
    notes="Memory is the growth of the process, all of it: also what the interpreter and SQLite keep for later.",
    tried=(
        (
            "What an idle engine does is look, 15 to 60 times a second, whether another process has written, and less often "
            "the longer nothing comes. It asked SQLite each time, on the journal's thread, which took 1.2 % of a core; it reads "
            "the small file beside the journal now that every commit changes, and asks SQLite where that has changed, and twice "
            "a second in any case."
        ),
    ),
)
