"""A pause of a run pauses its children and theirs, `resume` lets them go on, `terminate` ends them at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durable_sqlite import (
    Engine,
    Retry,
    Run,
    RunCancelled,
    State,
    WrongState,
    sleep,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.families import becomes, states
from tests.support.restarts import die, quiet
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
    await stage.enter(name)
    return name


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


@pytest.mark.contradicts("two", "crash", reason="its pause is heard before the step ends")
def test_a_pause_lets_steps_of_descendants_end_and_begins_no_other_until_the_resume() -> None:
    @workflow
    async def parent() -> str:
        return await works.options(id="kid")("kid")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await parent.options(id="p").start()
            await stage.seen("kid")
            await run.pause(reason="lunch", by="ada")
            await becomes(engine.run("p"), State.PAUSED)
            stage.let("kid")
            await becomes(engine.run("kid"), State.PAUSED)
            assert [entry.key for entry in await engine.run("kid").history()] == ["stay#1"]
            assert effects == []
            assert "pause was asked by ada" in (await engine.run("kid").info()).waiting_for[0]
            await run.resume()
            assert await run.result(timeout=20) == "kid goes on"

    asyncio.run(scenario())
    assert effects == ["kid goes on"]


@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
def test_a_paused_family_sleeps_on_over_a_restart_and_goes_on_together(tmp_path: Path, unload_after: float) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock, unload_after=unload_after) as engine:
            run = await family(engine)
            await run.pause()
            clock.advance(1000)
            await engine.run("free").result(timeout=20)
            await quiet(engine)
            await die(engine)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[top, middle, naps]) as engine:
            await engine.join()
            assert await states(engine) == {
                "top": State.PAUSED,
                "free": State.COMPLETED,
                "middle": State.PAUSED,
                "started": State.PAUSED,
                "leaf": State.PAUSED,
            }
            assert effects == ["free wakes"]
            await engine.run("top").resume()
            assert await engine.run("top").result(timeout=20) == "leaf wakes"
            assert await engine.run("started").result(timeout=20) == "started wakes"

    asyncio.run(scenario())


def test_a_child_may_be_paused_alone_and_its_parent_waits_on() -> None:
    @workflow
    async def parent() -> str:
        return await naps.options(id="kid")("kid")

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await parent.options(id="p").start()
            await quiet(engine)
            await engine.run("kid").pause()
            clock.advance(1000)
            await quiet(engine)
            assert await states(engine) == {"p": State.SUSPENDED, "kid": State.PAUSED}
            await engine.run("kid").resume()
            assert await run.result(timeout=20) == "kid wakes"

    asyncio.run(scenario())


def test_cancel_beats_pause_in_the_whole_family() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await family(engine)
            await run.pause()
            await run.cancel(reason="enough")
            for run_id in FAMILY:
                await ended(engine.run(run_id), RunCancelled)
            with pytest.raises(WrongState, match="cancelled"):
                await run.resume()

    asyncio.run(scenario())
    assert sorted(effects) == ["leaf tidies up", "middle is left", "started tidies up", "top is left"]


@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
def test_terminate_ends_descendants_without_clean_up(unload_after: float) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock(), unload_after=unload_after) as engine:
            run = await family(engine)
            await run.terminate(reason="stuck", by="ada")
            assert await states(engine) == {
                "top": State.CANCELLED,
                "free": State.SUSPENDED,
                "middle": State.CANCELLED,
                "started": State.CANCELLED,
                "leaf": State.CANCELLED,
            }
            await quiet(engine)
            assert (await ended(engine.run("leaf"), RunCancelled)).reason == "stuck"

    asyncio.run(scenario())
    assert effects == []


def test_a_child_that_is_terminated_tells_its_parent_and_takes_its_step_along() -> None:
    @workflow
    async def parent() -> str:
        try:
            return await works.options(id="kid")("kid")
        except RunCancelled as cancelled:
            return cancelled.reason

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await parent.start()
            await stage.seen("kid")
            await engine.run("kid").terminate(reason="stuck")
            assert await run.result(timeout=20) == "stuck"
            await quiet(engine)
            assert await engine.run("kid").history() == []

    asyncio.run(scenario())


def test_a_child_in_a_long_back_off_hears_the_cancel_of_its_parent() -> None:
    @step(retry=Retry.fixed(3600))
    async def shaky() -> None:
        effects.append("shaky")
        raise OSError

    @workflow
    async def child() -> None:
        await shaky()

    @workflow
    async def parent() -> None:
        await child.options(id="kid")()

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await parent.start()
            await until(lambda: effects)
            await becomes(engine.run("kid"), State.SUSPENDED)
            await run.cancel()
            await ended(run, RunCancelled)
            await ended(engine.run("kid"), RunCancelled)

    asyncio.run(scenario())
    assert effects == ["shaky"]
