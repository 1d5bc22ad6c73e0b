"""Many timers due at once: how fast they are driven, how late, and how long the application's event loop is held up."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.shape import OURS, Figures, Scenario, Side, least, most
from benchmarks.witness import WITNESS
from durable_sqlite import Engine, sleep_until, workflow

__all__ = ["SCENARIO"]

RATE = "timers driven a second"
DRIVEN = "% of the timers driven"
LAG = "ms of event loop lag, 99th percentile"
AT_ONCE = 1_000
TICK = 0.005  # seconds
WOKEN: list[float] = []
"""When bodies went on."""


@workflow
async def naps(until: float) -> None:
    """Sleep until a given time, and note when it went on."""
    await sleep_until(datetime.fromtimestamp(until, UTC))
    WOKEN.append(time.perf_counter())


class _Later:
    """A clock that shows a time after everything is due."""

    def __init__(self, due: float) -> None:
        self._ahead = round((due - time.time() + 1) * 1_000_000)

    def now(self) -> int:
        """The time in microseconds."""
        return time.time_ns() // 1000 + self._ahead

    def call_at(
        self, loop: asyncio.AbstractEventLoop, when: int, callback: Callable[[], object]
    ) -> asyncio.TimerHandle:
        """Call `callback` when that time has come."""
        return loop.call_later(max(0.0, (when - self.now()) / 1_000_000), callback)


async def _watch(lags: list[float]) -> None:
    """Note how late the loop is at each tick; where it stood still, also at the ticks that there would have been."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(TICK)
        late = time.perf_counter() - began - TICK
        while late > 0:
            lags.append(late)
            late -= TICK


async def _start(journal: Path, number: int, due: float) -> None:
    async with Engine(journal, unload_after=0) as engine:
        for first in range(0, number, AT_ONCE):
            ids = range(first, min(number, first + AT_ONCE))
            await asyncio.gather(*(naps.options(id=f"run-{one}").start(due) for one in ids))
        await engine.join()
        WITNESS.look()


async def _drain(journal: Path, number: int, due: float) -> Figures:
    lags: list[float] = []
    WOKEN.clear()
    began = time.perf_counter()
    async with Engine(journal, workflows=[naps], clock=_Later(due)) as engine:
        watcher = asyncio.create_task(_watch(lags))
        while await engine.count(state="suspended") + await engine.count(state="pending"):
            await engine.join()
            await asyncio.sleep(0.01)
        await engine.join()
        took = time.perf_counter() - began
        watcher.cancel()
        driven = await engine.count(state="completed")
    lags.sort()
    late = sorted(1000 * (woken - began) for woken in WOKEN)
    return {
        RATE: number / took,
        DRIVEN: 100 * driven / number,
        LAG: 1000 * lags[len(lags) * 99 // 100],
        "ms of event loop lag, the longest": 1000 * lags[-1],
        "ms until a body goes on, median": statistics.median(late),
        "ms until a body goes on, the last": late[-1],
    }


def _ours(folder: Path, number: int) -> Figures:
    async def main() -> Figures:
        due = time.time() + 3_600
        await _start(folder / "journal.db", number, due)
        return await _drain(folder / "journal.db", number, due)

    return asyncio.run(main())


SCENARIO = Scenario(
    name="timers",
    work="10,000 runs whose timers are all due when an engine opens",
    size=10_000,
    quick=20,
    sides=(Side(OURS, _ours),),
    floors=(
        least("% of the timers driven", 100, lambda sides: sides[OURS][DRIVEN]),
        most("ms of event loop lag at the 99th percentile", 100, lambda sides: sides[OURS][LAG]),
    ),
    main=RATE,
    rounds=2,
    notes="While the loop stands still, the ticks that are missed count as late ones.",
    tried=(
        (
            "What is due is claimed a hundred runs at a time, ten bodies are loaded in one turn of the loop, and a commit is "
            "answered a hundred operations a turn; what was left of long turns was mostly Python's search for garbage, and "
            "runs that have ended leave none now."
        ),
    ),
)
