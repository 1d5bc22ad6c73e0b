"""A run with a long past goes on: how fast its body comes to where it was."""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
from pathlib import Path
from time import perf_counter

from benchmarks.bodies import increment
from benchmarks.limits import bare
from benchmarks.peers import mundane_file
from benchmarks.shape import OURS, Figures, Scenario, Side, least, most
from benchmarks.witness import WITNESS
from durable_sqlite import Engine, Signal, workflow

__all__ = ["SCENARIO"]

RATE = "entries a second"
TURNS = 5
SHORT = 1_000
"""Below it nothing is measured, only seen to work."""
REACHED: list[float] = []
"""When a body came to its last recorded line."""


class Go(Signal, name="bench-go-on"):
    """Lets a run go on that has been unloaded."""


@workflow
async def remembers(steps: int) -> int:
    """So many steps, and then it waits again and again."""
    number = 0
    for _ in range(steps):
        number = await increment(number)
    while True:
        REACHED.append(perf_counter())
        await Go.wait()


def _named(steps: int) -> str:
    return f"{steps:,}"


def _sizes(size: int) -> tuple[int, ...]:
    return (size // 100, size // 10, size)


async def _again(folder: Path, steps: int, most_entries: int) -> float:
    """Seconds until a body is where it was, in an engine that has just been opened."""
    gc.collect()
    async with Engine(folder / "journal.db", workflows=[remembers], unload_after=0, max_entries=most_entries) as engine:
        await engine.join()
        REACHED.clear()
        began = perf_counter()
        await engine.run(_named(steps)).signal(Go())
        await engine.join()
        return REACHED[0] - began


def _ours(folder: Path, size: int) -> Figures:
    async def main() -> Figures:
        async with Engine(folder / "journal.db", unload_after=0, max_entries=2 * size) as engine:
            for steps in _sizes(size):
                await remembers.options(id=_named(steps)).start(steps)
            await engine.join()
            WITNESS.look()
        took: dict[int, list[float]] = {steps: [] for steps in _sizes(size)}
        for _ in range(TURNS if size >= SHORT else 2):
            for steps, times in took.items():
                times.append(await _again(folder, steps, 2 * size))
        rates = {steps: steps / statistics.median(times) for steps, times in took.items()}
        shortest, *_, longest = rates
        return {
            RATE: rates[longest],
            **{f"{RATE}, a run of {_named(steps)}": rate for steps, rate in rates.items()},
            "time an entry in the longest run beside that in the shortest": rates[shortest] / rates[longest],
        }

    return asyncio.run(main())


def _limit(folder: Path, size: int) -> Figures:
    with bare(folder) as connection:
        connection.execute("BEGIN IMMEDIATE")
        rows = (("run", f"increment#{row}", str(row).encode()) for row in range(size))
        connection.executemany("INSERT INTO entries VALUES (?, ?, ?)", rows)
        connection.execute("COMMIT")
        began = perf_counter()
        found = [
            (key, json.loads(payload))
            for key, payload in connection.execute("SELECT key, payload FROM entries WHERE run = 'run'").fetchall()
        ]
        took = perf_counter() - began
        assert len(found) == size
        return {RATE: size / took}


def _mundane(folder: Path, size: int) -> Figures:
    return {RATE: mundane_file.replay(folder, size)}


SCENARIO = Scenario(
    name="replay",
    work="a run with 1,000, 10,000 and 100,000 recorded steps goes on; the limit: SELECT and decode of those rows",
    size=100_000,
    quick=200,
    sides=(
        Side(OURS, _ours),
        Side("limit", _limit),
        Side("mundane", _mundane, needs=mundane_file.NEEDS, share=0.01),
    ),
    floors=(
        least("entries a second", 30_000, lambda sides: sides[OURS][RATE]),
        most(
            "times the time an entry at 1,000, at 100,000",
            1.3,
            lambda sides: sides[OURS]["time an entry in the longest run beside that in the shortest"],
        ),
    ),
    main=RATE,
    rounds=1,
    notes=(
        "From the message that wakes the run to the line of the body after the last recorded step, in an engine just "
        "opened; five turns of each length. mundane replays 1,000 steps."
    ),
    tried=(
        (
            "Each entry is read with its checksum, decoded by its type, and given to the body in a pump of its own, since that "
            "order is the promise. Cheaper checks of arguments and no copies to compare took a fifth off."
        ),
    ),
)
