"""Children where several engines have one journal open, and where there is no room for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from durable_sqlite import Engine, Run, RunCancelled, RunParked, State, Workflow, sleep, step, workflow
from tests.support.clock import ManualClock
from tests.support.families import becomes
from tests.support.gates import session_of
from tests.support.restarts import quiet
from tests.support.stage import Stage, ended, until

effects: list[str] = []
stage = Stage()


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()
    vars(stage).update(vars(Stage()))  # as new


@step
async def act(what: str) -> str:
    effects.append(what)
    return what


@step
async def stay(name: str) -> str:
    try:
        await stage.enter(name)
    except asyncio.CancelledError:
        effects.append(f"{name} was cancelled")
        raise
    return name


@workflow
async def child(name: str) -> str:
    try:
        return await stay(name)
    finally:
        await act(f"{name} has gone")


@workflow
async def naps(seconds: float) -> str:
    await sleep(seconds)
    return "awake"


def drives(engine: Engine, run_id: str) -> bool:
    """Whether the body of this run is in this engine's memory."""
    return session_of(engine).worker.has(run_id)


async def hear(engine: Engine) -> None:
    """Let an engine hear now of what others have written, which it does every moment."""
    await session_of(engine).worker.hear_news()


@asynccontextmanager
async def apart(path: Path, parent: Workflow[[], str]) -> AsyncGenerator[tuple[Run[str], Engine, Engine]]:
    """A run of `parent`, the engine that drives it and has room for nothing else, and the one that drives the child `kid`."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(Engine(path, max_resident=1))
        second = await stack.enter_async_context(Engine(path, workflows=[child]))
        run = await parent.options(id="p", engine=first).start()
        await stage.seen("parent", "kid")
        assert (drives(first, "p"), drives(first, "kid")) == (True, False)
        assert (drives(second, "p"), drives(second, "kid")) == (False, True)
        yield run, first, second


# Several engines -----------------------------------------------------------------------------------------------------


@workflow
async def beside() -> str:
    """Has a step in flight beside its child, so that it stays where it is."""
    async with asyncio.TaskGroup() as group:
        group.create_task(stay("parent"))
        kid = group.create_task(child.options(id="kid")("kid"))
    return kid.result()


@workflow
async def hears() -> str:
    """Its step ends only after it has heard of its child."""

    async def branch() -> str:
        said = await child.options(id="kid")("kid")
        await act("heard")
        return said

    async with asyncio.TaskGroup() as group:
        group.create_task(stay("parent"))
        kid = group.create_task(branch())
    return kid.result()


@workflow
async def gives_up() -> str:
    async with asyncio.TaskGroup() as group:
        group.create_task(stay("parent"))
        kid = asyncio.create_task(child.options(id="kid")("kid"))
        await stay("a while")
        kid.cancel()
    return "gave up"


@pytest.mark.contradicts("two", "crash", reason="the engine that starts its run is the one that drives it")
def test_a_child_that_another_engine_drives_gives_its_result_to_the_parent_here(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with apart(tmp_path / "j.db", beside) as (run, first, second):
            stage.let("kid")
            await becomes(second.run("kid"), State.COMPLETED)
            stage.let("parent")
            assert await run.result(timeout=20) == "kid"
            del first

    asyncio.run(scenario())
    assert effects == ["kid has gone"]


@pytest.mark.contradicts("two", "crash", reason="the engine that starts its run is the one that drives it")
def test_a_child_that_ends_elsewhere_is_heard_of_while_a_step_of_its_parent_is_in_flight(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with apart(tmp_path / "j.db", hears) as (run, *_):
            stage.let("kid")
            async with asyncio.timeout(5):
                await until(lambda: "heard" in effects)
            stage.let("parent")
            assert await run.result(timeout=20) == "kid"

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="the engine that starts its run is the one that drives it")
def test_a_cancel_reaches_a_child_that_another_engine_drives(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with apart(tmp_path / "j.db", beside) as (run, _, second):
            await run.cancel(reason="enough")
            assert (await ended(run, RunCancelled)).reason == "enough"
            assert (await ended(second.run("kid"), RunCancelled)).reason == "enough"

    asyncio.run(scenario())
    assert sorted(effects) == ["kid has gone", "kid was cancelled", "parent was cancelled"]


@pytest.mark.contradicts("two", "crash", reason="the engine that starts its run is the one that drives it")
def test_a_child_that_is_given_up_ends_where_it_is_driven(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with apart(tmp_path / "j.db", gives_up) as (run, _, second):
            await stage.seen("a while")
            stage.let("a while")
            assert (await ended(second.run("kid"), RunCancelled)).reason == "run p no longer waits for it"
            stage.let("parent")
            assert await run.result(timeout=20) == "gave up"

    asyncio.run(scenario())
    assert effects == ["kid was cancelled", "kid has gone"]


@pytest.mark.contradicts("two", "crash", reason="the engine that starts its run is the one that drives it")
def test_a_pause_and_a_resume_reach_a_child_that_another_engine_drives(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with apart(tmp_path / "j.db", beside) as (run, _, second):
            await run.pause()
            await hear(second)
            stage.let("kid", "parent")
            await becomes(run, State.PAUSED)
            await becomes(second.run("kid"), State.PAUSED)
            assert effects == []
            await run.resume()
            assert await run.result(timeout=20) == "kid"

    asyncio.run(scenario())
    assert effects == ["kid has gone"]


def test_a_client_that_drives_nothing_starts_and_cancels_families_that_others_drive(tmp_path: Path) -> None:
    @workflow
    async def parent(kid: str) -> str:
        try:
            return await child.options(id=kid)(kid)
        finally:
            await act("parent has gone")

    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path, workflows=[parent, child]), Engine(path, drive=False) as client:
            run = await parent.options(id="p", engine=client).start("kid")
            await stage.seen("kid")
            await run.cancel(reason="enough")
            assert (await ended(run, RunCancelled)).reason == "enough"
            await ended(client.run("kid"), RunCancelled)
            stage.let("another")
            assert await parent.options(engine=client)("another") == "another"

    asyncio.run(scenario())
    assert sorted(effects) == [
        "another has gone",
        "kid has gone",
        "kid was cancelled",
        "parent has gone",
        "parent has gone",
    ]


# Limits --------------------------------------------------------------------------------------------------------------


@workflow
async def quick(number: int) -> int:
    await act(str(number))
    return number


@workflow
async def one_by_one(count: int) -> int:
    return sum([await quick(number) for number in range(count)])


@workflow
async def at_once(count: int) -> int:
    return sum(await asyncio.gather(*[quick(number) for number in range(count)]))


@workflow
async def in_turn() -> int:
    async def branch(seconds: int) -> int:
        await sleep(seconds)
        await naps(100)
        return seconds

    return sum(await asyncio.gather(branch(1), branch(2), branch(3)))


@pytest.mark.parametrize(("parent", "begun"), [(one_by_one, 3), (at_once, 0)])
def test_no_child_is_started_whose_end_could_not_be_recorded(
    tmp_path: Path, parent: Workflow[[int], int], begun: int
) -> None:
    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path, max_entries=3) as engine:
            parked = await ended(await parent.options(id="p").start(5), RunParked)
            assert parked.reason == "max_entries"
            assert await engine.count(workflow=quick) == begun
        async with Engine(path, workflows=[parent, quick]) as engine:
            await engine.run("p").resume()
            assert await engine.run("p").result(timeout=20) == 10
            assert await engine.count(workflow=quick) == 5

    asyncio.run(scenario())
    assert sorted(effects) == list("01234")


def test_children_that_are_under_way_count_where_there_is_a_limit() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, max_entries=4) as engine:
            run = await in_turn.start()
            for _ in range(3):
                await quiet(engine)
                clock.advance(1)
            await quiet(engine)
            # Two sleeps and two children are four entries, and one more sleep there is anyhow.
            assert await engine.count(workflow=naps) <= 2
            clock.advance(100)
            assert (await ended(run, RunParked)).reason == "max_entries"

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="it asks for a child as soon as its run is started")
def test_a_child_has_a_limit_of_its_own() -> None:
    @workflow
    async def parent() -> str:
        await one_by_one.options(id="kid")(5)
        return "done"

    async def scenario() -> None:
        async with Engine(":memory:", max_entries=3) as engine:
            run = await parent.start()
            assert (await ended(engine.run("kid"), RunParked)).reason == "max_entries"
            await becomes(run, State.SUSPENDED)

    asyncio.run(scenario())


def test_children_that_are_started_at_once_take_no_more_room_than_there_is() -> None:
    @workflow
    async def parent() -> list[str]:
        return list(await asyncio.gather(*[child(str(number)) for number in range(12)]))

    async def scenario() -> None:
        async with Engine(":memory:", max_resident=4) as engine:
            run = await parent.start()
            await stage.seen("0", "1", "2")
            await run.info()
            assert len(session_of(engine).worker._residents.passes) <= 4
            stage.let(*[str(number) for number in range(12)])
            assert await run.result(timeout=20) == [str(number) for number in range(12)]

    asyncio.run(scenario())
