"""A child whose call is given up is cancelled with all below it; a detached one goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    RunCancelled,
    State,
    sleep,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.families import becomes
from tests.support.restarts import die, quiet
from tests.support.stage import ended

effects: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()


@step
async def act(what: str) -> str:
    effects.append(what)
    return what


@step
async def refuse() -> None:
    raise LookupError("a sibling")


@workflow
async def naps(name: str) -> str:
    try:
        await sleep(100)
        return await act(f"{name} wakes")
    except asyncio.CancelledError:
        await act(f"{name} tidies up")
        raise


@workflow
async def middle() -> str:
    """Has a child that it waits for, and one that it has started."""
    await naps.options(id="started").start("started")
    try:
        return await naps.options(id="leaf")("leaf")
    finally:
        await act("middle is left")


@workflow
async def top() -> str:
    await naps.options(id="free", detached=True).start("free")
    try:
        return await middle.options(id="middle")()
    finally:
        await act("top is left")


FAMILY = ("top", "middle", "started", "leaf")


# Given up ------------------------------------------------------------------------------------------------------------


async def in_time(detached: bool) -> str:
    try:
        async with asyncio.timeout(10):
            return await naps.options(id="kid", detached=detached)("kid")
    except TimeoutError:
        return "gave up"


async def in_a_race(detached: bool) -> str:
    async def race() -> str:
        return await naps.options(id="kid", detached=detached)("kid")

    async def limit() -> str:
        await sleep(10)
        return "gave up"

    tasks = [asyncio.create_task(race()), asyncio.create_task(limit())]
    done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    return "".join(task.result() for task in done)


async def with_a_sibling_that_fails(detached: bool) -> str:
    async def sibling() -> None:
        await sleep(10)
        await refuse()

    said = "gave up"
    try:
        async with asyncio.TaskGroup() as group:
            kid = group.create_task(naps.options(id="kid", detached=detached)("kid"))
            group.create_task(sibling())
        said = kid.result()
    except* Exception:
        pass
    return said


WAYS = [in_time, in_a_race, with_a_sibling_that_fails]


@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
@pytest.mark.parametrize("way", WAYS)
def test_a_child_whose_call_is_given_up_is_cancelled(
    tmp_path: Path, way: Callable[[bool], Coroutine[Any, Any, str]], unload_after: float
) -> None:
    @workflow
    async def parent() -> str:
        said = await way(False)
        await sleep(10)
        return said

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock, unload_after=unload_after) as engine:
            await parent.options(id="p").start()
            await quiet(engine)
            clock.advance(10)
            assert (await ended(engine.run("kid"), RunCancelled)).reason == "run p no longer waits for it"
            await becomes(engine.run("p"), State.SUSPENDED)
            await die(engine)
        clock.advance(10)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[parent, naps]) as engine:
            assert await engine.run("p").result(timeout=20) == "gave up"
            assert await engine.count() == 2

    asyncio.run(scenario())
    assert effects == ["kid tidies up"]


@pytest.mark.parametrize("way", WAYS)
def test_a_detached_child_goes_on_when_its_call_is_given_up(way: Callable[[bool], Coroutine[Any, Any, str]]) -> None:
    @workflow
    async def parent() -> str:
        return await way(True)

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await parent.start()
            await quiet(engine)
            clock.advance(10)
            assert await run.result(timeout=20) == "gave up"
            await quiet(engine)
            clock.advance(90)
            assert await engine.run("kid").result(timeout=20) == "kid wakes"

    asyncio.run(scenario())


def test_a_child_that_is_given_up_takes_its_own_children_along() -> None:
    @workflow
    async def parent() -> str:
        try:
            async with asyncio.timeout(10):
                return await middle.options(id="middle")()
        except TimeoutError:
            return "gave up"

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await parent.start()
            await quiet(engine)
            clock.advance(10)
            assert await run.result(timeout=20) == "gave up"
            for run_id in FAMILY[1:]:
                await ended(engine.run(run_id), RunCancelled)

    asyncio.run(scenario())
    assert sorted(effects) == ["leaf tidies up", "middle is left", "started tidies up"]


# Detached ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["cancel", "terminate", "pause", "deadline"])
@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
def test_a_detached_child_is_left_alone_by_what_is_asked_of_its_parent(way: str, unload_after: float) -> None:
    @workflow
    async def parent() -> str:
        return await naps.options(id="kid", detached=True)("kid")

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, unload_after=unload_after) as engine:
            run = await parent.options(id="p", deadline=50).start()
            await quiet(engine)
            match way:
                case "cancel":
                    await run.cancel()
                case "terminate":
                    await run.terminate()
                case "pause":
                    await run.pause()
                case _:
                    clock.advance(50)
            await becomes(
                engine.run("p"),
                {"pause": State.PAUSED, "deadline": State.FAILED}.get(way, State.CANCELLED),
            )
            await quiet(engine)
            info = await engine.run("kid").info()
            assert (info.state, info.deadline, info.parent) == (State.SUSPENDED, None, "p")
            clock.advance(100)
            assert await engine.run("kid").result(timeout=20) == "kid wakes"

    asyncio.run(scenario())
