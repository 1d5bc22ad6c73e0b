"""What is left of a run in memory once it has ended or rests: nothing for Python to search for."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import Engine, Signal, sleep, step, transaction, workflow
from durable_sqlite._body_loop import BodyLoop, _Nobody
from tests.support.clock import ManualClock
from tests.support.restarts import quiet


class Nod(Signal):
    pass


@step
async def add(one: int, other: int) -> int:
    return one + other


@step
def add_in_a_thread(one: int, other: int) -> int:
    return one + other


@transaction
def add_in_the_file(tx: Any, one: int, other: int) -> int:
    return one + other


@workflow
async def adds() -> int:
    return await add(await add_in_a_thread(1, 2), 3)


@workflow
async def books() -> int:
    return await add_in_the_file(1, 2)


@workflow
async def branches() -> list[int]:
    return list(await asyncio.gather(add(1, 2), add(3, 4)))


@workflow
async def waits() -> str:
    await Nod.wait()
    await sleep(timedelta(days=1))
    return "nodded"


@workflow
async def calls() -> int:
    return await adds()


@contextmanager
def no_search() -> Generator[Callable[[], Counter[str]], None, None]:
    """Python searches for garbage only here; what it then finds is counted, by its type, as far as it is ours."""
    gc.collect()
    gc.disable()
    before = gc.get_debug()

    def found() -> Counter[str]:
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = Counter(type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("durable_"))
        gc.set_debug(before)
        gc.garbage.clear()
        return kinds

    try:
        yield found
    finally:
        gc.set_debug(before)
        gc.garbage.clear()
        gc.enable()


async def left_by(engine: Engine, act: Callable[[], Awaitable[object]]) -> Counter[str]:
    """What is garbage after the second of two: the first builds what is kept for all."""
    await act()
    await quiet(engine)
    with no_search() as found:
        await act()
        await quiet(engine)
        for _ in range(5):
            await asyncio.sleep(0)
        return found()


@pytest.mark.parametrize("flow", [adds, books, branches, calls], ids=lambda flow: flow.name)
def test_a_run_that_has_completed_leaves_nothing_to_search_for(tmp_path: Path, flow: Any) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            assert not await left_by(engine, flow)

    asyncio.run(scenario())


def test_a_run_that_leaves_memory_while_it_waits_leaves_nothing_to_search_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", unload_after=0) as engine:
            assert not await left_by(engine, waits.start)

    asyncio.run(scenario())


def test_a_run_that_was_woken_and_ends_leaves_nothing_to_search_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:

            async def act() -> None:
                run = await waits.start()
                await run.signal(Nod())
                await quiet(engine)
                clock.advance(86_400)
                assert await run.result(timeout=20) == "nodded"

            assert not await left_by(engine, act)

    asyncio.run(scenario())


def test_a_loop_of_a_body_that_was_unloaded_lets_whoever_still_holds_it_do_nothing() -> None:
    kept: list[BodyLoop] = []

    @workflow
    async def flow() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, BodyLoop)
        kept.append(loop)

    async def scenario() -> None:
        async with Engine(":memory:"):
            await flow()
        (loop,) = kept
        assert loop.time() == loop.time()
        loop.call_later(1, print).cancel()
        _Nobody(1.0).forbid("nobody hears it")

    asyncio.run(scenario())
