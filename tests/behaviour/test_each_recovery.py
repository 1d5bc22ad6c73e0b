"""`each` over crashes, replays and changes of the code: recorded items do not run again, and the rest goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    Retry,
    RunCancelled,
    RunFailed,
    Signal,
    State,
    StepFailed,
    Workflow,
    current_step,
    each,
    sleep,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.crash_points import Teller, crash_everywhere
from tests.support.families import recorded
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended

effects: list[str] = []
stage = Stage()


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()
    vars(stage).update(vars(Stage()))  # as new


class Proceed(Signal):
    pass


@step
async def act(what: str) -> str:
    effects.append(f"{current_step().key} {what}")
    return what


@step
async def stay(name: str) -> str:
    await stage.enter(name)
    effects.append(name)
    return name.upper()


@step
async def refuse_two(number: int) -> int:
    effects.append(f"number {number}")
    if number == 2:
        raise LookupError("two")
    return number


@workflow
async def visit(name: str) -> str:
    return await stay(name)


@workflow
async def naps(seconds: float) -> float:
    await sleep(seconds)
    await act(f"{seconds:g}")
    return seconds


def flow_of(body: Callable[[], Awaitable[Any]]) -> Workflow[[], str]:
    """A workflow that shows what `body` returns."""

    @workflow(name="flow")
    async def flow() -> str:
        return str(await body())

    return flow


# Crashes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("work", [stay, visit])
def test_a_kill_in_the_middle_repeats_no_item_that_is_recorded(tmp_path: Path, work: Any) -> None:
    flow = flow_of(lambda: each(work, "abcdef", concurrency=3))

    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path) as engine:
            await flow.options(id="x").start()
            await stage.seen("a", "b", "c")
            stage.let("c")
            await stage.seen("d")
            stage.let("a")
            await stage.seen("e")
            await recorded(engine.run("x"), 2)
            await die(engine)
        assert effects == ["c", "a"]
        stage.forget()
        stage.let(*"bdef")
        async with Engine(path, workflows=[flow, visit]) as engine:
            assert await engine.run("x").result(timeout=20) == "['A', 'B', 'C', 'D', 'E', 'F']"
            first, second = [entry.key for entry in await engine.run("x").history()][:2]
            assert (first, second) == (f"{work.name}#1[2]", f"{work.name}#1[0]")
            assert await engine.count(workflow=visit) == (6 if work is visit else 0)

    asyncio.run(scenario())
    assert sorted(effects) == list("abcdef")


@pytest.mark.parametrize("unload_after", [0.0, 1_000.0])
@pytest.mark.parametrize("collect", [False, True])
def test_wherever_it_dies_the_results_are_the_same(unload_after: float, collect: bool) -> None:
    @workflow
    async def flow() -> str:
        told: list[object] = [await each(act, "abc", concurrency=2)]
        try:
            if collect:
                told.extend(await each(refuse_two, [1, 2, 3], concurrency=1, on_error="collect"))
            else:
                told.extend(await each(refuse_two, [1, 2, 3], concurrency=1))
        except StepFailed as failed:
            told.append(failed)
        told.extend(await each(naps, [31, 10, 15, 5], concurrency=2))
        return "; ".join(map(str, told))

    async def story(teller: Teller) -> str:
        return await (await flow.options(id="x").start())

    told = crash_everywhere(story, flow, naps, unload_after=unload_after, effects=effects, ordered=False)
    failed = "step refuse_two#1[1] failed: LookupError: two"
    middle = f"1; {failed}; 3" if collect else failed
    assert told.returned == f"['a', 'b', 'c']; {middle}; 31.0; 10.0; 15.0; 5.0"
    assert told.runs["x"].keys[-4:] == ["naps#1[1]", "naps#1[2]", "naps#1[3]", "naps#1[0]"]


def test_a_kill_between_two_attempts_of_an_item_keeps_the_count_and_the_wait(tmp_path: Path) -> None:
    attempts: list[tuple[str, int]] = []

    @step(retry=Retry.fixed(60, max_attempts=3))
    async def shaky(name: str) -> str:
        attempts.append((name, current_step().attempt))
        if name == "b" and current_step().attempt < 3:
            raise OSError
        return name

    flow = flow_of(lambda: each(shaky, "abc", concurrency=2))

    async def scenario() -> None:
        clock = ManualClock()
        for _ in range(2):
            async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:
                await flow.options(id="x").start()
                await quiet(engine)
                await die(engine)
            clock.advance(60)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:
            assert await engine.run("x").result(timeout=20) == "['a', 'b', 'c']"

    asyncio.run(scenario())
    assert attempts == [("a", 1), ("b", 1), ("c", 1), ("b", 2), ("b", 3)]


@pytest.mark.parametrize(("unload_after", "max_resident"), [(0.0, 10_000), (3600.0, 2), (3600.0, 1)])
def test_bodies_that_leave_memory_in_the_middle_go_on_where_they_were(unload_after: float, max_resident: int) -> None:
    flow = flow_of(lambda: each(naps, [30, 10, 20, 40], concurrency=2))

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, unload_after=unload_after, max_resident=max_resident) as engine:
            run = await flow.start()
            for _ in range(8):
                await quiet(engine)
                clock.advance(10)
            assert await run.result(timeout=20) == "[30.0, 10.0, 20.0, 40.0]"
            assert await engine.count(workflow=naps) == 4

    asyncio.run(scenario())
    assert sorted(effects) == sorted(f"act#1 {seconds}" for seconds in (30, 10, 20, 40))


# Cancelled, given up, paused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("work", [stay, visit])
def test_a_cancel_in_the_middle_ends_what_is_open_and_begins_no_more(work: Any) -> None:
    flow = flow_of(lambda: each(work, "abcdef", concurrency=2))

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.options(id="x").start()
            await stage.seen("a", "b")
            stage.let("a")
            await stage.seen("c")
            await recorded(run, 1)
            await run.cancel()
            await ended(run, RunCancelled)
            assert [entry.key for entry in await run.history()] == [f"{work.name}#1[0]", "~cancel"]
            stage.let(*"bcdef")
            await quiet(engine)
            if work is visit:
                states = [info.state async for info in engine.runs(workflow=visit, newest_first=False)]
                assert states == [State.COMPLETED, State.CANCELLED, State.CANCELLED]

    asyncio.run(scenario())
    assert stage.began == ["a", "b", "c"]
    assert effects == ["a"]


def test_a_timeout_in_the_middle_gives_up_what_is_open_and_replays_the_same(tmp_path: Path) -> None:
    async def body() -> object:
        try:
            async with asyncio.timeout(10):
                return await each(naps, [5, 100, 100], concurrency=2)
        except TimeoutError:
            await sleep(10)
            return "too long"

    flow = flow_of(body)

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await flow.options(id="x").start()
            for _ in range(2):
                await quiet(engine)
                clock.advance(5)
            await quiet(engine)
            states = [info.state async for info in engine.runs(workflow=naps, newest_first=False)]
            assert states == [State.COMPLETED, State.CANCELLED, State.CANCELLED]
            await die(engine)
        clock.advance(10)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow, naps]) as engine:
            assert await engine.run("x").result(timeout=20) == "too long"
            assert await engine.count(workflow=naps) == 3

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="its pause is heard at once")
def test_a_pause_in_the_middle_begins_no_more_until_the_resume() -> None:
    flow = flow_of(lambda: each(stay, "abc", concurrency=1))

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.options(id="x").start()
            await stage.seen("a")
            await run.pause()
            stage.let(*"abc")
            await quiet(engine)
            assert (await run.info()).state is State.PAUSED
            assert effects == ["a"]
            await run.resume()
            assert await run.result(timeout=20) == "['A', 'B', 'C']"

    asyncio.run(scenario())


def test_children_of_a_fan_out_that_fails_go_on_with_the_resume() -> None:
    down = [True]

    @workflow
    async def shop(name: str) -> str:
        if name == "b":
            await sleep(10)
            await check()
        await sleep(100)
        return name

    @step
    async def check() -> None:
        if down:
            raise ConnectionError("down")

    flow = flow_of(lambda: each(shop, "abc", concurrency=2))

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            await quiet(engine)
            clock.advance(10)
            failed = await ended(run, RunFailed)
            assert failed.record is not None
            assert failed.record.key == "shop#1[1]"
            await quiet(engine)
            down.clear()
            await run.resume()
            for _ in range(3):
                await quiet(engine)
                clock.advance(100)
            assert await run.result(timeout=5) == "['a', 'b', 'c']"

    asyncio.run(scenario())


def test_a_fan_out_that_nobody_awaits_is_an_open_branch() -> None:
    async def body() -> object:
        calls = each(stay, "ab")
        return type(calls).__name__

    async def in_a_task() -> object:
        task = asyncio.create_task(each(stay, "ab"))
        await asyncio.sleep(0)
        return type(task).__name__

    async def scenario() -> None:
        async with Engine(":memory:"):
            failed = await ended(await flow_of(body).start(), RunFailed)
            assert "stay#1 was called and never awaited" in str(failed)
            failed = await ended(await flow_of(in_a_task).start(), RunFailed)
            assert "calls that were put into tasks were still open" in str(failed)
            assert "stay#1[0], stay#1[1]" in str(failed)

    asyncio.run(scenario())
    assert effects == []


def test_messages_reach_the_right_items() -> None:
    @workflow
    async def waits(name: str) -> str:
        await Proceed.wait()
        return name

    flow = flow_of(lambda: each(waits, "abc", concurrency=2))

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            for number in range(3):
                await quiet(engine)
                waiting = [info.id async for info in engine.runs(workflow=waits, state="suspended")]
                assert len(waiting) == min(2, 3 - number)
                await engine.run(waiting[0]).signal(Proceed())
            assert await run.result(timeout=20) == "['a', 'b', 'c']"

    asyncio.run(scenario())
