"""A cancel of a run is one of its children, and of theirs, in one transaction."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durable_sqlite import (
    Engine,
    Run,
    RunCancelled,
    RunFailed,
    RunParked,
    State,
    sleep,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.families import becomes, states
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended

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
    await stage.enter(name)
    return name


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
async def works(name: str) -> str:
    await stay(name)
    return await act(f"{name} goes on")


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


async def family(engine: Engine) -> Run[str]:
    """A run whose descendants wait for each other."""
    run = await top.options(id="top").start()
    await quiet(engine)
    assert await engine.count(state="suspended") == len(FAMILY) + 1
    return run


# Cancel --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
def test_a_cancel_reaches_all_descendants_and_each_tidies_up_once(unload_after: float) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock(), unload_after=unload_after) as engine:
            run = await family(engine)
            await run.cancel(reason="enough", by="ada")
            for run_id in FAMILY:
                cancelled = await ended(engine.run(run_id), RunCancelled)
                assert cancelled.reason == "enough"
                assert "by ada" in str(cancelled)
            await quiet(engine)
            assert (await engine.run("free").info()).state is State.SUSPENDED

    asyncio.run(scenario())
    assert sorted(effects) == ["leaf tidies up", "middle is left", "started tidies up", "top is left"]


def test_a_run_and_its_descendants_are_told_in_one_transaction(tmp_path: Path) -> None:
    commits: list[str] = []

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await family(engine)
            await die(engine)
        client = Engine(tmp_path / "j.db", drive=False, clock=clock)
        client._failpoint = lambda point: commits.append(point) if point == "commit.after" else None
        async with client:
            commits.clear()
            await client.run("top").cancel(reason="enough")
            assert len(commits) == 1
            assert await states(client) == {
                "top": State.PENDING,
                "free": State.SUSPENDED,
                "middle": State.PENDING,
                "started": State.PENDING,
                "leaf": State.PENDING,
            }
            await die(client)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[top, middle, naps]) as engine:
            for run_id in FAMILY:
                await ended(engine.run(run_id), RunCancelled)

    asyncio.run(scenario())
    assert sorted(effects) == ["leaf tidies up", "middle is left", "started tidies up", "top is left"]


@pytest.mark.contradicts("two", "crash", reason="it asks for a child as soon as its own engine is at rest")
def test_a_descendant_that_never_began_ends_without_a_pass() -> None:
    @workflow
    async def parent() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(stay("parent"))
            group.create_task(naps.options(id="kid")("kid"))

    async def scenario() -> None:
        async with Engine(":memory:", max_resident=1) as engine:
            run = await parent.start()
            await stage.seen("parent")
            await becomes(engine.run("kid"), State.PENDING)
            await run.cancel(reason="enough")
            await ended(run, RunCancelled)
            assert (await ended(engine.run("kid"), RunCancelled)).reason == "enough"
            assert await engine.run("kid").history() == []

    asyncio.run(scenario())
    assert effects == []


def test_a_parent_that_never_began_ends_without_a_pass_and_without_a_child(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path, drive=False):
            run = await top.options(id="top").start()
            await run.cancel(reason="no need")
            assert (await ended(run, RunCancelled)).reason == "no need"
        async with Engine(path, workflows=[top, middle, naps]) as engine:
            await engine.join()
            assert await states(engine) == {"top": State.CANCELLED}

    asyncio.run(scenario())
    assert effects == []


def test_descendants_that_have_ended_are_left_as_they_are() -> None:
    @workflow
    async def parent() -> None:
        await works.options(id="done")("done")
        try:
            await failing.options(id="failed")()
        except RunFailed:
            await naps.options(id="kid")("kid")

    @workflow
    async def failing() -> None:
        await refuse()

    async def scenario() -> None:
        stage.let("done")
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await parent.options(id="p").start()
            await quiet(engine)
            await run.cancel()
            await ended(run, RunCancelled)
            await ended(engine.run("kid"), RunCancelled)
            assert await states(engine) == {
                "p": State.CANCELLED,
                "done": State.COMPLETED,
                "failed": State.FAILED,
                "kid": State.CANCELLED,
            }

    asyncio.run(scenario())


@pytest.mark.parametrize("way", ["cancel", "terminate"])
def test_a_parked_child_is_left_to_people_by_a_cancel_of_its_parent_and_ends_where_that_is_terminated(way: str) -> None:
    mended: list[bool] = []

    @workflow
    async def fragile() -> str:
        if not mended:
            await asyncio.get_running_loop().create_future()  # which nothing will bring about
        return "mended"

    @workflow
    async def parent() -> str:
        return await fragile.options(id="kid")()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await parent.start()
            await quiet(engine)
            kid = engine.run("kid")
            await ended(kid, RunParked)
            await (run.cancel() if way == "cancel" else run.terminate())
            await ended(run, RunCancelled)
            if way == "terminate":
                await ended(kid, RunCancelled)
            else:
                mended.append(True)
                await kid.resume()
                assert await kid.result(timeout=20) == "mended"

    asyncio.run(scenario())


def test_a_child_that_is_called_while_its_parent_tidies_up_ends_before_it_begins_unless_it_is_detached() -> None:
    @workflow
    async def parent() -> None:
        try:
            await sleep(100)
        finally:
            try:
                await works("attached")
            except RunCancelled as cancelled:
                await act(f"refused: {cancelled.reason}")
            await works.options(detached=True)("detached")

    async def scenario() -> None:
        stage.let("attached", "detached")
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await parent.start()
            await quiet(engine)
            await run.cancel(reason="enough")
            await ended(run, RunCancelled)

    asyncio.run(scenario())
    assert effects == ["refused: enough", "detached goes on"]


def test_the_cancel_of_a_child_is_no_cancel_of_its_parent_or_its_siblings() -> None:
    @workflow
    async def parent() -> list[str]:
        told = await asyncio.gather(naps.options(id="a")("a"), naps.options(id="b")("b"), return_exceptions=True)
        return [said if isinstance(said, str) else type(said).__name__ for said in told]

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await parent.start()
            await quiet(engine)
            await engine.run("a").cancel()
            await ended(engine.run("a"), RunCancelled)
            await quiet(engine)
            clock.advance(100)
            assert await run.result(timeout=20) == ["RunCancelled", "b wakes"]

    asyncio.run(scenario())
