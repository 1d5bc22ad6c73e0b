"""What waiting costs: many runs that wait for a message, and many timers that are due at once.

These have no limit beside them. Each function does its work in the folder it is given and returns figures by what they are.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from durable_sqlite import Engine, Signal, sleep_until, workflow

__all__ = ["FIGURES"]

RUNS = 100_000
TIMERS = 10_000
AT_ONCE = 1_000
IDLE = 5.0  # seconds
UNLOAD_AFTER = 2.0
WOKEN = 21


class Go(Signal, name="bench-go"):
    number: int


@workflow
async def waits() -> int:
    return (await Go.wait()).number


@workflow
async def naps(until: float) -> None:
    await sleep_until(datetime.fromtimestamp(until, UTC))


def _resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def waiting(folder: Path, runs: int = RUNS) -> dict[str, float]:
    """Many runs that wait for a message: memory, idle load, and how soon one of them goes on."""

    async def main() -> dict[str, float]:
        async with Engine(folder / "journal.db", unload_after=UNLOAD_AFTER) as engine:
            warm = await waits.start()
            await warm.signal(Go(number=1))
            await warm
            gc.collect()
            before, began = _resident(), time.perf_counter()
            for first in range(0, runs, AT_ONCE):
                starts = (waits.options(id=f"run-{number}").start() for number in range(first, first + AT_ONCE))
                await asyncio.gather(*starts)
            await engine.join()
            started = time.perf_counter() - began
            await asyncio.sleep(2 * UNLOAD_AFTER)
            gc.collect()
            held = _resident() - before
            assert await engine.count(state="suspended") == runs
            idle = time.process_time()
            await asyncio.sleep(IDLE)
            idle = time.process_time() - idle
            woken = sorted([await _wake(engine, number) for number in Random(7).sample(range(runs), WOKEN)])
            return {
                "runs started and suspended a second": runs / started,
                "MB more than before, all of them unloaded": held / 1e6,
                "% of a core while nothing happens": idle / IDLE * 100,
                "ms from a message to the result of a run, median": woken[WOKEN // 2] * 1000,
            }

    return asyncio.run(main())


async def _wake(engine: Engine, number: int) -> float:
    run = engine.run(f"run-{number}")
    began = time.perf_counter()
    await run.signal(Go(number=number))
    assert await run == number
    return time.perf_counter() - began


def timers(folder: Path, number: int = TIMERS) -> dict[str, float]:
    """Many timers due in the same moment: how fast they are driven, and how long the event loop is held up."""
    lags: list[float] = []

    async def watch() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            lags.append(time.perf_counter() - began - 0.005)

    async def start(due: float) -> None:
        async with Engine(folder / "journal.db", unload_after=0) as engine:
            for first in range(0, number, AT_ONCE):
                starts = (naps.options(id=f"run-{one}").start(due) for one in range(first, first + AT_ONCE))
                await asyncio.gather(*starts)
            await engine.join()

    async def main() -> dict[str, float]:
        due = time.time() + 3_600
        await start(due)
        late = _Later(due)
        began = time.perf_counter()
        async with Engine(folder / "journal.db", workflows=[naps], clock=late) as engine:
            watcher = asyncio.create_task(watch())
            while await engine.count(state="completed") < number:
                await engine.join()
                await asyncio.sleep(0.01)
            watcher.cancel()
        took = time.perf_counter() - began
        lags.sort()
        return {
            "timers driven a second": number / took,
            "ms of event loop lag, 99th percentile": lags[int(len(lags) * 0.99)] * 1000,
            "ms of event loop lag, the longest": lags[-1] * 1000,
        }

    return asyncio.run(main())


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


FIGURES: dict[str, Callable[[Path], dict[str, float]]] = {"waiting": waiting, "timers": timers}
